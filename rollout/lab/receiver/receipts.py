"""Reading what the peer has received, while it goes on writing."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class How(StrEnum):
    """How an event came to the peer."""

    # Its own membership, which it made itself.
    JOINED = "joined"
    PUSHED = "pushed"
    # Asked for, because another event refers to it.
    FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One event came once."""

    event: str
    room: str
    how: How
    at_s: float


class Receipts:
    """The lines that are added to the file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def fresh(self) -> list[Receipt]:
        """Return what has come since the last call. A line that isn't written to its end yet is left for the next."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        entries = [json.loads(line) for line in whole.splitlines()]
        return [Receipt(one["event"], one["room"], How(one["how"]), one["at_s"]) for one in entries]
