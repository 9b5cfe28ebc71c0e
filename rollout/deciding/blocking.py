"""
May a worker be taken out now? What forbids it is the reason to wait, or to stop.

It is asked before every disruptive step, between the drain of a worker and its restart too: an hour may have passed since it was planned,
and a minute since it was drained. What guards say counts only while it is fresh; what they don't say is no leave. A worker whose process
has ended is the exception: the only thing that helps it is its restart. One whose host can't be asked is neither drained nor held: nobody
could restart it there, and it would be out for as long as that lasts.
"""

from rollout.deciding import leasing
from rollout.deciding.acting import stop
from rollout.deciding.decision import Decision, Wait
from rollout.deciding.seeing import LOOK_FRESH_S, last_seen_s, seen_lately
from rollout.deciding.state import DeployState, Direction, WorkerState
from rollout.gating import guards as guard_rules
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Verb, Worker
from rollout.model.sighting import Sighting
from rollout.planning.disruption import Seen, why_not_down
from rollout.planning.standing import drained_by_others

# A thorough look, which reads the guards, comes every five seconds (engine/perform.py) and may take a few; one may be lost.
GUARDS_FRESH_S = 15.0


def blocker_of(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Wait | Decision | None:
    """Say what forbids taking a worker out now: the lease is lost, nothing fresh to go by, a guard, or too many out already."""
    if (unheld := leasing.blocker(state, worker.id, now_s)) is not None:
        return unheld
    soon_s = now_s + LOOK_FRESH_S
    if state.observed_at_s <= state.fresh_after_s or now_s - state.observed_at_s > LOOK_FRESH_S:
        return Wait("observation", "nothing has been seen of the homeserver lately", soon_s)
    if (guarded := guard_of(plan, state, worker, now_s)) is not None:
        return guarded
    own = seen_lately(state, state.workers[worker.id], now_s)
    if own is None:
        # Somebody else may have drained it since, or it may have been warmed for longer than a look lasts.
        return Wait("observation", f"{worker.id} has not been seen lately", soon_s, quiet=not state.workers[worker.id].missing)
    if unasked := why_unasked(own):
        return Wait("observation", f"{worker.id} may not go down: how it runs can't be seen ({unasked})", soon_s)
    if theirs := _taken_by_others(plan, worker, state.workers[worker.id], own):
        return stop(now_s, theirs)
    if worker.pool is not None and own.proxy is None:
        # Whoever is out there already would be taken for ours afterwards.
        return Wait("observation", f"{worker.id} can't be seen at the proxy", soon_s)
    seen = {
        other: Seen(
            known.sighting,
            last_seen_s(state, known),
            known.missing or ("" if now_s - last_seen_s(state, known) <= LOOK_FRESH_S else "not seen lately"),
            _taken_by_us(state, other, known),
        )
        for other, known in state.workers.items()
    }
    if why := why_not_down(worker, plan.workers, seen, plan.max_unavailable):
        return Wait("capacity", why, soon_s)
    return None


def guard_of(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Wait | Decision | None:
    """
    Say which guard forbids taking a worker out now, or restarting one that is out; a stop once it has done so for its deadline.

    On the way back guards are not asked: nothing is worse than what runs now. But nobody is restarted, whichever way, while the database
    is away: no release could start.
    """
    soon_s = now_s + LOOK_FRESH_S
    if state.no_database:
        return Wait("database", f"{worker.id} may not go down: the homeserver's database can't be asked ({state.no_database})", soon_s)
    if state.direction is Direction.BACK or not plan.guards or _has_ended(seen_lately(state, state.workers[worker.id], now_s)):
        return None
    if state.guards_seen_at_s <= state.fresh_after_s or now_s - state.guards_seen_at_s > GUARDS_FRESH_S:
        first = min(plan.guards, key=lambda guard: guard.deadline_s)
        since_s = max(state.guards_seen_at_s, state.fresh_after_s, state.began_at_s)
        if now_s - since_s >= first.deadline_s:
            return stop(now_s, f"for {first.deadline_s:.0f} s no guard has been read ({first.guard} and others)")
        return Wait("guard", f"{worker.id} may not go down: no guard has been read lately", min(soon_s, since_s + first.deadline_s))
    broken = guard_rules.broken(plan.guards, state.guards)
    if not broken:
        return None
    since_s = state.guard_broken_since_s or now_s
    deadline_s = min(guard.deadline_s for guard in plan.guards if guard.guard in {one.guard for one in broken})
    whys = "; ".join(one.why for one in broken)
    if now_s - since_s >= deadline_s:
        return stop(now_s, f"for {deadline_s:.0f} s {whys}")
    return Wait("guard", f"{worker.id} may not go down: {whys}", min(soon_s, since_s + deadline_s))


def why_unasked(sighting: Sighting | None) -> str:
    """Say why nobody could be asked how a worker runs; empty when somebody could. Who can't be asked can't be told to restart it either."""
    if sighting is None or sighting.process is not None:
        return ""
    return "; ".join(sighting.unseen) or "the process manager doesn't know it"


def _has_ended(sighting: Sighting | None) -> bool:
    return sighting is not None and sighting.process is not None and not sighting.process.running


def _taken_by_us(state: DeployState, worker: WorkerId, known: WorkerState) -> str:
    """
    Say what of ours has yet to show: two drains may be begun between two looks, and the second must count the first.

    Empty when what was seen is later than all that we did to it, and it isn't on its way out.
    """
    if known.drained_by_us:
        return "out by our hand"
    if any(effect.worker == worker and effect.verb is Verb.RESTART for effect in (*state.in_flight.values(), *state.in_doubt.values())):
        return "being restarted"
    return "not seen since it was restarted" if known.touched and last_seen_s(state, known) <= known.acted_at_s else ""


def _taken_by_others(plan: Plan, worker: Worker, known: WorkerState, sighting: Sighting) -> str:
    """Say what somebody else has done with a worker since it was planned for; empty when nothing is known of it."""
    # Of who is out by our hand the mark may be what couldn't be seen.
    if drained_by_others(sighting) and not (sighting.unseen and known.drained_by_us):
        return f"{worker.id} was drained by somebody else"
    if sighting.process is not None and sighting.process.activated not in {plan.from_releases.get(worker.id), plan.to_release.id}:
        return f"{worker.id} was given {sighting.process.activated} by somebody else since this was planned"
    return ""
