"""What a driver does as root on hosts, for whoever has to allow it there."""

from collections.abc import Iterable
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
    """A driver that acts as root on hosts, or one that looks as root there."""

    def privileges(self) -> tuple[Privileges, ...]:
        """List all that it may ever do as root; connects to nothing."""
        ...

    def not_allowed(self, timeout_s: float) -> tuple[str, ...]:
        """Ask the hosts which of these their sudo would not allow, and say so of each. Does nothing. Raises DriverError."""
        ...


def joined(privileges: Iterable[Privileges]) -> tuple[Privileges, ...]:
    """Join what several drivers do on one host as one user: it has one file of rules."""
    found: dict[tuple[str, str, str], Privileges] = {}
    for one in privileges:
        place = one.host, one.reached, one.user
        before = found.get(place)
        found[place] = one if before is None else replace(one, commands=(*before.commands, *one.commands))
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Grant:
    """
    In *namespace* of a cluster, these *verbs* on *resource* (`pods`, `pods/eviction`) of API *group*; "" is the core one. Only on objects
    of these *names*, unless there are none: nothing can be made, or listed, by its name alone.
    """

    namespace: str
    group: str
    resource: str
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()


@runtime_checkable
class Granted(Protocol):
    """A driver that acts in a cluster, with what its account there is granted."""

    def grants(self) -> tuple[Grant, ...]:
        """List all that it may ever do; connects to nothing."""
        ...

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """
        Ask the cluster which of these it would not allow, and say so of each. Does nothing. Raises DriverError.

        Unless it is *thorough*, what the cluster lists as our rights is believed.
        """
        ...


def joined_grants(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """Join what several drivers do with one resource: verbs in the order in which they are first named, and nothing twice."""
    found: dict[tuple[str, str, str, tuple[str, ...]], Grant] = {}
    for one in grants:
        place = one.namespace, one.group, one.resource, one.names
        before = found.get(place)
        verbs = one.verbs if before is None else tuple(dict.fromkeys((*before.verbs, *one.verbs)))
        found[place] = replace(one, verbs=verbs)
    every = tuple(found.values())
    return tuple(one for one in every if not any(_covers(other, one) for other in every if other is not one))


def _covers(wide: Grant, one: Grant) -> bool:
    """Tell whether whoever has *wide* has *one*, too."""
    if (wide.namespace, wide.group, wide.resource) != (one.namespace, one.group, one.resource):
        return False
    names = not wide.names or (bool(one.names) and set(one.names) <= set(wide.names))
    return names and set(one.verbs) <= set(wide.verbs)
