"""
The ports of a simulated homeserver as they are when something is wrong: what can't be asked says so, and each act lets something strike
between its fence and the deed.

Every act goes through the fence, so the world learns here whose hand it is: `world.acting` is the effect under way, None for anybody else.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from rollout.engine.drivers import Drivers
from rollout.model.conditions import DatabaseConditions, Room
from rollout.model.effect import Effect
from rollout.model.errors import OutcomeUnknownError, TransientDriverError
from rollout.model.gate import GuardReading
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.plan import HoldBound, Verb
from rollout.model.release import Release
from rollout.model.sighting import DrainMark, PoolSighting, ProxyLimits, ProxySighting, SchemaSighting
from rollout.model.warming import WarmBudget, Warmed
from rollout.ports.acts import Work
from rollout.ports.database import Database
from rollout.ports.ledger import Ledger
from rollout.ports.releases import Activation, Releases
from rollout.ports.traffic import Server, Traffic
from rollout.ports.warming import Warming
from rollout.ports.workers import ProcessState, Workers
from rollout.simulation.world import World

# While an act is under way, something may strike; which one it is isn't known to a driver.
During = Callable[[], None]


def with_faults(drivers: Drivers, world: World, during: During) -> Drivers:
    """Return the same ports, on which things can go wrong."""
    return replace(
        drivers,
        workers=FaultyWorkers(drivers.workers, world),
        releases=FaultyReleases(drivers.releases, during),
        traffic=FaultyTraffic(drivers.traffic, world),
        ledger=FaultyLedger(drivers.ledger, world, during),
        database=None if drivers.database is None else FaultyDatabase(drivers.database, world),
        warming=None if drivers.warming is None else FaultyWarming(drivers.warming, during),
    )


class FaultyWorkers:
    """The process manager; away when the world says so."""

    def __init__(self, inner: Workers, world: World) -> None:
        self._inner = inner
        self._world = world

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> Mapping[WorkerId, ProcessState]:
        """See ports.workers."""
        self._reach()
        return self._inner.look(workers, timeout_s)

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        self._reach()
        self._inner.stop(worker, timeout_s)

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        self._reach()
        self._inner.start(worker, timeout_s)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers."""
        return () if "workers" in self._world.away else self._inner.last_lines(worker, lines_max)

    def _reach(self) -> None:
        if "workers" in self._world.away:
            raise TransientDriverError("the process manager doesn't answer")


class FaultyReleases:
    """Releases at the target; something may strike before each act on them, which in a RESTART is when the old process has stopped."""

    def __init__(self, inner: Releases, during: During) -> None:
        self._inner = inner
        self._during = during

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """See ports.releases."""
        return self._inner.identify(version, config_from, base, next_generation=next_generation)

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """See ports.releases."""
        self._during()
        return self._inner.prepare(release, timeout_s)

    def prepared(self) -> dict[ReleaseId, Release]:
        """See ports.releases."""
        return self._inner.prepared()

    def migrate(self, release: ReleaseId) -> None:
        """See ports.releases."""
        self._during()
        self._inner.migrate(release)

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """See ports.releases."""
        self._during()
        self._inner.activate(worker, release)

    def activations(self, workers: Sequence[WorkerId]) -> dict[WorkerId, Activation]:
        """See ports.releases."""
        return self._inner.activations(workers)

    def room(self, release: Release) -> Room:
        """See ports.releases."""
        return self._inner.room(release)

    def connections(self, release: Release, workers: Sequence[WorkerId]) -> dict[WorkerId, int]:
        """See ports.releases."""
        return self._inner.connections(release, workers)


class FaultyTraffic:
    """The proxy; away when the world says so."""

    def __init__(self, inner: Traffic, world: World) -> None:
        self._inner = inner
        self._world = world

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        self._see()
        return self._inner.look(servers, timeout_s)

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic."""
        self._see()
        return self._inner.known(timeout_s)

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        self._tell()
        self._inner.drain(server, timeout_s)

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        self._tell()
        self._inner.admit(server, weight, timeout_s)

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic."""
        self._tell()
        self._inner.hold(server, bound, timeout_s)

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        self._tell()
        self._inner.let_go(server, timeout_s)

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic."""
        self._see()
        return self._inner.pools(backends, timeout_s)

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic."""
        self._see()
        return self._inner.limits(timeout_s)

    def _see(self) -> None:
        if "traffic" in self._world.away:
            raise TransientDriverError("the proxy doesn't answer")

    def _tell(self) -> None:
        if "traffic" in self._world.away:
            raise OutcomeUnknownError("the proxy doesn't answer")


class FaultyLedger:
    """The ledger and its fence. Whose hand it is and what strikes at that moment is known here."""

    def __init__(self, inner: Ledger, world: World, during: During) -> None:
        self._inner = inner
        self._world = world
        self._during = during

    @contextmanager
    def fence(self, effect: Effect) -> Iterator[None]:
        """See ports.ledger."""
        with self._inner.fence(effect):
            before, self._world.acting = self._world.acting, effect
            try:
                if effect.verb is not Verb.RESTART:
                    self._during()
                yield
            finally:
                self._world.acting = before

    def perform(self, effect: Effect, work: Work) -> None:
        """See ports.ledger."""
        with self.fence(effect):
            work.here()

    def guard(self, homeserver: str) -> None:
        """See ports.ledger."""
        self._inner.guard(homeserver)

    def take(self, token: int, owner: str = "") -> None:
        """See ports.ledger."""
        self._inner.take(token, owner)

    def token(self) -> int:
        """See ports.ledger."""
        return self._inner.token()

    def beat(self, token: int, alive_until_s: float) -> None:
        """See ports.ledger."""
        self._inner.beat(token, alive_until_s)

    def marks(self) -> dict[WorkerId, DrainMark]:
        """See ports.ledger."""
        return self._inner.marks()

    def last_number(self) -> EffectNumber:
        """See ports.ledger."""
        return self._inner.last_number()


class FaultyDatabase:
    """The homeserver's database; away when the world says so."""

    def __init__(self, inner: Database, world: World) -> None:
        self._inner = inner
        self._world = world

    def schema(self, timeout_s: float) -> SchemaSighting:
        """See ports.database."""
        self._reach()
        return self._inner.schema(timeout_s)

    def active_users(self, limit: int, timeout_s: float) -> tuple[str, ...]:
        """See ports.database."""
        self._reach()
        return self._inner.active_users(limit, timeout_s)

    def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
        """See ports.database."""
        if "database" in self._world.away:
            return tuple(replace(reading, value=None, detail="it doesn't answer") for reading in self._inner.guards(timeout_s))
        return self._inner.guards(timeout_s)

    def conditions(self, older_than_s: float, timeout_s: float) -> DatabaseConditions:
        """See ports.database."""
        return self._inner.conditions(older_than_s, timeout_s)

    def _reach(self) -> None:
        if "database" in self._world.away:
            raise TransientDriverError("the database doesn't answer")


class FaultyWarming:
    """Warming, during which something may strike."""

    def __init__(self, inner: Warming, during: During) -> None:
        self._inner = inner
        self._during = during

    def unavailable(self, timeout_s: float) -> str:
        """See ports.warming."""
        return self._inner.unavailable(timeout_s)

    def warm(self, worker: WorkerId, users: Sequence[str], budget: WarmBudget) -> Warmed:
        """See ports.warming."""
        self._during()
        return self._inner.warm(worker, users, budget)


class SimulatedWarming:
    """It warms whom it is told to, if that one answers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def unavailable(self, timeout_s: float) -> str:
        """See ports.warming."""
        del timeout_s
        return ""

    def warm(self, worker: WorkerId, users: Sequence[str], budget: WarmBudget) -> Warmed:
        """See ports.warming."""
        if not self._world.answers(worker):
            raise TransientDriverError("it answers none of them", where=worker)
        return Warmed(users=len(users), failures=0, seconds=min(3.0, budget.seconds), cold_s=0.4, warm_s=0.1)
