"""
Plan + state + time -> what to do next. Pure: the same three always give the same answer.

The order of the questions is the order of what matters: whether it is ours to decide at all, then what is in doubt, then what a person
asked for, then whether the rollout is stuck, then the steps in the plan's order. Steps whose needs are met may run side by side; the first
that has something to do gets its turn.
"""

from dataclasses import replace

from rollout.deciding import doubt, leasing, safety, steps, watching
from rollout.deciding.decision import Decision, Finish, Note, Wait, WaitUntil
from rollout.deciding.seeing import LOOK_FRESH_S, not_held, steps_that_way
from rollout.deciding.state import DeployState, Direction, StepStatus, is_taken_back
from rollout.model.event import Command, EffectObserved, Outcome, RollbackBegan, WaitBegan, WindDownBegan
from rollout.model.ids import StepId, WorkerId
from rollout.model.plan import Duty, Plan, Step, Verb, goes_back_to, steps_of
from rollout.model.sighting import runs

# How long the last look may take to show that every worker runs what it should before the rollout is called unfinished.
LAST_LOOK_S = 60.0

# What brings a worker back that was restarted on the way forward.
_RETURN = frozenset({Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.WARM, Verb.ADMIT, Verb.LET_GO})


def decide(plan: Plan, state: DeployState, now_s: float) -> Decision:
    """Answer what to do next. Never raises for a state that `fold` made."""
    return leasing.signed(state, _decide(plan, state, now_s), now_s)


def _decide(plan: Plan, state: DeployState, now_s: float) -> Decision:
    if state.outcome is not None:
        return Finish(state.outcome, state.outcome_why)
    if (left := leasing.leave(state)) is not None:
        return left
    if (settled := _settle_doubt(plan, state, now_s)) is not None:
        return settled
    if (asked := _heed(plan, state, now_s)) is not None:
        return asked
    if state.winding_down is not None:
        return _answer(state, safety.wind_down(plan, state, now_s), now_s)
    if _stuck(plan, state, now_s):
        return Note(WindDownBegan(now_s, Outcome.PAUSED, f"no step has finished for {plan.progress_deadline_s:.0f} s"))
    if (alarmed := watching.alarm(plan, state, now_s)) is not None:
        return alarmed
    waits: list[Wait] = []
    steps_left = open_steps(plan, state)
    if state.asked is Command.PAUSE:
        steps_left = tuple(step for step in steps_left if _is_under_way(plan, state, step))
        if not steps_left and not state.in_flight and not state.in_doubt:
            return Note(WindDownBegan(now_s, Outcome.PAUSED, "paused on request"))
    met = _met(plan, state)
    for step in steps_left:
        if not met.issuperset(step.needs):
            continue
        if _busy_elsewhere(state, step):
            # There is something left to do, so this isn't the end.
            waits.append(Wait(step.verb, f"{step.worker} is being seen to", now_s + LOOK_FRESH_S, quiet=True))
            continue
        answer = leasing.instead(plan, state, step, now_s) or steps.advance(plan, state, step, now_s)
        if not isinstance(answer, Wait):
            return answer
        waits.append(answer)
    stray = _return_untouched(plan, state, now_s)
    if stray is not None:
        return _answer(state, stray, now_s)
    if waits:
        # What has something to say is said first.
        first = min(waits, key=lambda wait: wait.quiet)
        return _answer(state, replace(first, until_s=min(wait.until_s for wait in waits)), now_s)
    return _answer(state, _conclude(plan, state, now_s), now_s)


def open_steps(plan: Plan, state: DeployState) -> tuple[Step, ...]:
    """List the steps that are still to be done, in order; on the way back those of workers that are taken back, and what was begun."""
    steps_there = steps_of(plan.phases if state.direction is Direction.FORWARD else plan.rollback)
    there = (*_begun(plan, state), *(step for step in steps_there if _concerns(state, step)))
    return tuple(step for step in there if state.steps[step.id].status is not StepStatus.DONE)


def _begun(plan: Plan, state: DeployState) -> tuple[Step, ...]:
    """
    List, on the way back, the steps forward that bring back those who were being restarted when it began and aren't blamed.

    Who keeps the release comes back as it would have: with its ramp and its deadlines. Who misses them is blamed as well (see go_back).
    """
    if state.direction is Direction.FORWARD:
        return ()
    ways = steps_of(plan.phases)
    restarted = {step.worker for step in ways if step.verb is Verb.RESTART and state.steps[step.id].status is not StepStatus.PENDING}
    keep = {worker for worker, known in state.workers.items() if known.touched and not is_taken_back(state, worker)} & restarted
    return tuple(step for step in ways if step.verb in _RETURN and step.worker in keep)


def _concerns(state: DeployState, step: Step) -> bool:
    """Tell whether a step is to be done at all: not one of a worker that a person skipped, or that isn't taken back."""
    if state.direction is Direction.FORWARD:
        return step.worker is None or step.worker not in state.skipped
    return step.worker is not None and is_taken_back(state, step.worker)


def _is_under_way(plan: Plan, state: DeployState, step: Step) -> bool:
    """Tell whether a step's worker has had its turn begun; what is under way is ended before a pause."""
    if step.worker is None:
        return state.steps[step.id].status is not StepStatus.PENDING
    forward = steps_of(plan.phases)
    steps_there = forward if step in forward else steps_of(plan.rollback)
    return any(other.worker == step.worker and state.steps[other.id].status is not StepStatus.PENDING for other in steps_there)


def focus(plan: Plan, state: DeployState) -> frozenset[WorkerId]:
    """
    Name the workers that are worth measuring now: those under way or touched, and their pools.

    All while surveying, and while one has its turn whose work the others ask for (it isn't replaceable): what fails then, fails with them.
    """
    begun = {step.worker for step in steps_that_way(plan, state) if state.steps[step.id].status is not StepStatus.PENDING}
    turns = {step.worker for step in open_steps(plan, state) if step.worker in begun}
    surveying = any(step.verb is Verb.SURVEY and state.steps[step.id].status is not StepStatus.PENDING for step in open_steps(plan, state))
    if surveying or any(worker.id in turns and worker.duty is not Duty.REPLACEABLE for worker in plan.workers):
        return frozenset(worker.id for worker in plan.workers)
    chosen = turns | {worker for worker, known in state.workers.items() if known.touched}
    pools = {worker.pool for worker in plan.workers if worker.id in chosen and worker.pool is not None}
    return frozenset(worker.id for worker in plan.workers if worker.id in chosen or worker.pool in pools)


_OUT = frozenset({Verb.DRAIN, Verb.HOLD, Verb.RESTART, Verb.AWAIT_HEALTHY, Verb.ADMIT, Verb.LET_GO})


def is_eager(plan: Plan, state: DeployState) -> bool:
    """Tell whether a worker is out or coming back, so that every look counts."""
    if state.winding_down is not None:
        return True
    return any(step.verb in _OUT and state.steps[step.id].status is not StepStatus.PENDING for step in open_steps(plan, state))


def _answer(state: DeployState, answer: Decision | Wait, now_s: float) -> Decision:
    """A wait is written down once, when its reason changes; then it is only waited for. The end says what the holds did not keep."""
    if isinstance(answer, Finish):
        lost = "".join(f"; while {worker} was held, {text}" for worker, known in state.workers.items() if (text := not_held(known)))
        return replace(answer, why=answer.why + lost)
    if not isinstance(answer, Wait):
        return answer
    if not answer.quiet and (state.waiting is None or (state.waiting.cause, state.waiting.why) != (answer.cause, answer.why)):
        return Note(WaitBegan(now_s, answer.cause, answer.why))
    return WaitUntil(max(answer.until_s, now_s))


def _settle_doubt(plan: Plan, state: DeployState, now_s: float) -> Decision | None:
    for number, effect in state.in_doubt.items():
        # On a step aside (bringing a worker back) only the moment of resuming is known.
        step = state.steps.get(effect.step_id)
        intended_at_s = (step.intended_at_s if step is not None else None) or 0.0
        answer = doubt.happened(plan, state, effect, intended_at_s)
        if answer is not None:
            seen = "was seen to have happened" if answer else "was seen not to have happened"
            return Note(EffectObserved(now_s, number, answer, f"{effect.verb} of {effect.worker or 'the release'} {seen}"))
    return None


def _heed(plan: Plan, state: DeployState, now_s: float) -> Decision | None:
    match state.asked:
        case Command.INTERRUPT if state.winding_down is None:
            return Note(WindDownBegan(now_s, Outcome.INTERRUPTED, "interrupted"))
        case Command.ABORT if state.winding_down in {None, Outcome.PAUSED}:
            return Note(WindDownBegan(now_s, Outcome.ABORTED, "aborted on request"))
        case Command.ROLLBACK if (state.direction is Direction.FORWARD or state.blamed) and state.winding_down is None:
            if plan.point_of_no_return is not None and state.steps[plan.point_of_no_return].status is not StepStatus.PENDING:
                why = f"a roll-back was asked for, but there is no way back after {plan.point_of_no_return}"
                return Note(WindDownBegan(now_s, Outcome.PAUSED, why))
            return Note(RollbackBegan(now_s, "asked for", requested=True))
    return None


def _stuck(plan: Plan, state: DeployState, now_s: float) -> bool:
    """A migration is never interrupted, and a watch lasts as long as it lasts; anything else must finish a step now and then."""
    if any(effect.verb in {Verb.MIGRATE, Verb.PREPARE} for effect in (*state.in_flight.values(), *state.in_doubt.values())):
        return False
    forward = state.direction is Direction.FORWARD
    if forward and any(step.verb is Verb.WATCH and state.steps[step.id].status is StepStatus.ACTIVE for step in steps_of(plan.phases)):
        return False
    return now_s - state.progress_at_s > plan.progress_deadline_s


def _met(plan: Plan, state: DeployState) -> set[StepId]:
    """
    Name the steps that others needn't wait for: those that are done, and those that nobody takes.

    What a step that nobody takes needs comes first all the same: each names only the one before it.
    """
    met = {step for step, at in state.steps.items() if at.status is StepStatus.DONE}
    for step in steps_of(plan.phases if state.direction is Direction.FORWARD else plan.rollback):
        if not _concerns(state, step) and met.issuperset(step.needs):
            met.add(step.id)
    return met


def _busy_elsewhere(state: DeployState, step: Step) -> bool:
    """An effect on the same worker from another list of steps (the way forward, when the way back began) ends first."""
    flight = (*state.in_flight.values(), *state.in_doubt.values())
    return step.worker is not None and any(effect.worker == step.worker and effect.step_id != step.id for effect in flight)


def _return_untouched(plan: Plan, state: DeployState, now_s: float) -> Decision | Wait | None:
    """On the way back a worker that was drained but not yet restarted has no steps; it is simply admitted."""
    if state.direction is Direction.FORWARD or not any(known.drained_by_us and not known.touched for known in state.workers.values()):
        return None
    return safety.readmit_untouched(plan, state, now_s)


def _conclude(plan: Plan, state: DeployState, now_s: float) -> Decision | Wait:
    """Every step is done: say so only if it is seen to be true."""
    back = state.direction is Direction.BACK
    rolled = {step.worker for step in steps_of(plan.rollback) if step.worker is not None}
    moved = {worker for worker in rolled if (is_taken_back(state, worker) if back else worker not in state.skipped)}
    not_seen: list[str] = []
    for worker in sorted(moved):
        known = state.workers[worker]
        release = plan.releases[goes_back_to(plan, worker)] if back else plan.to_release
        fresh = known.sighting if not known.missing and known.seen_at_s > max(state.progress_at_s, state.fresh_after_s) else None
        answer = None if fresh is None else runs(fresh, release)
        if answer is not True or fresh is None or fresh.healthy is not True:
            not_seen.append(worker)
    # Whoever it is, and whatever became of its steps: nothing ends well with somebody out by our hand.
    out = tuple(worker for worker, known in state.workers.items() if known.drained_by_us)
    if not_seen or out:
        why = f"a last look at {', '.join(sorted({*not_seen, *out}))}"
        if now_s - state.progress_at_s > LAST_LOOK_S:
            return Finish(Outcome.HALTED, why, drained=out)
        return Wait("observation", why, now_s + LOOK_FRESH_S)
    if not back:
        skipped = "".join(f"; {worker} was skipped ({why})" for worker, why in state.skipped.items())
        unseen = f"; the last watch had too little to rule twice on {gates}" if (gates := watching.undecided(plan, state)) else ""
        return Finish(Outcome.DEPLOYED, f"{len(moved)} workers run {plan.to_release.version}{skipped}{unseen}")
    rest = ", ".join(worker for worker, known in state.workers.items() if known.touched and worker not in moved)
    if state.rollback_failures:
        whom = f"{', '.join(sorted(moved))} is back on the old release, {rest} not" if rest else "every worker is back on its old release"
        return Finish(Outcome.HALTED, f"{whom}; but not everybody was shown to be well: {'; '.join(state.rollback_failures)}")
    if rest:
        return Finish(Outcome.PAUSED, f"{', '.join(sorted(moved))} is back on the old release, {rest} not: {state.rollback_why}")
    outcome = Outcome.ROLLED_BACK_ON_REQUEST if state.rollback_requested else Outcome.ROLLED_BACK
    return Finish(outcome, f"back on the old release: {state.rollback_why}")
