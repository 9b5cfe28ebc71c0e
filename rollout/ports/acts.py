"""
What an effect does, as data for a program at the target, and as something that can be done in this process.

A driver that can write its acts down has the methods of `TrafficActs`, `WorkersActs` and so on beside those of its port. One that can't
(a third party's, the simulated one) is no worse a driver; but whoever is stopped between the check and such an act acts when it is woken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rollout.model.ids import ReleaseId, WorkerId
from rollout.ports.traffic import HoldBound, Server

# A JSON object with a `kind`; which kinds there are is said in rollout.agent.acts. With a `host` it is done there: a name among the hosts
# of the inventory's drivers. Without one it is for the machine that rollout runs on.
Act = Mapping[str, Any]
Acts = tuple[Act, ...]


def at_hosts(by_host: Mapping[str, Acts]) -> Acts:
    """Name in each act the host that it is for; "" is the machine that rollout runs on."""
    return tuple({**act, "host": host} if host else act for host, acts in by_host.items() for act in acts)


@dataclass(frozen=True, slots=True)
class WayBack:
    """
    How somebody else admits a worker that is taken out, and finds out whether it may: *health* is an address that answers 200 while it is
    well, *link* the path that names what it runs (None if there is none). Before *after_s* the proxy itself ends what was begun.
    """

    acts: Acts
    health: str
    link: str | None
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """What an effect does: *here* does it in this process; *acts* are the same as data, None if a driver can't write them down."""

    here: Callable[[], None]
    acts: Acts | None = None
    way_back: WayBack | None = None


@runtime_checkable
class TrafficActs(Protocol):
    """A proxy's commands. Each raises as the method of the port does, if it can be known already that it would fail."""

    def drain_acts(self, server: Server, timeout_s: float) -> Acts: ...
    def admit_acts(self, server: Server, weight: int, timeout_s: float) -> Acts: ...
    def hold_acts(self, server: Server, bound: HoldBound, timeout_s: float) -> Acts: ...
    def let_go_acts(self, server: Server, timeout_s: float) -> Acts: ...


@runtime_checkable
class WorkersActs(Protocol):
    """A process manager's commands."""

    def stop_acts(self, worker: WorkerId, timeout_s: float) -> Acts: ...
    def start_acts(self, worker: WorkerId, timeout_s: float) -> Acts: ...


@runtime_checkable
class ReplacesActs(Protocol):
    """The commands of a process manager that replaces (ports.workers.Replaces)."""

    def replace_acts(self, worker: WorkerId, timeout_s: float) -> Acts: ...


@runtime_checkable
class SwitchActs(Protocol):
    """How a worker is switched."""

    def activate_acts(self, worker: WorkerId, release: ReleaseId) -> Acts: ...


@runtime_checkable
class ReleasesActs(Protocol):
    """How a worker is switched; *link_of* is the path that names what it runs."""

    def activate_acts(self, worker: WorkerId, release: ReleaseId) -> Acts: ...
    def link_of(self, worker: WorkerId) -> str: ...


@runtime_checkable
class Addressed(Protocol):
    """Where a worker's health is asked; None for one that has no address."""

    def health_address(self, worker: WorkerId) -> str | None: ...
