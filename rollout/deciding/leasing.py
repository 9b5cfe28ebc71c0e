"""
What may be done without the homeserver's lease.

While it is lost nobody is taken out: nothing is drained, held or restarted on the way forward, and the database isn't migrated. Whoever is
out already comes back, because nobody else will see to it: one that was restarted goes on as it would, one that wasn't yet is let back in
as it is, and one that is being taken back is taken back. Once the lease is held again the rollout goes on where it is.

If somebody else has *taken* it, they see to everything, and this process does nothing more at all.
"""

from dataclasses import replace

from rollout.deciding.decision import Decision, Finish, Perform, Wait
from rollout.deciding.safety import bring_back, is_down
from rollout.deciding.seeing import LOOK_FRESH_S, seen_lately
from rollout.deciding.state import DeployState, Direction, StepStatus, is_taken_back
from rollout.model.effect import Effect
from rollout.model.event import Outcome
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Step, Verb

_OUTWARD = frozenset({Verb.DRAIN, Verb.HOLD, Verb.RESTART})
# An effect of such a step is under way or in doubt, has happened, or will never be done.
_PAST = frozenset({StepStatus.INTENDED, StepStatus.DOUBTFUL, StepStatus.FAILED})


def leave(state: DeployState) -> Finish | None:
    """Stop at once where somebody else has taken over: what is out is theirs to bring back, and nothing is made safe by two."""
    if not state.taken_over:
        return None
    out = tuple(worker for worker, known in state.workers.items() if known.drained_by_us)
    return Finish(Outcome.INTERRUPTED, f"somebody else has taken over: {state.lease_lost}", drained=out)


def signed(state: DeployState, decision: Decision, now_s: float) -> Decision:
    """Let an effect say by which lease it is done, and whether it needs that."""
    if not isinstance(decision, Perform):
        return decision
    effect = decision.effect
    takes_out = _takes_out(state, effect, now_s)
    return Perform(replace(effect, token=state.token, takes_out=takes_out))


def blocker(state: DeployState, worker: WorkerId, now_s: float) -> Wait | None:
    """Forbid to take a worker out without the lease; one that is taken back and is out already loses nothing by it."""
    if not state.lease_lost or (is_taken_back(state, worker) and _is_out(state, worker, now_s)):
        return None
    return _wait(state, now_s)


def instead(plan: Plan, state: DeployState, step: Step, now_s: float) -> Decision | Wait | None:
    """Say what is done without the lease in place of a step on the way forward; None where the step may go on as it would."""
    at = state.steps[step.id]
    if not state.lease_lost or state.direction is Direction.BACK or at.status in _PAST:
        return None
    if step.verb is Verb.MIGRATE and at.status is not StepStatus.APPLIED and not at.attempts:
        return _wait(state, now_s)
    if step.verb not in _OUTWARD or step.worker is None or (step.verb is Verb.RESTART and at.status is StepStatus.APPLIED):
        return None
    known = state.workers[step.worker]
    if known.drained_by_us or is_down(known):
        return bring_back(plan, state, step.worker, known, now_s)
    return _wait(state, now_s)


def _wait(state: DeployState, now_s: float) -> Wait:
    return Wait("lease", f"nobody is taken out without the homeserver's lease: {state.lease_lost}", now_s + LOOK_FRESH_S)


def _takes_out(state: DeployState, effect: Effect, now_s: float) -> bool:
    if effect.verb is Verb.MIGRATE:
        return True
    # What belongs to no step of the plan brings back.
    if effect.verb not in _OUTWARD or effect.worker is None or effect.step_id not in state.steps:
        return False
    return not (is_taken_back(state, effect.worker) and _is_out(state, effect.worker, now_s))


def _is_out(state: DeployState, worker: WorkerId, now_s: float) -> bool:
    """Tell whether a worker is seen to be out; what isn't seen is taken for in."""
    sighting = seen_lately(state, state.workers[worker], now_s)
    if sighting is None:
        return False
    stopped = sighting.process is not None and not sighting.process.running
    return stopped or (sighting.proxy is not None and (sighting.proxy.held or not sighting.proxy.admitted))
