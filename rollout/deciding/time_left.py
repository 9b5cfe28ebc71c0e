"""
Whether there is time left for another worker, where the playbook says by when a rollout must have ended.

What is out comes back, and what is being shown to be well is shown to be well, however late it gets: only nobody else is begun with.
"""

from collections.abc import Sequence

from rollout.deciding.state import DeployState, Direction, StepStatus
from rollout.model.plan import Plan, Step, Verb
from rollout.planning.forecast import total


def too_late(plan: Plan, state: DeployState, steps_left: Sequence[Step], now_s: float) -> str:
    """
    Say why nobody else may have a turn: the rest would, one time in ten, not end by *state.end_by_s*. Empty where there is time.

    Asked before each worker, the first one too, and not before what comes ahead of all of them; the last watch alone is always kept.
    """
    if state.end_by_s is None or state.direction is Direction.BACK:
        return ""
    begun = {step.worker for step in steps_left if state.steps[step.id].status is not StepStatus.PENDING}
    done = {step.worker for phase in plan.phases for wave in phase.waves for step in wave.steps if _is_done(state, step)}
    ahead = any(step.worker is None and step.verb is not Verb.WATCH for step in steps_left)
    if ahead or not any(step.worker is not None and step.worker not in begun | done for step in steps_left):
        return ""
    left_s = state.end_by_s - now_s
    rest_s = total(plan.phases, plan.forecast.steps, only={step.id for step in steps_left}).p90_s
    if rest_s <= left_s:
        return ""
    window = "" if plan.windows is None else f" at {plan.windows.not_after}"
    if left_s <= 0:
        return f"its window has ended{window}, and the rest takes up to {_minutes(rest_s)}"
    return f"its window ends{window}, in {_minutes(left_s)}, and the rest takes up to {_minutes(rest_s)}"


def _is_done(state: DeployState, step: Step) -> bool:
    return state.steps[step.id].status is StepStatus.DONE


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004  (two minutes)
