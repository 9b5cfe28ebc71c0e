"""What a driver does as root on hosts, for whoever has to allow it there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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


def together(privileges: Sequence[Privileges]) -> tuple[Privileges, ...]:
    """Make one of those that are for the same account on the same host, whichever driver they are from."""
    found: dict[tuple[str, str], Privileges] = {}
    for one in privileges:
        key = (one.reached, one.user)
        found[key] = replace(found[key], commands=found[key].commands + one.commands) if key in found else one
    return tuple(found.values())
