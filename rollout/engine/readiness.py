"""
Looking at everything that a rollout depends on, once, before it begins.

Each metrics page is read twice, a second apart: one that stands still meanwhile, though its process lives, is an old one that something
between us and the worker has kept. (Reading the first page already costs its process CPU time, which the second one tells.) One with a date
is judged by that: a Prometheus has the same page until it scrapes the next one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Event
from typing import TypeVar

from rollout.engine import past
from rollout.engine.drivers import Drivers
from rollout.engine.survey import Surveyor
from rollout.gating import guards as guard_rules
from rollout.model.conditions import DatabaseConditions, FilesUsed, Room
from rollout.model.errors import RolloutError
from rollout.model.gate import Measured
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Guard
from rollout.model.release import Release
from rollout.model.sighting import Observation, Sighting
from rollout.planning.preflight import Findings
from rollout.planning.preflight_database import WAIT_LONG_S
from rollout.ports.clock import Clock
from rollout.ports.privileges import Granted, Privileged

_T = TypeVar("_T")

# Between two readings of a metrics page. On a process that lives something moves within it.
APART_S = 1.0
# So long it is waited for a worker that a rollout of ours has left in the middle of its start.
START_WAIT_S = 60.0
START_LOOK_S = 1.0
CONDITIONS_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has shown; *unmeasured* are the workers that run and can't be measured, or not believed, and why."""

    observation: Observation
    measured: Measured
    unmeasured: Mapping[WorkerId, str]


class Readiness:
    """Looks at one homeserver, and says by *say* what it waits for. Not for use by several threads."""

    def __init__(self, drivers: Drivers, inventory: Inventory, clock: Clock, say: Callable[[str], None] = lambda _: None) -> None:
        self._drivers = drivers
        self._inventory = inventory
        self._clock = clock
        self._say = say
        self._wait = Event().wait
        self.surveyor = Surveyor(drivers, inventory, clock)

    def look(self, *, warming: bool, watch_s: float = 0.0, with_canaries: bool = False, buying: bool = False) -> Seen:
        """
        Look at everything twice where that is needed, and say who can't be measured, and why.

        Metrics are watched for *watch_s* (at least APART_S). Whether workers could be warmed (*warming*), or evidence bought (*buying*), is
        found out only where it is wanted.
        """
        workers = tuple(self._inventory.workers)
        began_at_s = self._clock.now_s()
        self.surveyor.measure(workers, with_canaries=with_canaries)
        before = self.surveyor.meter.counters()
        seen = self._once_started(self.surveyor.look_twice())
        if warming:
            seen = replace(seen, no_warming=self.surveyor.why_no_warming())
        if buying:
            seen = replace(seen, no_canaries=self.surveyor.why_no_canaries())
        ends_at_s = began_at_s + max(APART_S, watch_s)
        # How files grow is seen in the later half of it too: by several readings, not two.
        each_s = max(APART_S, watch_s / 8)
        while (left_s := ends_at_s - self._clock.now_s()) > each_s:
            self._wait(each_s)
            self.surveyor.measure(workers, with_canaries=with_canaries)
        if left_s > 0:
            self._wait(left_s)
        measured = self.surveyor.measure(workers, with_canaries=with_canaries)
        unmeasured = _of_the_running(seen, measured)
        dated = self.surveyor.meter.dated()
        for worker, counters in self.surveyor.meter.counters().items():
            if worker in unmeasured or worker not in before:
                continue
            if counters == before[worker] and worker not in dated:
                unmeasured[worker] = "its page stands still: it is an old one, that something between us and it has kept"
            elif why := _another(counters.started_at_s, seen.sightings.get(worker)):
                unmeasured[worker] = why
        # What takes time is told by the last reading.
        guards = {reading.guard: reading for reading in (*seen.guards, *self.surveyor.guards_now(seen))}
        return Seen(replace(_explained(seen, unmeasured), guards=tuple(guards.values())), measured, unmeasured)

    def _once_started(self, seen: Observation) -> Observation:
        """
        Wait for workers that a rollout of ours took out and that are starting: what they run can't be read yet, and soon can.

        A tool that was killed in a restart leaves them so. One that doesn't come within START_WAIT_S is judged as it is.
        """
        end_s = self._clock.elapsed_s() + START_WAIT_S
        told: list[WorkerId] = []
        while (starting := _starting(seen)) and self._clock.elapsed_s() < end_s:
            if starting != told:
                told = starting
                self._say(f"waiting for {', '.join(starting)}, which an earlier rollout took out: the version that runs can't be read yet")
            self._wait(START_LOOK_S)
            seen = self.surveyor.look(thorough=True)
        return seen

    def look_once(self) -> Observation:
        """Look at everything as it is, without a second look and without waiting for anything."""
        measured = self.surveyor.measure(tuple(self._inventory.workers), with_canaries=False)
        seen = self.surveyor.look(thorough=True)
        return _explained(seen, _of_the_running(seen, measured))

    def findings(self, seen: Seen, guards: tuple[Guard, ...], to: Release | None, *, thorough: bool) -> Findings:
        """Ask the database and the target too; never raises. What a cluster lists as our rights is believed, unless it is *thorough*."""
        database, now_s = self._drivers.database, self._clock.now_s()
        workers = tuple(self._inventory.workers)
        conditions: DatabaseConditions | None = None
        if database is not None:
            conditions = database.conditions(WAIT_LONG_S, CONDITIONS_TIMEOUT_S)
        room: Room | str | None = None
        connections: dict[WorkerId, int] = {}
        if to is not None:
            room = _or_why(lambda: self._drivers.releases.room(to))
            told = _or_why(lambda: self._drivers.releases.connections(to, workers))
            connections = {} if isinstance(told, str) else told
        files: dict[WorkerId, FilesUsed] = {}
        for worker in workers:
            if (used := self.surveyor.meter.files.used(worker, now_s)) is not None:
                files[worker] = used
        past_s: dict[WorkerId, float | str] | None = None
        if self._drivers.history is not None:
            tallies = past.tallies(self._drivers.history, workers, past.runs_seen(seen.observation), now_s)
            past_s = {worker: one if isinstance(one, str) else one.until_s - one.since_s for worker, one in tallies.items()}
        acting = (self._drivers.workers, self._drivers.releases, self._drivers.traffic, self._drivers.ledger)
        privileged = [driver for driver in acting if isinstance(driver, Privileged) and driver.privileges()]
        granted = [driver for driver in (*acting, self._drivers.lease) if isinstance(driver, Granted)]
        return Findings(
            observation=seen.observation,
            unmeasured=seen.unmeasured,
            broken={one.guard: one.why for one in guard_rules.broken(guards, seen.observation.guards)},
            files=files,
            conditions=conditions,
            room=room,
            connections=connections,
            not_allowed=_or_why(lambda: _not_allowed(privileged)) if privileged else None,
            not_granted=_or_why(lambda: _not_granted(granted, thorough=thorough)) if granted else None,
            past_s=past_s,
        )


# The clocks of two hosts differ by less; a page of an earlier process is older by more.
_SKEW_S = 60.0


def _another(page_started_at_s: float, sighting: Sighting | None) -> str:
    """Say that a page is of a process that has ended; nothing where it may be of the one that runs."""
    process = None if sighting is None else sighting.process
    if process is None or process.started_at_s is None or page_started_at_s >= process.started_at_s - _SKEW_S:
        return ""
    before_s = process.started_at_s - page_started_at_s
    return f"its page is of a process that began {before_s:.0f} s before the one that runs: it is an old one"


def _starting(seen: Observation) -> list[WorkerId]:
    """Say whose process is there, though not its version, and who is out by our hand."""
    return [
        worker
        for worker, sighting in seen.sightings.items()
        if sighting.drain is not None and sighting.version is None and sighting.process is not None and sighting.process.running
    ]


def _of_the_running(seen: Observation, measured: Measured) -> dict[WorkerId, str]:
    return {worker: why for worker, why in measured.unmeasured.items() if may_run(seen.sightings.get(worker))}


def _explained(seen: Observation, unmeasured: Mapping[WorkerId, str]) -> Observation:
    """Say beside each worker why its metrics, which also tell its version, could not be read."""
    sightings = {
        worker: replace(sighting, unseen=(*sighting.unseen, f"its metrics: {unmeasured[worker]}")) if worker in unmeasured else sighting
        for worker, sighting in seen.sightings.items()
    }
    return replace(seen, sightings=sightings)


def may_run(sighting: Sighting | None) -> bool:
    """Tell whether a worker runs, as far as anybody can see."""
    return sighting is not None and (sighting.process is None or sighting.process.running)


def _not_allowed(privileged: Sequence[Privileged]) -> tuple[str, ...]:
    return tuple(line for one in privileged for line in one.not_allowed(CONDITIONS_TIMEOUT_S))


def _not_granted(granted: Sequence[Granted], *, thorough: bool) -> tuple[str, ...]:
    # Several drivers do some of the same.
    return tuple(dict.fromkeys(line for one in granted for line in one.not_granted(CONDITIONS_TIMEOUT_S, thorough=thorough)))


def _or_why(ask: Callable[[], _T]) -> _T | str:
    try:
        return ask()
    except RolloutError as error:
        return f"{error.what}: {error.why.partition(chr(10))[0]}" if error.why else error.what
