"""Why a rollout waits, or why it stopped: the folded journal in words, with the evidence."""

from collections.abc import Iterator

from rollout.deciding.state import DeployState, Direction
from rollout.gating import guards as guard_rules
from rollout.interfaces.report.progress import steps_done, under_way
from rollout.interfaces.report.words import duration, moment
from rollout.model.gate import Verdict
from rollout.model.ids import DeployId
from rollout.model.plan import Plan


def mode(state: DeployState) -> str:
    """Name what a rollout is doing, in two or three words."""
    if state.outcome is not None:
        return state.outcome.value.replace("_", " ")
    if state.winding_down is not None:
        return f"making safe, then {state.winding_down.value.replace('_', ' ')}"
    return "going forward" if state.direction is Direction.FORWARD else "rolling back"


def headline(deploy_id: DeployId, plan: Plan, state: DeployState, now_s: float) -> str:
    """Say in one line which rollout this is and how far; and, if it hasn't ended, when its process was last heard."""
    done, total = steps_done(plan, state)
    line = f"rollout {deploy_id} to {plan.to_release.version}: {mode(state)}, {done} of {total} steps done"
    if state.outcome is not None:
        return f"{line}, at {moment(state.last_at_s)}"
    return f"{line}, begun {duration(now_s - state.began_at_s)} ago, last heard of {duration(now_s - state.last_at_s)} ago"


def reasons(plan: Plan, state: DeployState, now_s: float) -> str:
    """Say why it waits or stopped, what is under way, and each worker's rulings with their evidence."""
    open_matters = () if state.outcome is not None else _open_matters(plan, state, now_s)
    return "\n".join([*_turns(state), *open_matters, *_workers(state)])


def _turns(state: DeployState) -> Iterator[str]:
    if state.outcome is not None:
        yield f"it ended: {state.outcome_why}"
    elif state.winding_down is not None:
        yield f"it makes safe: {state.wind_down_why}"
    if state.rollback_why:
        yield f"it went back: {state.rollback_why}"
    yield from (f"on the way back: {failure}" for failure in state.rollback_failures)
    if state.waiting is not None:
        yield f"it waits ({state.waiting.cause}): {state.waiting.why}"


def _open_matters(plan: Plan, state: DeployState, now_s: float) -> Iterator[str]:
    yield from (f"guard: {broken.why}" for broken in guard_rules.broken(plan.guards, state.guards))
    for step in under_way(plan, state):
        at = state.steps[step.id]
        since_s = now_s if at.began_at_s is None else at.began_at_s
        because = f": {at.why}" if at.why else ""
        yield f"{step.id}: {at.status} for {duration(now_s - since_s)}, at most {duration(step.deadline_s)}{because}"
    yield from (f"effect {number} ({effect.verb} of {effect.worker}): in doubt" for number, effect in state.in_doubt.items())


def _workers(state: DeployState) -> Iterator[str]:
    for worker, known in state.workers.items():
        if known.missing:
            yield f"{worker} can't be seen: {known.missing}"
        if known.drained_by_us:
            yield f"{worker} is out of traffic, by us"
        if known.unmeasured is not None:
            yield f"{worker} can't be measured: {known.unmeasured}"
    for worker, known in state.workers.items():
        if known.verdicts:
            yield f"{worker}'s gates"
            yield from (f"  {_verdict(verdict)}" for verdict in known.verdicts.values())


def _verdict(verdict: Verdict) -> str:
    evidence = verdict.evidence
    figures = [f"n {evidence.samples:.0f}"]
    for name, value in (("observed", evidence.observed), ("baseline", evidence.baseline), ("at most", evidence.threshold)):
        if value is not None:
            figures.append(f"{name} {value:.4g}")
    if evidence.compared_with:
        figures.append(f"compared with {evidence.compared_with}")
    return f"{verdict.gate} {verdict.ruling}: {verdict.because} ({', '.join(figures)})"
