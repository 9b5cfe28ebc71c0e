"""
Letting things go wrong at their moments.

A Striker hears of every event and of every effect, counts how often the rollout was at each moment of each verb, and lets happen what is
due then. It keeps what struck and when, because what could not have been foreseen is no fault of the rollout.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rollout.deciding.state import DeployState
from rollout.model.effect import Effect
from rollout.model.event import Command, EffectObserved, EffectSucceeded, Event, StepBegan
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Plan, Verb, steps_of
from rollout.simulation.faults import COMMANDS, OF_THE_ACT, Fault, Moment, Strike, Struck
from rollout.simulation.virtual_clock import ToolClock, VirtualClock
from rollout.simulation.world import World

# Steps without an effect: all there is of them is waiting.
ONLY_WAITED_FOR = frozenset({Verb.SURVEY, Verb.AWAIT_HEALTHY, Verb.SOAK, Verb.WATCH})
# The share of 5xx of a release that errs.
ERRS = 0.3
_OF_THE_TOOL = frozenset({Fault.TOOL_DIES, Fault.TOOL_STALLS, Fault.JOURNAL_LOST, *COMMANDS})


class Crash(BaseException):
    """
    The tool's process ends here, as by SIGKILL; nothing in it can catch that. Nobody is there for *nobody_for_s*; *journal_lost*: what it
    wrote is gone as well.
    """

    def __init__(self, nobody_for_s: float | None = None, *, journal_lost: bool = False) -> None:
        super().__init__()
        self.nobody_for_s = nobody_for_s
        self.journal_lost = journal_lost


@dataclass(slots=True)
class Striker:
    """
    See the module. *release* is the new one; *alive* tells whether the tool's process runs, so that something can happen to it; once it is
    *over* nothing more strikes.
    """

    strikes: Sequence[Strike]
    world: World
    clock: VirtualClock
    tool_clock: ToolClock
    release: ReleaseId
    alive: bool = False
    over: bool = False
    struck: list[Struck] = field(default_factory=list)
    intended_at_s: dict[EffectNumber, float] = field(default_factory=dict)
    effects: dict[EffectNumber, Effect] = field(default_factory=dict)
    drained_by_somebody: dict[WorkerId, float] = field(default_factory=dict)
    _due_during: list[Strike] = field(default_factory=list)
    _verbs: dict[StepId, Verb] = field(default_factory=dict)
    _workers: dict[StepId, WorkerId | None] = field(default_factory=dict)
    _times: Counter[tuple[Verb, Moment]] = field(default_factory=Counter)
    _words: list[tuple[Command, WorkerId | None]] = field(default_factory=list)
    _acting: Effect | None = None
    _aways: Counter[str] = field(default_factory=Counter)

    def follow(self, plan: Plan) -> None:
        """Learn what the steps of a plan are for."""
        for step in (*steps_of(plan.phases), *steps_of(plan.rollback)):
            self._verbs[step.id] = step.verb
            self._workers[step.id] = step.worker

    def listen(self, event: Event, state: DeployState) -> None:
        """Hear of an event that is durable."""
        match event:
            case StepBegan():
                verb = self._verbs[event.step_id]
                moment = Moment.WAITING if verb in ONLY_WAITED_FOR else Moment.BEFORE_INTENT
                self._at(verb, moment, self._workers[event.step_id])
            case EffectSucceeded() | EffectObserved():
                effect = self.effects.get(event.number)
                done = not isinstance(event, EffectObserved) or event.happened
                if effect is not None and done and effect.step_id in state.steps:
                    self._at(effect.verb, Moment.WAITING, effect.worker)

    def take_words(self) -> list[tuple[Command, WorkerId | None]]:
        """Return what people have asked for since the last time."""
        words, self._words = self._words, []
        return words

    def intended(self, effect: Effect) -> None:
        """See faults.Hooks."""
        self.effects[effect.number] = effect
        self.intended_at_s[effect.number] = self.clock.now_s()
        self._at(effect.verb, Moment.BEFORE_ACT, effect.worker)

    def fault_of(self, effect: Effect) -> tuple[Fault | None, float]:
        """See faults.Hooks."""
        self._acting = effect
        for strike in self._due(effect.verb, Moment.DURING):
            if strike.fault in OF_THE_ACT:
                self._keep(strike, effect.worker)
                self._due_during = [other for other in self._due_during if other is not strike]
                return strike.fault, strike.for_s or 0.0
        return None, 0.0

    def during(self) -> None:
        """Something may strike now, if it is the effect under way that is being done."""
        effect = self._acting
        if effect is not None and self._due_during:
            due, self._due_during = self._due_during, []
            for strike in due:
                self._strike(strike, effect.worker)

    def acted(self, effect: Effect) -> None:
        """See faults.Hooks."""
        self._acting = None
        self._due_during = []
        self._at(effect.verb, Moment.AFTER_ACT, effect.worker)

    def _due(self, verb: Verb, moment: Moment) -> list[Strike]:
        self._times[verb, moment] += 1
        nth = self._times[verb, moment]
        due = [strike for strike in self.strikes if (strike.verb, strike.moment, strike.nth) == (verb, moment, nth)]
        if moment is Moment.DURING:
            self._due_during = due
        return due

    def _at(self, verb: Verb, moment: Moment, worker: WorkerId | None) -> None:
        for strike in self._due(verb, moment):
            if strike.delay_s:
                self.clock.later(strike.delay_s, _bound(self._strike, strike, worker))
            else:
                self._strike(strike, worker)

    def _keep(self, strike: Strike, worker: WorkerId | None) -> None:
        self.struck.append(Struck(self.clock.now_s(), strike, worker or ""))

    def _strike(self, strike: Strike, worker: WorkerId | None) -> None:
        if self.over or (strike.fault in _OF_THE_TOOL and not self.alive):
            return
        victim = self._victim(strike, worker)
        self._keep(strike, victim)
        self._happen(strike, victim)

    def _happen(self, strike: Strike, victim: WorkerId) -> None:  # noqa: C901, PLR0912  (one row a fault)
        match strike.fault:
            case Fault.WORKER_DIES:
                self.world.die(victim)
                self._for_a_while(strike, lambda: self.world.start(victim))
            case Fault.WORKER_HANGS:
                self._hang(strike, victim)
            case Fault.BOOTS_SLOWLY | Fault.BOOTS_TOO_SLOWLY:
                self._boot(strike, victim)
            case Fault.RECOVERS_SLOWLY | Fault.RECOVERS_NEVER:
                self._ail(strike, victim)
            case Fault.METRICS_OF_ONE | Fault.METRICS_OF_ALL:
                self._darken(strike, victim)
            case Fault.PROXY_FORGETS:
                self.drained_by_somebody.clear()
                self.world.forget()
            case Fault.PROXY_AWAY:
                self._away(strike, "traffic")
            case Fault.MANAGER_AWAY:
                self._away(strike, "workers")
            case Fault.DATABASE_AWAY:
                self._away(strike, "database")
            case Fault.LEASE_LOST:
                self._lose_lease(strike)
            case Fault.RELEASE_EXITS | Fault.RELEASE_HANGS | Fault.RELEASE_ERRS | Fault.RELEASE_SLOW:
                turn_bad(self.world, self.release, strike.fault)
            case Fault.CLOCK_FORWARD:
                self.tool_clock.ahead_s += strike.for_s or 0.0
            case Fault.CLOCK_BACK:
                self.tool_clock.ahead_s -= strike.for_s or 0.0
            case Fault.TOOL_STALLS:
                self._stall(strike)
            case Fault.TOOL_DIES | Fault.JOURNAL_LOST:
                raise Crash(strike.for_s, journal_lost=strike.fault is Fault.JOURNAL_LOST)
            case Fault.SOMEBODY_DRAINS:
                self._drain(victim)
            case _:
                command = COMMANDS[strike.fault]
                self._words.append((command, victim if command is Command.SKIP else None))

    def _victim(self, strike: Strike, worker: WorkerId | None) -> WorkerId:
        others = [other for other in self.world.workers if other != worker]
        if worker is None or (strike.aside and others):
            return others[strike.whom % len(others)]
        return worker

    def _for_a_while(self, strike: Strike, end: Callable[[], object]) -> None:
        if strike.for_s is not None:
            self.clock.later(strike.for_s, end)

    def _hang(self, strike: Strike, worker: WorkerId) -> None:
        it = self.world.workers[worker]
        if it.started_at_s is None:
            return
        began_at_s = it.started_at_s
        self.world.hang(worker)

        def wake() -> None:
            if it.started_at_s == began_at_s:
                self.world.wake(worker)

        self._for_a_while(strike, wake)

    def _boot(self, strike: Strike, worker: WorkerId) -> None:
        it = self.world.workers[worker]
        it.next_boot_s = strike.for_s
        if it.started_at_s is not None and not self.world.answers(worker):
            it.boots_in_s = strike.for_s

    def _ail(self, strike: Strike, worker: WorkerId) -> None:
        self.world.serve(worker)
        self.world.workers[worker].slow_until_s = float("inf") if strike.for_s is None else self.clock.now_s() + strike.for_s

    def _darken(self, strike: Strike, worker: WorkerId) -> None:
        dark = {worker} if strike.fault is Fault.METRICS_OF_ONE else set(self.world.workers)
        self.world.dark |= dark
        self._for_a_while(strike, lambda: self.world.dark.difference_update(dark))

    def _away(self, strike: Strike, port: str) -> None:
        self._aways[port] += 1
        self.world.away.add(port)

        def back() -> None:
            self._aways[port] -= 1
            if not self._aways[port]:
                self.world.away.discard(port)

        self._for_a_while(strike, back)

    def _stall(self, strike: Strike) -> None:
        # It is stopped in the middle of whatever it does, and the world goes on.
        self.alive = False
        self.clock.advance_to(self.clock.now_s() + (strike.for_s or 0.0))
        self.alive = True

    def _drain(self, worker: WorkerId) -> None:
        it = self.world.workers[worker]
        if it.proxied and it.admitted and worker not in self.world.out_by_our_hand():
            acting, self.world.acting = self.world.acting, None
            self.world.drain(worker)
            self.world.acting = acting
            self.drained_by_somebody[worker] = self.clock.now_s()

    def _lose_lease(self, strike: Strike) -> None:
        """Let its place be out of reach for a while; or, if that would be for ever, let somebody else have it, who doesn't ask."""
        lease, now_s = self.world.lease, self.clock.now_s()
        if strike.for_s is None:
            lease.take_over(now_s)
        else:
            lease.away_until_s = now_s + strike.for_s


def turn_bad(world: World, release: ReleaseId, how: Fault) -> None:
    """Let a release be bad from now on."""
    for worker in world.workers:
        world.serve(worker)
    match how:
        case Fault.RELEASE_EXITS:
            world.never_boots.add(release)
        case Fault.RELEASE_HANGS:
            world.hang_all(release)
        case Fault.RELEASE_ERRS:
            world.erring[release] = ERRS
        case _:
            world.slow.add(release)


def _bound(strike: Callable[[Strike, WorkerId | None], None], one: Strike, worker: WorkerId | None) -> Callable[[], None]:
    return lambda: strike(one, worker)
