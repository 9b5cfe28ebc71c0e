"""
One sentence per event: terminal, CI and report show the same.

Pure, and without the time, which the caller renders. Events that say nothing to a person by themselves (looks, samples, an effect that did
what was announced) give None.
"""

from typing import assert_never

from rollout.model.effect import Effect, drains_in_part
from rollout.model.event import (
    BaselineFound,
    Command,
    DeployBegan,
    DeployFinished,
    DeployResumed,
    EffectFailed,
    EffectInDoubt,
    EffectIntended,
    EffectObserved,
    EffectSucceeded,
    Event,
    GateRuled,
    LeaseLost,
    LeaseRegained,
    Observed,
    OperatorSpoke,
    Outcome,
    RollbackBegan,
    SamplesTaken,
    StepBegan,
    StepFailed,
    StepFinished,
    WaitBegan,
    WindDownBegan,
)
from rollout.model.gate import Ruling
from rollout.model.ids import StepId
from rollout.model.plan import Plan, Step, Verb, steps_of

_RULINGS = {
    Ruling.PASS: "passes",
    Ruling.FAIL: "fails",
    Ruling.PENDING: "is pending on",
    Ruling.INCONCLUSIVE: "is inconclusive on",
    Ruling.UNMEASURABLE: "can't be measured on",
}

_OUTCOMES = {
    Outcome.DEPLOYED: "deployed",
    Outcome.ROLLED_BACK: "rolled back",
    Outcome.ROLLED_BACK_ON_REQUEST: "rolled back, as asked",
    Outcome.ABORTED: "aborted, as asked",
    Outcome.HALTED: "halted: an operator is needed",
    Outcome.REFUSED: "refused",
    Outcome.PAUSED: "paused",
    Outcome.INTERRUPTED: "interrupted",
}

_COMMANDS = {
    Command.ABORT: "to make safe and stop",
    Command.ROLLBACK: "to roll back",
    Command.INTERRUPT: "to stop for now",
    Command.PAUSE: "to pause, once the worker that is out is back and well",
    Command.CONTINUE: "to go on",
    Command.SKIP: "to skip",
}

_ACTS = {
    Verb.HOLD: "holding the requests of {worker} at the proxy",
    Verb.LET_GO: "letting go what waits for {worker}",
    Verb.WARM: "warming {warms}",
    Verb.ADMIT: "admitting {worker} at {weight} %",
    Verb.RESTART: "restarting {worker} on {release}",
    Verb.PREPARE: "preparing {release}",
    Verb.MIGRATE: "migrating the database to {release}: not to be interrupted",
}


def narrate(event: Event, plan: Plan) -> str | None:  # noqa: C901, PLR0912  (one row per kind of event)
    """Say what an event means to a person; None when it isn't worth a line."""
    match event:
        case DeployBegan():
            to = plan.to_release.version
            begins = f"rollout {event.deploy_id} of {plan.homeserver} to {to} begins, by {event.operator} (plan {event.plan_digest[:12]})"
            return begins + _regardless(event.windows_ignored) + _taken(event.taken_from)
        case DeployResumed() if event.detached:
            return f"a process of its own watches on, for {event.operator}; the command that began it ends{_taken(event.taken_from)}"
        case DeployResumed():
            taken = f"taken up again by {event.operator}: everything is looked at before anything is done"
            if event.accepted_version is not None:
                began, goes_on = f"version {event.accepted_version}", f"version {event.decision_version}"
                taken += f"; what {began} of the decision code began, {goes_on} goes on with, as asked"
            return taken + _regardless(event.windows_ignored) + _taken(event.taken_from)
        case LeaseLost():
            if event.taken_over:
                return f"somebody else has taken over: {event.why}"
            return f"the homeserver's lease is lost, so nobody is taken out any more: {event.why}"
        case LeaseRegained():
            return "the homeserver's lease is held again"
        case EffectIntended():
            return _intended(event.effect, plan)
        case EffectSucceeded() if event.release is not None and event.release.schema_version is not None:
            release = event.release
            return f"{release.id} is prepared: schema {release.schema_version}, compatible back to {release.schema_compat_version}"
        case EffectFailed():
            again = "trying again would not help" if event.permanent else "it did not happen"
            return "\n".join([f"effect {event.number} failed ({again}): {event.why}", *(f"    {line}" for line in event.log)])
        case EffectInDoubt():
            return f"effect {event.number} may or may not have happened: {event.why}"
        case EffectObserved():
            return f"effect {event.number} {'did happen' if event.happened else 'did not happen'}: {event.why}"
        case BaselineFound():
            learned = f"how {_listed(sorted(event.recoveries))} recovered before is known from earlier rollouts" if event.recoveries else ""
            found = f"a baseline for {_listed(sorted(event.tallies))} is there already: {event.source}" if event.tallies else ""
            beside = f"what only we count isn't in that of {_listed(event.partly)}, and is surveyed" if event.partly else ""
            return "; ".join(part for part in (found, beside, learned) if part)
        case StepBegan():
            return "; ".join(part for part in (_began(event.step_id, plan), event.warning) if part)
        case StepFinished():
            return f"{event.step_id} done: {event.why}"
        case StepFailed():
            return f"{event.step_id} failed: {event.why}"
        case WaitBegan():
            return f"waiting: {event.why}"
        case GateRuled():
            verdict = event.verdict
            gate = plan.gates.get(verdict.gate)
            unheeded = "" if gate is None or gate.acts else ", which nobody heeds"
            return f"{event.worker} {_RULINGS[verdict.ruling]} {verdict.gate}{unheeded}: {verdict.because}"
        case RollbackBegan():
            only = f" {_listed(event.blamed)} alone" if event.blamed else ""
            return f"rolling back{only}: {event.why}"
        case WindDownBegan():
            return f"making safe, then {_OUTCOMES[event.outcome]}: {event.why}"
        case OperatorSpoke():
            because = f": {event.why}" if event.why else ""
            whom = f" {event.worker}" if event.worker else ""
            return f"{event.operator} asks {_COMMANDS[event.command]}{whom}{because}"
        case DeployFinished():
            left = f"; still out: {_listed(event.drained)}" if event.drained else ""
            return f"{_OUTCOMES[event.outcome]}: {event.why}{left}"
        case EffectSucceeded() | Observed() | SamplesTaken():
            return None
        case _:
            assert_never(event)


def _regardless(windows_ignored: str) -> str:
    return f"; the playbook's windows are ignored: {windows_ignored}" if windows_ignored else ""


def _taken(whose: str) -> str:
    return f"\n    the lease was taken from {whose}" if whose else ""


def _intended(effect: Effect, plan: Plan) -> str:
    if effect.verb is Verb.DRAIN:
        act = f"taking {effect.worker} down to {effect.weight} %" if drains_in_part(effect) else f"draining {effect.worker}"
    else:
        act = _ACTS[effect.verb].format(worker=effect.worker, weight=effect.weight, release=effect.release, warms=_listed(effect.warms))
    step = _step(effect.step_id, plan)
    # Letting go isn't what a HOLD is for: it is held anew.
    because = f": {effect.why}" if effect.verb is Verb.LET_GO and step is not None and step.verb is Verb.HOLD else ""
    return f"{act} (effect {effect.number}){because}"


def _began(step_id: StepId, plan: Plan) -> str:
    step = _step(step_id, plan)
    return f"{step_id} begins: {step.why}" if step is not None else f"{step_id} begins"


def _step(step_id: StepId, plan: Plan) -> Step | None:
    return next((step for step in (*steps_of(plan.phases), *steps_of(plan.rollback)) if step.id == step_id), None)


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names)
