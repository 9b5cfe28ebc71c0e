"""
Looking at a simulated world, and measuring it.

The Surveyor of the real world can do that through the simulated drivers, and does wherever it is what is tested. But most of the time of a
rehearsal then goes into metrics pages that are written only to be read again, and into looks that show nothing new. So there are two
shorter ways: straight from the world to what the Surveyor would have said of it (tests hold the two side by side), and, besides, only when
something can be seen to have changed.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

from rollout.engine.drivers import Drivers
from rollout.engine.files import FILES_PROJECTED, FILES_USED
from rollout.engine.perform import CALM_LOOK_S, EAGER_LOOK_S
from rollout.engine.service import ERRORS, IN_FLIGHT, LATENCY
from rollout.engine.survey import LOOK_TIMEOUT_S, Surveyor
from rollout.homeservers.synapse.metrics import Counters
from rollout.model.changed import changed
from rollout.model.gate import LATENCY_EDGES_S, GuardReading, Measured, Stratum, Tally
from rollout.model.ids import PoolId, ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sighting import DrainMark, HoldSighting, Observation, PoolSighting, ProcessSighting, ProxySighting, Sighting
from rollout.ports.clock import Clock
from rollout.simulation.drivers import FILES_MAX, HEALTHY_S, IDLE_CPU, SERVLET, SLOW_S
from rollout.simulation.parts import SimulatedWorker
from rollout.simulation.world import World

# A look may be this old before nothing is gone by any more (deciding/seeing.py allows six seconds).
SPARING_LOOK_S = 5.0
# The real performer looks as soon as an effect has ended.
AFTER_EFFECT_S = 0.05

_NOTHING = Tally(0.0, 0.0)
_HEALTHY, _SLOW = LATENCY_EDGES_S.index(HEALTHY_S), LATENCY_EDGES_S.index(SLOW_S)
_NO_HOLD = HoldSighting()
# What every look goes through; only a thorough one asks the database besides.
_LOOKED_THROUGH = frozenset({"traffic", "workers"})


def _all_in(bucket: int) -> tuple[float, ...]:
    return tuple(1000.0 * (index == bucket) for index in range(len(_NOTHING.latency)))


# So little that the others can do without anybody.
_WELL = Tally(
    since_s=0.0,
    until_s=0.0,
    requests=1000.0,
    latency=_all_in(_HEALTHY),
    request_cpu_s=0.1,
    polls=1000.0,
    poll_cpu_s=1.0,
    poll_db_s=1.0,
    poll_scheduling_s=1.0,
    work=1000.0,
    cpu_s=0.1,
    backlog=0.0,
)
_BAD = replace(
    _WELL,
    errors=900.0,
    latency=_all_in(len(_NOTHING.latency) - 1),
    request_cpu_s=1.0,
    poll_cpu_s=10.0,
    poll_db_s=10.0,
    poll_scheduling_s=10.0,
    work=0.0,
    cpu_s=1.0,
    backlog=10_000.0,
)
# Where nobody measures them, no worker of a simulated world opens more files than it has, or lets anybody wait.
_CALM = (
    *(GuardReading(guard, 50 / FILES_MAX) for guard in (FILES_USED, FILES_PROJECTED)),
    *(GuardReading(guard, value) for guard, value in ((IN_FLIGHT, 0.0), (LATENCY, HEALTHY_S), (ERRORS, 0.0))),
)

# The fields of a ProxySighting, its counters left out, and what a Sighting is made of: as tuples they are quickly compared.
_AtProxy = tuple[bool, int, bool, int, int, int, bool, HoldSighting]
_Facts = tuple[float | None, ReleaseId, float, bool, str | None, _AtProxy | None, DrainMark | None]


# The old release, and after how many seconds on another one a worker is bad.
Script = tuple[ReleaseId, Mapping[WorkerId, float]]


class Sight(StrEnum):
    """How a rehearsal looks at its world."""

    REAL = "real"  # as in the real world: the Surveyor, through the drivers
    QUICK = "quick"  # straight from the world; what is seen, and so the journal, is the same
    SPARING = "sparing"  # as QUICK, but only when something has changed, or after five seconds
    SCRIPTED = "scripted"  # as SPARING, and what is measured is either well or bad, by a script


class Eyes(Surveyor):
    """The Surveyor, which also says when to look again."""

    def again_at_s(self, now_s: float, *, eager: bool) -> float:
        """Say when to look after a look at *now_s*."""
        return now_s + (EAGER_LOOK_S if eager else CALM_LOOK_S)

    def after_effect_at_s(self, done_s: float) -> float | None:
        """Say when to look after an effect that ends at *done_s*, besides; None where the next look comes soon anyway."""
        del done_s
        return None


class _Reading(NamedTuple):
    """The counters of one process, read at *at_s*: *healthy* requests took at most HEALTHY_S, *all_of_them* at most SLOW_S."""

    at_s: float
    started_at_s: float
    requests: float = 0.0
    errors: float = 0.0
    healthy: float = 0.0
    all_of_them: float = 0.0
    cpu_s: float = 0.0


class QuickEyes(Eyes):
    """Straight from the world, where nothing stands between; the Surveyor where something does that has yet to be invented here."""

    def __init__(self, world: World, drivers: Drivers, inventory: Inventory, clock: Clock) -> None:
        super().__init__(drivers, inventory, clock)
        # What is seen carries the tool's time, which need not be the world's.
        self._now_s = clock.now_s
        self._world = world
        self._ledger = drivers.ledger
        self._shown: dict[WorkerId, tuple[_Facts, Sighting]] = {}
        self._readings: dict[WorkerId, _Reading] = {}
        self._calm_pools: dict[PoolId, PoolSighting] = {}
        at_proxy = {worker: it.backend for worker, it in world.workers.items() if it.backend is not None}
        named = {WorkerId(server.name): server.backend for server in self._servers.values()}
        self._is_plain = at_proxy == named and set(inventory.workers) == set(world.workers)

    def look(self, *, thorough: bool, heeded: Collection[WorkerId] = ()) -> Observation:
        """See engine.survey. Of last words nobody decides anything: only the real way of looking has them."""
        if not self._is_plain or not self._world.away.isdisjoint(_LOOKED_THROUGH):
            return super().look(thorough=thorough, heeded=heeded)
        world, taken_at_s, marks = self._world, self._now_s(), self._ledger.marks()
        # The proxy is asked before the metrics pages are, and what it counts is what was served by then.
        answers_of = {worker: world.answers(worker) for worker in self._inventory.workers}
        proxied = {worker: self._proxy(worker, world.workers[worker], answers=answers) for worker, answers in answers_of.items()}
        sightings: dict[WorkerId, Sighting] = {}
        for worker, answers in answers_of.items():
            it = world.workers[worker]
            version = self._version_of(worker, it, answers=answers)
            facts: _Facts = (it.started_at_s, it.activated, it.activated_at_s, answers, version, proxied[worker], marks.get(worker))
            shown = self._shown.get(worker)
            if shown is None or shown[0] != facts:
                shown = self._shown[worker] = (facts, self._sighting(it, facts))
            sightings[worker] = shown[1]
        self._at_proxy = {worker: seen.proxy for worker, seen in sightings.items() if seen.proxy is not None}
        seen = Observation(taken_at_s=taken_at_s, sightings=sightings)
        return self._thoroughly(seen) if thorough else seen

    def _proxy(self, worker: WorkerId, it: SimulatedWorker, *, answers: bool) -> _AtProxy | None:
        world, backend = self._world, it.backend
        if backend is None:
            return None
        held = bool(world.holds) and world.is_held(backend)
        hold = world.hold_of(backend) if held or backend in world.after_holds else _NO_HOLD
        up, sessions = answers and world.checked(worker), world.sessions_left(worker, held=held) if answers else 0
        cuts = world.cuts.get(worker, 0)
        return it.admitted, it.weight, up, sessions, self._served(it), cuts, held, hold

    def _served(self, it: SimulatedWorker) -> int:
        return int(it.served)

    def _version_of(self, worker: WorkerId, it: SimulatedWorker, *, answers: bool) -> str | None:
        """Read it once per process, as soon as its metrics page is there."""
        if it.started_at_s is None:
            return None
        known = self._versions.get(worker)
        if known is None or known[0] != it.started_at_s:
            if not answers or worker in self._world.dark:
                return None
            self._world.serve(worker)
            known = self._versions[worker] = (it.started_at_s, self._world.releases[it.runs].version)
        return known[1]

    @staticmethod
    def _sighting(it: SimulatedWorker, facts: _Facts) -> Sighting:
        *_, answers, version, proxied, mark = facts
        proxy: ProxySighting | None = None
        if proxied is not None:
            admitted, weight, up, sessions, requests, cuts, held, hold = proxied
            proxy = ProxySighting(admitted, weight, up, sessions, requests, cuts, held=held, hold=hold)
        process = ProcessSighting(it.started_at_s is not None, it.started_at_s, it.activated, it.activated_at_s)
        return Sighting(process, answers, version, proxy, mark)

    def _read_stale(self, running: Collection[WorkerId]) -> None:
        """Ask those who have not been measured lately, as the Surveyor does."""
        if self._world.frozen or self._world.median_s:
            super()._read_stale(running)
            return
        now_s = self._now_s()
        for worker in self.meter.files.stale(running, now_s):
            if worker in self._world.dark or not self._world.answers(worker):
                self.meter.record(worker, now_s, "connection refused")
            else:
                self._world.serve(worker)
                self._take_in(worker, _read(self._world.workers[worker], now_s, self._world.clock.now_s()))

    def _take_in(self, worker: WorkerId, now: _Reading) -> None:
        """Take in for the guards what its metrics page would tell."""
        latency = list(_NOTHING.latency)
        latency[_HEALTHY], latency[_SLOW] = now.healthy, max(0.0, now.all_of_them - now.healthy)
        page = Counters(
            "",
            now.started_at_s,
            requests=now.requests,
            errors=now.errors,
            latency=tuple(latency),
            open_files=self._world.open_files(worker),
            files_max=FILES_MAX,
            in_flight=self._world.under_way.get(worker, 0.0),
        )
        self.meter.record(worker, now.at_s, page)

    def measure(self, workers: Collection[WorkerId], *, with_canaries: bool) -> Measured:
        """See engine.survey; who is asked for canaries is asked by the Surveyor."""
        if not self._is_plain or self._world.median_s or (with_canaries and self._world.application_service):
            return super().measure(workers, with_canaries=with_canaries)
        world, now_s = self._world, self._now_s()
        tallies: dict[WorkerId, Tally] = {}
        unmeasured: dict[WorkerId, str] = {}
        for worker in workers:
            it = world.workers[worker]
            if worker in world.dark or not world.answers(worker):
                unmeasured[worker] = "connection refused"
                self.meter.record(worker, now_s, unmeasured[worker])
                continue
            world.serve(worker)
            before, now = self._readings.get(worker), _read(it, now_s, world.clock.now_s())
            self._readings[worker] = now
            self._take_in(worker, now)
            told = None if before is None else _between(before, now)
            if isinstance(told, str):
                unmeasured[worker] = told
            elif (bought := self.meter.with_bought(worker, told)) is not None:
                tallies[worker] = bought
        return Measured(self.meter.with_proxies(workers, tallies, self._at_proxy), unmeasured)


def _read(it: SimulatedWorker, at_s: float, world_s: float) -> _Reading:
    """Add up as a metrics page does, by the code, so that not even rounding differs; *world_s* is now by the world's clock."""
    well, errors = it.served - it.errors, it.errors
    share = 0.0 if it.served == 0 else it.slow / it.served
    healthy = well * (1 - share) + errors * (1 - share)
    all_of_them = (well * (1 - share) + well * share) + (errors * (1 - share) + errors * share)
    started_at_s = it.started_at_s or 0.0
    cpu_s = it.cpu_s + IDLE_CPU * max(0.0, world_s - started_at_s)
    return _Reading(at_s, started_at_s, well + errors, errors, healthy, all_of_them, cpu_s)


def _between(before: _Reading, now: _Reading) -> Tally | str:
    """Return what was done between two readings; see homeservers.synapse.metrics.tally."""
    since_s, until_s = before.at_s, now.at_s
    if not since_s < until_s:
        return "its two metrics pages were not read one after the other"
    if now.started_at_s != before.started_at_s:
        if not since_s <= now.started_at_s <= until_s:
            return "its counters began anew, but its process did not start between the two measurements"
        before = _Reading(since_s, now.started_at_s)
    latency = list(_NOTHING.latency)
    latency[_HEALTHY] = max(0.0, now.healthy - before.healthy)
    latency[_SLOW] = max(0.0, max(0.0, now.all_of_them - now.healthy) - max(0.0, before.all_of_them - before.healthy))
    requests = max(0.0, now.requests - before.requests)
    return changed(
        _NOTHING,
        since_s=since_s,
        until_s=until_s,
        requests=requests,
        strata=(Stratum(SERVLET, requests, latency=_cut_off(latency)),) if requests else (),
        errors=max(0.0, now.errors - before.errors),
        latency=tuple(latency),
        cpu_s=max(0.0, now.cpu_s - before.cpu_s),
    )


def _cut_off(latency: list[float]) -> tuple[float, ...]:
    """Leave out what follows the last bucket that holds a request; see model.gate.Stratum."""
    for end in (_SLOW, _HEALTHY):
        if latency[end]:
            return tuple(latency[: end + 1])
    return ()


class SparingEyes(QuickEyes):
    """
    As QuickEyes, but only as often as something changes that can be seen.

    What changes by itself is known beforehand; it is seen when the real tool would have looked next. What somebody else does is seen within
    SPARING_LOOK_S. How many requests the proxy has counted is left out: it changes all the time, and nothing is decided by it.
    """

    def _served(self, it: SimulatedWorker) -> int:
        del it
        return 0

    def _thoroughly(self, observation: Observation) -> Observation:
        """Pools are described anew only where their requests can be held; of a database, and where something is away, as ever."""
        world, entries = self._world, self._inventory.pools
        if self._drivers.database is not None or world.away:
            return super()._thoroughly(observation)
        if world.can_hold or not self._calm_pools:
            self._calm_pools = {pool: world.pool(entry.backend) for pool, entry in entries.items() if world.members(entry.backend)}
        return changed(
            observation,
            releases=dict(world.releases),
            guards=_CALM,
            pools=self._calm_pools,
            proxy=self._drivers.traffic.limits(LOOK_TIMEOUT_S),
            last_number=self._ledger.last_number(),
        )

    def again_at_s(self, now_s: float, *, eager: bool) -> float:
        """See Eyes."""
        every_s = EAGER_LOOK_S if eager else CALM_LOOK_S
        world_s = self._world.clock.now_s()
        changes_in_s = next_change_s(self._world, world_s) - world_s
        if changes_in_s >= SPARING_LOOK_S:
            return now_s + SPARING_LOOK_S
        return now_s + every_s * max(1, math.ceil(changes_in_s / every_s))

    def after_effect_at_s(self, done_s: float) -> float | None:
        """See Eyes."""
        return done_s + AFTER_EFFECT_S


class ScriptedEyes(SparingEyes):
    """
    As SparingEyes, with measurements that no world made: each is well beyond doubt, or bad beyond doubt.

    A worker in the script is bad from so many seconds after it was started on another release than the old one; so gates rule what it
    says, by the real rules, at the first measurements that they can rule on. How often is measured is the playbook's `sample_s`.
    """

    def __init__(self, world: World, drivers: Drivers, inventory: Inventory, clock: Clock, script: Script) -> None:
        super().__init__(world, drivers, inventory, clock)
        self._old, self._bad_after_s = script
        self._measured_at_s: dict[WorkerId, float] = {}

    def measure(self, workers: Collection[WorkerId], *, with_canaries: bool) -> Measured:
        """See engine.survey."""
        del with_canaries
        world, now_s = self._world, self._now_s()
        tallies: dict[WorkerId, Tally] = {}
        unmeasured: dict[WorkerId, str] = {}
        for worker in workers:
            it = world.workers[worker]
            if it.started_at_s is None or worker in world.dark or not world.answers(worker):
                unmeasured[worker] = "connection refused"
                continue
            since_s = self._measured_at_s.get(worker)
            self._measured_at_s[worker] = now_s
            if since_s is not None and since_s < now_s:
                bad = it.runs != self._old and now_s >= it.started_at_s + self._bad_after_s.get(worker, math.inf)
                tallies[worker] = changed(_BAD if bad else _WELL, since_s=since_s, until_s=now_s)
        return Measured(tallies, unmeasured)


def next_change_s(world: World, now_s: float) -> float:
    """Return when something that can be seen changes next by itself: a boot, a check of the proxy, a drain or a hold ends."""
    moments: list[float] = []
    for worker, it in world.workers.items():
        if it.started_at_s is not None and (answers_s := it.started_at_s + world.boot_of(worker)) + world.check_s > now_s:
            moments += [answers_s, answers_s + world.check_s]
        if it.backend is not None and not it.admitted and it.sessions:
            # Half a session counts as none.
            moments.append(it.changed_at_s + world.session_life_of(worker) * (1 - 0.5 / it.sessions))
        elif it.backend in world.holds:
            moments.append(it.changed_at_s + world.held_ends_s)
    moments += [hold.began_at_s + hold.hold_s for hold in world.holds.values()]
    moments += [after.at_s + after.waiting / world.let_go_per_s for after in world.after_holds.values()]
    return min((moment for moment in moments if moment > now_s), default=math.inf)


def open_eyes(sight: Sight, world: World, drivers: Drivers, inventory: Inventory, clock: Clock, script: Script) -> Eyes:
    """Look in the way that is asked for, by the tool's clock; *script* is for ScriptedEyes alone."""
    match sight:
        case Sight.REAL:
            return Eyes(drivers, inventory, clock)
        case Sight.QUICK:
            return QuickEyes(world, drivers, inventory, clock)
        case Sight.SPARING:
            return SparingEyes(world, drivers, inventory, clock)
        case Sight.SCRIPTED:
            return ScriptedEyes(world, drivers, inventory, clock, script)
