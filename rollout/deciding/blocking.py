"""May a worker be taken out now? What forbids it is the reason to wait, or to stop."""

from rollout.deciding import leasing
from rollout.deciding.acting import stop
from rollout.deciding.decision import Decision, Wait
from rollout.deciding.seeing import LOOK_FRESH_S, seen_lately
from rollout.deciding.state import DeployState, Direction
from rollout.gating import guards as guard_rules
from rollout.model.plan import Plan, Worker
from rollout.model.sighting import Sighting
from rollout.planning.disruption import Seen, why_not_down
from rollout.planning.standing import drained_by_others


def blocker_of(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Wait | Decision | None:
    """Say what forbids taking a worker out now: the lease is lost, nothing fresh to go by, a guard, or too many out already."""
    if (unheld := leasing.blocker(state, worker.id, now_s)) is not None:
        return unheld
    soon_s = now_s + LOOK_FRESH_S
    if state.observed_at_s <= state.fresh_after_s or now_s - state.observed_at_s > LOOK_FRESH_S:
        return Wait("observation", "nothing has been seen of the homeserver lately", soon_s)
    if state.direction is Direction.FORWARD and (broken := guard_rules.broken(plan.guards, state.guards)):
        since_s = state.guard_broken_since_s or now_s
        deadline_s = min(guard.deadline_s for guard in plan.guards if guard.guard in {one.guard for one in broken})
        if now_s - since_s >= deadline_s:
            return stop(now_s, f"for {deadline_s:.0f} s {broken[0].why}")
        return Wait("guard", f"{worker.id} may not go down: {broken[0].why}", min(soon_s, since_s + deadline_s))
    if theirs := _taken_by_others(plan, worker, seen_lately(state, state.workers[worker.id], now_s)):
        return stop(now_s, theirs)
    seen = {
        other: Seen(
            known.sighting, known.seen_at_s, known.missing or ("" if now_s - known.seen_at_s <= LOOK_FRESH_S else "not seen lately")
        )
        for other, known in state.workers.items()
    }
    if why := why_not_down(worker, plan.workers, seen, plan.max_unavailable):
        return Wait("capacity", why, soon_s)
    return None


def _taken_by_others(plan: Plan, worker: Worker, sighting: Sighting | None) -> str:
    """Say what somebody else has done with a worker since it was planned for; empty when nothing is known of it."""
    if sighting is None:
        return ""
    if drained_by_others(sighting) and not sighting.unseen:
        return f"{worker.id} was drained by somebody else"
    if sighting.process is not None and sighting.process.activated not in {plan.from_releases.get(worker.id), plan.to_release.id}:
        return f"{worker.id} was given {sighting.process.activated} by somebody else since this was planned"
    return ""
