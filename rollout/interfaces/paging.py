"""
Whom to wake, and when: which events become pages.

Told are the beginning, a wait that takes too long (once per reason), a gate that failed, a lease that was lost, the way back, and the end.
The rest is for whoever looks. What the plan said would take its time is no news: too long counts from when that time is over. Pure: time is
that of the events, which come every few seconds while a rollout lives.
"""

from rollout.deciding.state import DeployState, StepStatus, without_figures
from rollout.interfaces.narrate import narrate
from rollout.interfaces.report.advice import next_commands
from rollout.interfaces.report.words import duration
from rollout.model.event import DeployBegan, DeployFinished, DeployResumed, Event, GateRuled, LeaseLost, Outcome, RollbackBegan
from rollout.model.gate import Ruling
from rollout.model.ids import DeployId, GateId
from rollout.model.plan import Plan, Step, Verb, steps_of
from rollout.ports.notifier import Page, Severity

# The same reason for so long is worth a message: what forbids to go on, is in doubt or can't be measured is somebody's to know then.
WAIT_TOO_LONG_S = 300.0
# The waits that the plan has a time for, and the steps whose time that is.
_PLANNED = {
    "survey": frozenset({Verb.SURVEY}),
    "drain": frozenset({Verb.DRAIN}),
    "hold": frozenset({Verb.HOLD, Verb.LET_GO}),
    "boot": frozenset({Verb.AWAIT_HEALTHY}),
    "ramp": frozenset({Verb.DRAIN, Verb.ADMIT}),
    "evidence": frozenset({Verb.SOAK}),
    "watch": frozenset({Verb.WATCH}),
}

_SEVERITIES = {
    Outcome.DEPLOYED: Severity.INFO,
    Outcome.ROLLED_BACK_ON_REQUEST: Severity.INFO,
    Outcome.ABORTED: Severity.WARNING,
    Outcome.ROLLED_BACK: Severity.WARNING,
    Outcome.INTERRUPTED: Severity.WARNING,
    Outcome.REFUSED: Severity.WARNING,
    Outcome.PAUSED: Severity.CRITICAL,
    Outcome.HALTED: Severity.CRITICAL,
}
_FOR_A_PERSON = frozenset({Outcome.HALTED, Outcome.PAUSED, Outcome.INTERRUPTED})


class Pages:
    """Turns the events of one rollout into pages."""

    def __init__(self, deploy_id: DeployId, plan: Plan, wait_too_long_s: float = WAIT_TOO_LONG_S) -> None:
        self._deploy_id = deploy_id
        self._plan = plan
        self._wait_too_long_s = wait_too_long_s
        self._waits_for: tuple[str, str] | None = None
        self._since_s = 0.0
        self._told = False

    def of(self, event: Event, state: DeployState) -> Page | None:
        """Return what to tell of an event, given the state after it; None when it isn't worth waking anybody."""
        match event:
            case DeployBegan():
                return self._page("began", Severity.INFO, event)
            case DeployResumed():
                return self._page("resumed", Severity.INFO, event)
            case LeaseLost():
                out = any(known.drained_by_us for known in state.workers.values())
                return self._page("lease_lost", Severity.CRITICAL if event.taken_over and out else Severity.WARNING, event)
            case GateRuled() if event.verdict.ruling is Ruling.FAIL and self._acts(event.verdict.gate):
                return self._page("gate_failed", Severity.WARNING, event)
            case RollbackBegan():
                return self._page("rolling_back", Severity.INFO if event.requested else Severity.WARNING, event)
            case DeployFinished():
                advice = next_commands(self._deploy_id, event.outcome) if event.outcome in _FOR_A_PERSON else ""
                return self._page("finished", _SEVERITIES[event.outcome], event, advice)
            case _:
                return self._of_wait(event, state)

    def _acts(self, gate: GateId) -> bool:
        """Tell whether anything is done about what a gate says: nobody is woken for what only tries whether it could be."""
        return gate not in self._plan.gates or self._plan.gates[gate].acts

    def lost(self, why: str, at_s: float) -> Page:
        """Return what to tell when the rollout can't even be written down any more."""
        text = f"halted: an operator is needed: {why}"
        advice = next_commands(self._deploy_id, Outcome.HALTED)
        return Page("finished", Severity.CRITICAL, self._plan.homeserver, self._deploy_id, at_s, text, advice)

    def _of_wait(self, event: Event, state: DeployState) -> Page | None:
        waits_for = None if state.waiting is None else (state.waiting.cause, without_figures(state.waiting.why))
        if waits_for != self._waits_for:
            self._waits_for, self._since_s, self._told = waits_for, event.at_s, False
        if waits_for is None or self._told or event.at_s - self._since_s < self._wait_too_long_s:
            return None
        if event.at_s - self._planned_until_s(waits_for[0], state) < self._wait_too_long_s:
            return None
        self._told = True
        text = f"it has waited for {duration(event.at_s - self._since_s)}: {state.waiting.why if state.waiting else ''}"
        return Page(
            "waiting", Severity.WARNING, self._plan.homeserver, self._deploy_id, event.at_s, text, "to see what holds it up: rollout why"
        )

    def _planned_until_s(self, cause: str, state: DeployState) -> float:
        """Return until when the plan said that it might wait for this; minus infinity where it said nothing."""
        verbs = _PLANNED.get(cause, frozenset())
        steps = [step for step in (*steps_of(self._plan.phases), *steps_of(self._plan.rollback)) if step.verb in verbs]
        known = [(step, state.steps[step.id]) for step in steps]
        # One that is done counts too: what was waited for stays in the state until something else is.
        begun = [(step, at) for step, at in known if at.status is not StepStatus.PENDING]
        return max(((at.applied_at_s or at.began_at_s or 0.0) + self._time_s(step) for step, at in begun), default=float("-inf"))

    def _time_s(self, step: Step) -> float:
        match step.verb:
            case Verb.SURVEY:
                return self._plan.baseline_s
            case Verb.WATCH:
                return self._plan.watch.watch_s
            case _:
                return step.deadline_s

    def _page(self, kind: str, severity: Severity, event: Event, what_next: str = "") -> Page:
        text = narrate(event, self._plan) or kind
        return Page(kind, severity, self._plan.homeserver, self._deploy_id, event.at_s, text, what_next)
