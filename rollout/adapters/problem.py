"""One thing that is wrong in a file, before it has a line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """*path* leads to the value in the file (*at_key*: to its key); *what* and *remedy* as in InvalidFileError."""

    path: tuple[str | int, ...]
    what: str
    remedy: str = ""
    at_key: bool = False
