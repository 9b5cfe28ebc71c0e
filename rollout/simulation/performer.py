"""
Effects, looks and measurements on the virtual clock.

The performer's own job is order: everything that will happen stands in one queue by its time, and the clock jumps from one to the next.
Effects are done by the same `act` as in the real world, looks and measurements by the same Surveyor. Faults are scripted by effect
number, so that the same script gives the same journal.
"""

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from rollout.engine.drivers import Drivers
from rollout.engine.leasing import Tenure
from rollout.engine.perform import CALM_LOOK_S, EAGER_LOOK_S, THOROUGH_EVERY_S, act
from rollout.engine.survey import Changes, Surveyor
from rollout.model.effect import Effect
from rollout.model.event import EffectFailed, EffectInDoubt, EffectSucceeded, Event, Observed, SamplesTaken
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Verb
from rollout.simulation.virtual_clock import VirtualClock


class Fault(StrEnum):
    """What may go wrong with one effect."""

    FAILS = "fails"  # nothing happens, and the driver says so
    UNKNOWN_DONE = "unknown_done"  # it happens, and nobody hears of it
    UNKNOWN_NOT_DONE = "unknown_not_done"  # it doesn't, and nobody hears of it


@dataclass(frozen=True, slots=True)
class Durations:
    """How long effects take, in seconds."""

    cluster_s: float = 5.0
    restart_s: float = 0.5
    warm_s: float = 4.0
    proxy_s: float = 0.01


class VirtualPerformer:
    """See engine.perform.Performer."""

    def __init__(
        self,
        plan: Plan,
        drivers: Drivers,
        inventory: Inventory,
        clock: VirtualClock,
        faults: Mapping[EffectNumber, Fault] | None = None,
        durations: Durations = Durations(),
        *,
        tenure: Tenure,
    ) -> None:
        self._plan = plan
        self._drivers = drivers
        self._inventory = inventory
        self._clock = clock
        self._faults = faults or {}
        self._durations = durations
        self._surveyor = Surveyor(drivers, inventory, clock)
        self._changes = Changes()
        self._focus = frozenset(inventory.workers)
        self._eager = True
        self._thorough_at_s = float("-inf")
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._tenure = tenure
        self._at(clock.now_s(), self._look)
        self._at(clock.now_s(), self._measure)
        self._at(clock.now_s() + tenure.pause_s, self._renew)

    def submit(self, effect: Effect) -> None:
        """Let it take its time, then do it."""
        match effect.verb:
            case Verb.PREPARE | Verb.MIGRATE:
                takes_s = self._durations.cluster_s
            case Verb.RESTART:
                takes_s = self._durations.restart_s
            case Verb.WARM:
                takes_s = self._durations.warm_s
            case _:
                takes_s = self._durations.proxy_s
        self._at(self._clock.now_s() + takes_s, lambda: self._act(effect))

    def attend(self, focus: frozenset[WorkerId], *, eager: bool) -> None:
        """See engine.perform."""
        self._focus = focus
        self._eager = eager

    def collect(self, until_s: float) -> list[Event]:
        """Jump to whatever comes first."""
        while self._queue and self._queue[0][0] <= until_s:
            at_s, _, happen = heapq.heappop(self._queue)
            self._clock.advance_to(at_s)
            if (event := happen()) is not None:
                return [event]
        self._clock.advance_to(until_s)
        return []

    def _at(self, at_s: float, happen: Callable[[], Event | None]) -> None:
        heapq.heappush(self._queue, (at_s, next(self._order), happen))

    def _act(self, effect: Effect) -> EffectSucceeded | EffectFailed | EffectInDoubt:
        if (refusal := self._tenure.refuse(effect)) is not None:
            return refusal
        fault = self._faults.get(effect.number)
        now_s = self._clock.now_s()
        if fault is Fault.FAILS:
            return EffectFailed(now_s, effect.number, "a fault of the simulation", permanent=False)
        if fault is Fault.UNKNOWN_NOT_DONE:
            return EffectInDoubt(now_s, effect.number, "a fault of the simulation")
        outcome = act(effect, self._plan, self._drivers, self._inventory, self._clock)
        return EffectInDoubt(now_s, effect.number, "a fault of the simulation") if fault is Fault.UNKNOWN_DONE else outcome

    def _renew(self) -> Event | None:
        # However far time jumps, this loop doesn't hang.
        self._tenure.lives()
        event = self._tenure.beat()
        self._at(self._clock.now_s() + self._tenure.pause_s, self._renew)
        return event

    def _look(self) -> Observed:
        now_s = self._clock.now_s()
        thorough = now_s - self._thorough_at_s >= THOROUGH_EVERY_S
        self._thorough_at_s = now_s if thorough else self._thorough_at_s
        self._at(now_s + (EAGER_LOOK_S if self._eager else CALM_LOOK_S), self._look)
        return Observed(now_s, self._changes.take(self._surveyor.look(thorough=thorough), self._focus))

    def _measure(self) -> SamplesTaken:
        now_s = self._clock.now_s()
        self._at(now_s + self._plan.sample_s, self._measure)
        return SamplesTaken(now_s, self._surveyor.measure(sorted(self._focus), with_canaries=False))
