"""What a driver does as root on hosts, for whoever has to allow it there."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Privileges:
    """On *host* (*reached* as user@address), *user* runs exactly these *commands* as root: lists of words, the first a whole path."""

    host: str
    reached: str
    user: str
    commands: tuple[tuple[str, ...], ...]


@runtime_checkable
class Privileged(Protocol):
    """A driver that acts as root on hosts."""

    def privileges(self) -> tuple[Privileges, ...]:
        """List all that it may ever do as root; connects to nothing."""
        ...
