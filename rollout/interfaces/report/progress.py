"""How far a rollout is: in one line, for whoever watches."""

from rollout.deciding.decide import open_steps
from rollout.deciding.state import DeployState, Direction, StepStatus, is_taken_back
from rollout.interfaces.report.words import duration, moment
from rollout.model.gate import Ruling
from rollout.model.plan import Plan, Step, Verb, steps_of


def steps_done(plan: Plan, state: DeployState) -> tuple[int, int]:
    """Count the steps that are done, and all of them, in the direction in which the rollout goes."""
    if state.direction is Direction.FORWARD:
        steps = tuple(step for step in steps_of(plan.phases) if step.worker not in state.skipped)
    else:
        steps = tuple(step for step in steps_of(plan.rollback) if step.worker is not None and is_taken_back(state, step.worker))
    return sum(state.steps[step.id].status is StepStatus.DONE for step in steps), len(steps)


def under_way(plan: Plan, state: DeployState) -> list[Step]:
    """List the steps that have begun and aren't done."""
    return [step for step in open_steps(plan, state) if state.steps[step.id].status is not StepStatus.PENDING]


def watched_until_s(plan: Plan, state: DeployState, *, is_run: bool | None) -> float | None:
    """
    Return until when the last watch lasts at the least; None when it isn't under way, nobody is known to watch, or it is being ended.

    *is_run*: whether a process runs the rollout; None when nobody knows.
    """
    return _last_watch_until_s(plan, state) if is_run and state.winding_down is None else None


def watch_text(plan: Plan, state: DeployState, *, is_run: bool | None) -> str:
    """Say of the last watch until when it lasts, or that nobody watches; "" when it isn't under way, or is being ended."""
    if _last_watch_until_s(plan, state) is None:
        return ""
    if is_run is None:
        return "everybody had passed; not known whether somebody watches"
    if not is_run:
        return "everybody had passed; nobody watches now: rollout resume"
    until_s = watched_until_s(plan, state, is_run=is_run)
    return "" if until_s is None else f"everybody has passed and is watched until {moment(until_s, '%H:%M:%S')} at the least"


def _last_watch_until_s(plan: Plan, state: DeployState) -> float | None:
    watch = next((step for step in under_way(plan, state) if step.verb is Verb.WATCH), None)
    if watch is None or state.outcome is not None:
        return None
    return (state.steps[watch.id].began_at_s or state.last_at_s) + plan.watch.watch_s


def progress(plan: Plan, state: DeployState, now_s: float) -> str:
    """Say which step of which worker is under way and for how long, how many sessions it still has, and how many steps are done."""
    done, total = steps_done(plan, state)
    parts = [f"{done}/{total} steps" + (", on the way back" if state.direction is Direction.BACK else "")]
    if state.winding_down is not None:
        parts.append(f"making safe: {state.waiting.why if state.waiting is not None else state.wind_down_why}")
    else:
        steps = under_way(plan, state)
        parts += [_step(state, step, now_s) for step in steps]
        if not steps and state.waiting is not None:
            parts.append(f"waiting: {state.waiting.why}")
    return " · ".join(parts)


def _step(state: DeployState, step: Step, now_s: float) -> str:
    at = state.steps[step.id]
    since_s = now_s if at.began_at_s is None else at.began_at_s
    name = " ".join(str(part) for part in (step.worker, step.verb) if part)
    parts = [f"{name} {duration(now_s - since_s)} of at most {duration(step.deadline_s)}"]
    if step.worker is not None:
        known = state.workers[step.worker]
        proxy = known.sighting.proxy if known.sighting is not None else None
        if step.verb in {Verb.DRAIN, Verb.HOLD} and proxy is not None and proxy.sessions is not None:
            parts.append(f"{proxy.sessions} sessions left")
        if step.verb is Verb.ADMIT and proxy is not None:
            parts.append(f"{proxy.weight} % of its weight")
        if step.verb is Verb.SOAK and step.gates:
            passed = sum(name in known.verdicts and known.verdicts[name].ruling is Ruling.PASS for name in step.gates)
            parts.append(f"{passed} of {len(step.gates)} gates passed")
    return ", ".join(parts)
