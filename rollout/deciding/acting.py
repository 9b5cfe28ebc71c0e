"""What a step may do: an effect with the next number, a note, a stop, or the way back."""

from rollout.deciding.decision import Decision, Note, Perform
from rollout.deciding.seeing import worker_of
from rollout.deciding.state import DeployState, Direction, StepStatus
from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.event import Outcome, RollbackBegan, StepFinished, WindDownBegan
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.plan import Plan, Step


def perform(state: DeployState, step: Step, now_s: float, *, weight: int = FULL_WEIGHT, why: str = "") -> Perform:
    """Do what a step is for."""
    effect = Effect(
        number=next_number(state),
        step_id=step.id,
        verb=step.verb,
        worker=step.worker,
        release=step.release,
        deadline_at_s=now_s + step.deadline_s,
        weight=weight,
        why=why or step.why,
        warms=step.warms,
        condemned=step.condemns,
    )
    return Perform(effect)


def next_number(state: DeployState) -> EffectNumber:
    """Number an effect: one more than any that the journal or the ledger knows."""
    return EffectNumber(state.last_number + 1)


def stop(now_s: float, why: str) -> Decision:
    """Make safe and pause: nothing is wrong enough to go back for, and nothing is known well enough to go on."""
    return Note(WindDownBegan(now_s, Outcome.PAUSED, why))


def go_back(plan: Plan, state: DeployState, why: str, now_s: float, *, blamed: WorkerId) -> Decision:
    """What a failure leads to: the way back, if there is one; otherwise make safe what is out and call for a person."""
    if state.direction is Direction.BACK and state.blamed and blamed not in state.blamed:
        # It was to keep the release, and doesn't come back well on it.
        return Note(RollbackBegan(now_s, f"{state.rollback_why}; {why}", requested=False, blamed=(*sorted(state.blamed), blamed)))
    if state.direction is Direction.BACK:
        return Note(WindDownBegan(now_s, Outcome.HALTED, f"on the way back: {why}"))
    if plan.point_of_no_return is not None and state.steps[plan.point_of_no_return].status is not StepStatus.PENDING:
        return Note(WindDownBegan(now_s, Outcome.HALTED, f"{why}; there is no way back after {plan.point_of_no_return}"))
    return Note(RollbackBegan(now_s, why, requested=False, blamed=(blamed,) if plan.rollback_scope == "blamed" else ()))


def condemn(plan: Plan, state: DeployState, step: Step, why: str, now_s: float) -> Decision:
    """A worker that is admitted and not well; on the way back there is nowhere else to go, so it is kept for the end."""
    if state.direction is Direction.BACK:
        return Note(StepFinished(now_s, step.id, why))
    return go_back(plan, state, why, now_s, blamed=worker_of(plan, step).id)
