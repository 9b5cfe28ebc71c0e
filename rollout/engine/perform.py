"""
Doing one effect through the ports, and the threads in which it is done.

A driver blocks (Fabric and the Kubernetes client do), so each effect has a thread of its own; looking and measuring have one each. What
comes out of all of them are events, in one queue. The threads are daemons: a migration that outlives us is not waited for, it is found
again by looking.
"""

import queue
import threading
from typing import Protocol, Self

from rollout.deciding.seeing import LOOK_FRESH_S
from rollout.engine.buying import Buyer
from rollout.engine.changes import Changes
from rollout.engine.drivers import Drivers
from rollout.engine.leasing import Tenure
from rollout.engine.survey import Surveyor
from rollout.engine.work import work_of
from rollout.model.effect import Effect
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, StaleEffectError, TakenOverError, TransientDriverError
from rollout.model.event import EffectFailed, EffectInDoubt, EffectSucceeded, Event, Observed, SamplesTaken
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Verb
from rollout.model.release import Release
from rollout.model.warming import Warmed
from rollout.ports.clock import Clock

# While a worker is out every half second counts; otherwise a look every two seconds is fresh enough (see deciding.seeing.LOOK_FRESH_S).
EAGER_LOOK_S = 0.5
CALM_LOOK_S = 2.0
# A worker that is out waits for its first canary to be answered.
EAGER_MEASURE_S = 1.0
THOROUGH_EVERY_S = 5.0
# A request that buys evidence is sent so much too late at most.
BUY_LOOK_S = 0.1
LOG_LINES_MAX = 12
USERS_TIMEOUT_S = 10.0


class Performer(Protocol):
    """What the loop needs of the world, real or simulated."""

    def submit(self, effect: Effect) -> None:
        """Begin an effect; its outcome comes out of `collect`, exactly once."""
        ...

    def attend(self, focus: frozenset[WorkerId], *, eager: bool, asked: frozenset[WorkerId]) -> None:
        """Say which workers are worth measuring, whether every look counts, and to whom requests are sent that buy evidence."""
        ...

    def collect(self, until_s: float) -> list[Event]:
        """Return what has happened, as soon as something has; an empty list at *until_s*."""
        ...


def act(effect: Effect, plan: Plan, drivers: Drivers, inventory: Inventory, clock: Clock) -> EffectSucceeded | EffectFailed | EffectInDoubt:
    """Do it, and say what came of it; never raises. What fails in a way that nobody foresaw is in doubt, not failed."""
    release: Release | None = None
    warmed: dict[WorkerId, Warmed] = {}
    try:
        if effect.verb is Verb.WARM:
            warmed = _warm(effect, plan, drivers)
        else:
            release = _do(effect, plan, drivers, inventory, clock)
    except OutcomeUnknownError as error:
        return EffectInDoubt(clock.now_s(), effect.number, _sentence(error))
    except TakenOverError as error:
        return EffectFailed(clock.now_s(), effect.number, _sentence(error), permanent=True, fenced=True)
    except StaleEffectError as error:
        # With a higher number it may be done, if it is still wanted then.
        number = EffectNumber(error.number)
        return EffectFailed(clock.now_s(), effect.number, _sentence(error), permanent=number == 0, ledger_number=number)
    except (TransientDriverError, PermanentDriverError) as error:
        log = drivers.workers.last_lines(effect.worker, LOG_LINES_MAX) if effect.worker is not None and effect.verb is Verb.RESTART else ()
        return EffectFailed(clock.now_s(), effect.number, _sentence(error), isinstance(error, PermanentDriverError), log)
    except Exception as error:  # noqa: BLE001  (a bug in a driver must not leave a worker drained: it is looked at instead)
        return EffectInDoubt(clock.now_s(), effect.number, f"{type(error).__name__}: {error}")
    return EffectSucceeded(clock.now_s(), effect.number, release, warmed)


def too_late(effect: Effect, late_s: float, now_s: float) -> EffectFailed | None:
    """Refuse to take anybody out by what was seen too long ago: this process stood still between the intent and the act."""
    if effect.verb not in {Verb.DRAIN, Verb.HOLD, Verb.RESTART} or late_s <= LOOK_FRESH_S:
        return None
    return EffectFailed(now_s, effect.number, f"{late_s:.0f} s went by between the intent and the act", permanent=False)


def _sentence(error: OutcomeUnknownError | TransientDriverError | PermanentDriverError) -> str:
    return f"{error.what}: {error.why}" if error.why else error.what


def _warm(effect: Effect, plan: Plan, drivers: Drivers) -> dict[WorkerId, Warmed]:
    """Warm one worker after the other. It takes nobody out of traffic, so it isn't fenced."""
    if drivers.warming is None or drivers.database is None or plan.warm is None:
        raise PermanentDriverError("there is nothing to warm with", remedy="warming_driver and database_driver in the inventory")
    users = drivers.database.active_users(plan.warm.users_max, USERS_TIMEOUT_S)
    return {worker: drivers.warming.warm(worker, users, plan.warm) for worker in effect.warms}


def _do(effect: Effect, plan: Plan, drivers: Drivers, inventory: Inventory, clock: Clock) -> Release | None:
    left_s = max(1.0, effect.deadline_at_s - clock.now_s())
    if effect.worker is None:
        if effect.verb is Verb.PREPARE:
            return drivers.releases.prepare(plan.to_release, left_s)
        drivers.releases.migrate(effect.release)
        return None
    drivers.ledger.perform(effect, work_of(effect, effect.worker, plan, drivers, inventory, left_s))
    return None


class ThreadedPerformer:
    """The real world. Use as a context manager: leaving ends the looking and measuring."""

    def __init__(self, plan: Plan, drivers: Drivers, inventory: Inventory, surveyor: Surveyor, clock: Clock, tenure: Tenure) -> None:
        self._plan = plan
        self._drivers = drivers
        self._inventory = inventory
        self._surveyor = surveyor
        self._clock = clock
        self._tenure = tenure
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._focus: frozenset[WorkerId] = frozenset()
        # Those with an effect under way: what ends meanwhile doesn't end by itself.
        self._acted_on: list[WorkerId | None] = []
        self._eager = False
        self._buyer = Buyer(plan, drivers.probe, clock, surveyor.meter.buy)
        self._ended = threading.Event()
        self._look_now = threading.Event()

    def __enter__(self) -> Self:
        """Begin to look and to measure, and to hear what becomes of the lease."""
        self._tenure.listen(self._events.put)
        for body in (self._look_again_and_again, self._measure_again_and_again):
            threading.Thread(target=body, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End looking and measuring; effects under way are not waited for."""
        self._ended.set()
        self._look_now.set()

    def submit(self, effect: Effect) -> None:
        """Begin an effect in a thread of its own."""
        self._acted_on.append(effect.worker)
        self._buyer.leave(effect.worker)
        threading.Thread(target=self._act, args=(effect, self._clock.elapsed_s()), daemon=True).start()

    def attend(self, focus: frozenset[WorkerId], *, eager: bool, asked: frozenset[WorkerId]) -> None:
        """Take effect with the next look and the next measurement."""
        self._focus = focus
        for worker in sorted(self._buyer.attend(asked)):
            threading.Thread(target=self._buy_again_and_again, args=(worker,), daemon=True).start()
        if eager and not self._eager:
            self._look_now.set()
        self._eager = eager

    def collect(self, until_s: float) -> list[Event]:
        """Wait for the first event, and take what else is there."""
        self._tenure.lives()
        try:
            events = [self._events.get(timeout=max(0.0, until_s - self._clock.now_s()))]
        except queue.Empty:
            return []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def _act(self, effect: Effect, submitted_s: float) -> None:
        if not self._tenure.refuses(effect, self._events.put):
            late = too_late(effect, self._clock.elapsed_s() - submitted_s, self._clock.now_s())
            self._events.put(late or act(effect, self._plan, self._drivers, self._inventory, self._clock))
        self._acted_on.remove(effect.worker)
        self._look_now.set()

    def _look_again_and_again(self) -> None:
        changes = Changes()
        thorough_at_s = float("-inf")
        while not self._ended.is_set():
            now_s = self._clock.now_s()
            thorough = now_s - thorough_at_s >= THOROUGH_EVERY_S
            thorough_at_s = now_s if thorough else thorough_at_s
            seen = self._surveyor.look(thorough=thorough, heeded=self._focus.difference(self._acted_on))
            self._events.put(Observed(self._clock.now_s(), changes.take(seen, self._focus)))
            self._look_now.wait(EAGER_LOOK_S if self._eager else CALM_LOOK_S)
            self._look_now.clear()

    def _measure_again_and_again(self) -> None:
        # One look at everything first: a difference needs two.
        focus = frozenset(self._inventory.workers)
        while not self._ended.is_set():
            measured = self._surveyor.measure(sorted(focus), with_canaries=True)
            self._events.put(SamplesTaken(self._clock.now_s(), measured))
            self._ended.wait(min(self._plan.sample_s, EAGER_MEASURE_S) if self._eager else self._plan.sample_s)
            focus = self._focus

    def _buy_again_and_again(self, worker: WorkerId) -> None:
        while not self._ended.wait(BUY_LOOK_S):
            if self._buyer.is_due(worker):
                self._buyer.ask(worker)
