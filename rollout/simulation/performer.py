"""
Effects, looks and measurements on the virtual clock.

The performer's own job is order: everything that will happen stands in one queue by its time, and the clock jumps from one to the next.
Effects are done by the same `act` as in the real world, looks and measurements by the same Surveyor, or quicker (looking.py). Faults are
scripted by effect number, so that the same script gives the same journal.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

from rollout.engine.buying import Buyer
from rollout.engine.changes import Changes
from rollout.engine.drivers import Drivers
from rollout.engine.leasing import Tenure
from rollout.engine.perform import BUY_LOOK_S, THOROUGH_EVERY_S, act, too_late
from rollout.model.effect import Effect
from rollout.model.event import EffectFailed, EffectInDoubt, EffectSucceeded, Event, Observed, SamplesTaken
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Verb
from rollout.simulation.faults import Fault, Hooks, NoHooks
from rollout.simulation.looking import Eyes
from rollout.simulation.virtual_clock import VirtualClock


@dataclass(frozen=True, slots=True)
class Durations:
    """How long effects take, in seconds."""

    cluster_s: float = 5.0
    restart_s: float = 0.5
    warm_s: float = 4.0
    proxy_s: float = 0.01

    def of(self, effect: Effect) -> float:
        """Say how long this one takes."""
        match effect.verb:
            case Verb.PREPARE | Verb.MIGRATE:
                return self.cluster_s
            case Verb.RESTART:
                return self.restart_s
            case Verb.WARM:
                return self.warm_s
            case _:
                return self.proxy_s


class VirtualPerformer:
    """See engine.perform.Performer."""

    def __init__(
        self,
        plan: Plan,
        drivers: Drivers,
        inventory: Inventory,
        clock: VirtualClock,
        durations: Durations = Durations(),
        eyes: Eyes | None = None,
        hooks: Hooks = NoHooks(),
        *,
        tenure: Tenure,
    ) -> None:
        self._plan = plan
        self._drivers = drivers
        self._inventory = inventory
        self._clock = clock
        self._durations = durations
        self._eyes = Eyes(drivers, inventory, clock) if eyes is None else eyes
        self._hooks = hooks
        self._changes = Changes()
        self._focus = frozenset(inventory.workers)
        self._eager = True
        self._thorough_at_s = float("-inf")
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._looks = 0
        self._tenure = tenure
        self._buyer = Buyer(plan, drivers.probe, clock, self._eyes.meter.buy)
        self._at(clock.now_s(), self._look)
        self._at(clock.now_s(), self._measure)
        self._at(clock.now_s() + tenure.pause_s, self._renew)
        if plan.buying is not None and not drivers.probe.unavailable(0.0):
            self._at(clock.now_s(), self._buy)

    def submit(self, effect: Effect) -> None:
        """Let it take its time, then do it."""
        self._buyer.leave(effect.worker)
        takes_s = self._durations.of(effect)
        due_s = self._clock.elapsed_s() + takes_s
        self._hooks.intended(effect)
        done_s = self._clock.now_s() + takes_s
        self._at(done_s, lambda: self._act(effect, due_s))
        if (look_at_s := self._eyes.after_effect_at_s(done_s)) is not None:
            self._at(look_at_s, self._look)

    def attend(self, focus: frozenset[WorkerId], *, eager: bool, asked: frozenset[WorkerId]) -> None:
        """See engine.perform."""
        self._focus = focus
        self._eager = eager
        self._buyer.attend(asked)

    def collect(self, until_s: float) -> list[Event]:
        """Jump to whatever comes first."""
        # The queue goes by the world's time: nothing happens sooner because the tool's clock is set.
        while self._queue and self._queue[0][0] <= until_s - self._clock.ahead_s:
            at_s, _, happen = heapq.heappop(self._queue)
            self._clock.advance_to(at_s + self._clock.ahead_s)
            if (event := happen()) is not None:
                return [event]
        self._clock.advance_to(until_s)
        return []

    def _at(self, at_s: float, happen: Callable[[], Event | None]) -> None:
        heapq.heappush(self._queue, (at_s - self._clock.ahead_s, next(self._order), happen))

    def _act(self, effect: Effect, due_s: float) -> EffectSucceeded | EffectFailed | EffectInDoubt:
        """Do what was due at *due_s* by the world's clock."""
        if (refusal := self._tenure.refuse(effect) or too_late(effect, self._clock.elapsed_s() - due_s, self._clock.now_s())) is not None:
            return refusal
        fault, later_s = self._hooks.fault_of(effect)
        outcome = self._go(effect, fault, later_s)
        self._hooks.acted(effect)
        return replace(outcome, at_s=self._clock.now_s())

    def _go(self, effect: Effect, fault: Fault | None, later_s: float) -> EffectSucceeded | EffectFailed | EffectInDoubt:
        now_s = self._clock.now_s()
        why = f"a fault of the simulation: {fault}"
        match fault:
            case Fault.FAILS | Fault.FAILS_FOR_GOOD:
                return EffectFailed(now_s, effect.number, why, permanent=fault is Fault.FAILS_FOR_GOOD)
            case Fault.UNKNOWN_NOT_DONE:
                return EffectInDoubt(now_s, effect.number, why)
            case Fault.SAYS_DONE:
                return EffectSucceeded(now_s, effect.number)
            case Fault.LATE:
                self._again(effect, later_s)
                return EffectInDoubt(now_s, effect.number, why)
        outcome = act(effect, self._plan, self._drivers, self._inventory, self._clock)
        match fault:
            case Fault.UNKNOWN_DONE:
                return EffectInDoubt(now_s, effect.number, why)
            case Fault.SAYS_FAILED:
                return EffectFailed(now_s, effect.number, why, permanent=False)
            case Fault.DUPLICATED:
                self._again(effect, later_s)
        return outcome

    def _again(self, effect: Effect, later_s: float) -> None:
        """It happens later whatever has become of us by then; only the fence at the target can refuse it."""
        self._clock.later(later_s, lambda: act(effect, self._plan, self._drivers, self._inventory, self._clock))

    def _renew(self) -> Event | None:
        # However far time jumps, this loop doesn't hang.
        self._tenure.lives()
        event = self._tenure.beat()
        self._at(self._clock.now_s() + self._tenure.pause_s, self._renew)
        return event

    def _buy(self) -> None:
        for worker in sorted(self._inventory.workers):
            if self._buyer.is_due(worker):
                self._buyer.ask(worker)
        self._at(self._clock.now_s() + BUY_LOOK_S, self._buy)

    def _look(self) -> Observed:
        now_s = self._clock.now_s()
        thorough = now_s - self._thorough_at_s >= THOROUGH_EVERY_S
        self._thorough_at_s = now_s if thorough else self._thorough_at_s
        seen = self._changes.take(self._eyes.look(thorough=thorough), self._focus)
        self._looks += 1
        looks = self._looks
        # Whoever looks sooner says anew when to look again.
        self._at(self._eyes.again_at_s(now_s, eager=self._eager), lambda: self._look() if looks == self._looks else None)
        return Observed(now_s, seen)

    def _measure(self) -> SamplesTaken:
        now_s = self._clock.now_s()
        self._at(now_s + self._plan.sample_s, self._measure)
        return SamplesTaken(now_s, self._eyes.measure(sorted(self._focus), with_canaries=self._plan.buying is not None))
