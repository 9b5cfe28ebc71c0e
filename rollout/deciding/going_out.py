"""Taking a worker out of traffic and restarting it: WARM, DRAIN, HOLD, RESTART."""

from dataclasses import replace

from rollout.deciding.acting import go_back, perform, stop
from rollout.deciding.blocking import blocker_of, guard_of, why_unasked
from rollout.deciding.decision import Decision, Note, Perform, Wait
from rollout.deciding.index import index_of
from rollout.deciding.seeing import LOOK_FRESH_S, gone_for, known_of, last_seen_s, seen_after, seen_lately, sessions_of, worker_of
from rollout.deciding.sparing import narrowness, room_without, too_narrow
from rollout.deciding.state import DeployState, Direction, StepState, StepStatus, WorkerState, is_taken_back
from rollout.model.event import StepBegan, StepFailed, StepFinished
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Step, Verb, Worker
from rollout.model.sighting import ProxySighting
from rollout.model.warming import Warmed
from rollout.planning import holding

# With less than this share of a hold's time left nobody is restarted any more. Requests under way may take 0.3 of it to end
# (planning/worker_steps.py), so a hold that nothing delayed has more left.
HOLD_SHARE_TO_BOOT = 0.5
# A thorough look comes every five seconds (engine/perform.py) and may take a few; one may be lost.
POOLS_FRESH_S = 15.0


def warm(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    """Warm, once: what couldn't be warmed is cold, which is no reason to stop."""
    worker, known = worker_of(plan, step), known_of(state, step)
    if at.status is StepStatus.PENDING:
        if worker.id not in step.warms:
            # Before its drain. What forbids that forbids to begin with it too.
            return blocker_of(plan, state, worker, now_s) or Note(StepBegan(now_s, step.id))
        return Note(StepBegan(now_s, step.id))
    if worker.id in step.warms and (gone := gone_for(known, now_s)):
        return Note(StepFinished(now_s, step.id, f"not warmed: {gone}"))
    if at.status is StepStatus.ACTIVE and not at.attempts:
        return perform(state, step, now_s)
    if at.status is StepStatus.ACTIVE:
        return Note(StepFinished(now_s, step.id, f"not warmed: {at.why}"))
    return Note(StepFinished(now_s, step.id, "; ".join(_warmth(other, state.workers[other].warmed) for other in step.warms)))


def _warmth(worker: WorkerId, warmed: Warmed | None) -> str:
    if warmed is None:
        return f"{worker} was not warmed"
    proof = "" if warmed.cold_s is None or warmed.warm_s is None else f", {warmed.cold_s * 1000:.0f} → {warmed.warm_s * 1000:.0f} ms each"
    ended = {"time": ", its time was up", "cpu": ", the worker was too busy for more"}.get(warmed.stopped, "")
    return f"{worker} warmed with {warmed.users} users in {warmed.seconds:.0f} s{proof}{ended}"


def hold(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    """Let new requests wait in the proxy until those under way have ended; if these take too long, nothing is restarted."""
    worker, known = worker_of(plan, step), known_of(state, step)
    if at.status is StepStatus.PENDING:
        blocker = blocker_of(plan, state, worker, now_s) or _before_hold(plan, state, worker, now_s)
        blocker = blocker or _too_much(plan, state, worker, now_s)
        return blocker or Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return stop(now_s, f"{worker.id} could not be held: {at.why}")
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        return blocker_of(plan, state, worker, now_s) or _before_hold(plan, state, worker, now_s) or perform(state, step, now_s)
    sighting = seen_after(state, known, at.applied_at_s)
    deadline_at_s = (at.applied_at_s or now_s) + step.deadline_s
    if sighting is not None and sighting.proxy is not None and not sighting.proxy.held:
        return Note(StepFailed(now_s, step.id, "the proxy does not hold its requests (any more)"))
    if sighting is not None and sighting.proxy is not None and sighting.proxy.sessions == 0:
        return Note(StepFinished(now_s, step.id, f"new requests wait at the proxy, and {worker.id} has none under way"))
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"it still has {sessions_of(sighting)} after {step.deadline_s:.0f} s, and new ones wait"))
    return Wait("hold", f"{worker.id} still has requests under way; new ones wait at the proxy", deadline_at_s)


def _before_hold(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Wait | None:
    """
    Let an earlier hold end first, and what it let go go on: that goes one after the other, and would be cut by the restart.

    One that has long enough left is as good as a new one, and for a worker that is down no time is to be lost.
    """
    known = state.workers[worker.id]
    sighting = seen_lately(state, known, now_s)
    if sighting is None or sighting.proxy is None:
        return Wait("observation", f"{worker.id} has not been seen at the proxy lately", now_s + LOOK_FRESH_S)
    if sighting.proxy.hold.waiting and not sighting.proxy.holding:
        return Wait("hold", f"what waited for {worker.id} before is still going on", now_s + LOOK_FRESH_S)
    if sighting.healthy is True and sighting.proxy.up and (left_s := _too_short(plan, state, known, sighting.proxy, now_s)) is not None:
        return Wait("hold", f"an earlier hold of {worker.id} ends by itself in {left_s:.0f} s", now_s + LOOK_FRESH_S)
    return None


def _too_much(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Wait | None:
    """Reckon the hold with the traffic of now: the plan may be hours old. On the way back nothing is worse than what runs now."""
    if state.direction is Direction.BACK:
        return None
    seen = state.pools.get(worker.pool) if worker.pool is not None else None
    soon_s = now_s + LOOK_FRESH_S
    if seen is None or state.proxy_seen_at_s <= state.fresh_after_s or now_s - state.proxy_seen_at_s > POOLS_FRESH_S:
        return Wait("observation", f"what comes in for {worker.id} has not been seen at the proxy lately", soon_s)
    if why := next(holding.too_much(worker, seen, state.proxy, plan.hold), None):
        return Wait("capacity", why, soon_s)
    return None


def drain(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = worker_of(plan, step), known_of(state, step)
    if at.status is StepStatus.PENDING:
        if blocker := blocker_of(plan, state, worker, now_s):
            return blocker
        room = room_without(plan, state, worker, now_s)
        return too_narrow(plan, state, worker, room, now_s) or Note(StepBegan(now_s, step.id, narrowness(plan, worker, room)))
    if at.status is StepStatus.FAILED:
        return stop(now_s, f"{worker.id} could not be drained: {at.why}")
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        blocker = blocker_of(plan, state, worker, now_s)
        return blocker or perform(state, step, now_s, weight=_down(plan, state, step, at, now_s))
    if at.weight:
        # On the way down: its users move in parts.
        next_at_s = (at.applied_at_s or now_s) + plan.ramp.step_s
        if now_s < next_at_s:
            return Wait("ramp", f"{worker.id} has {at.weight} % of its weight left", next_at_s)
        return blocker_of(plan, state, worker, now_s) or perform(state, step, now_s, weight=_down(plan, state, step, at, now_s))
    sighting = seen_after(state, known, at.applied_at_s)
    deadline_at_s = (at.applied_at_s or now_s) + step.deadline_s
    if sighting is not None and sighting.proxy is not None:
        if sighting.proxy.admitted:
            # A reload makes the proxy forget what it was told at run time.
            why = f"{worker.id} was admitted again by the proxy"
            return blocker_of(plan, state, worker, now_s) or perform(state, step, now_s, weight=0, why=why)
        if sighting.proxy.sessions == 0:
            return Note(StepFinished(now_s, step.id, f"{worker.id} has no sessions left"))
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"it still has {sessions_of(sighting)} after {step.deadline_s:.0f} s"))
    known_for_s = now_s - (at.applied_at_s or now_s)
    if (sighting is None or sighting.proxy is None or sighting.proxy.sessions is None) and known_for_s > LOOK_FRESH_S:
        return Wait("observation", f"how many sessions {worker.id} still has is not known", deadline_at_s)
    return Wait("drain", f"{worker.id} still has sessions", deadline_at_s)


def _down(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> int:
    """
    Return the next weight on the way down; 0 takes the rest.

    A weight also admits, so only who is seen to serve gets one, and never more than it has: who is out, dead or not seen goes at once.
    """
    known = known_of(state, step)
    seen = not known.missing and last_seen_s(state, known) > max(state.fresh_after_s, now_s - LOOK_FRESH_S)
    sighting = known.sighting if seen else None
    if sighting is None or sighting.healthy is not True or sighting.proxy is None or not (sighting.proxy.admitted and sighting.proxy.up):
        return 0
    return next((weight for weight in plan.ramp.down[at.weights_applied :] if weight < sighting.proxy.weight), 0)


def restart(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker = worker_of(plan, step)
    if at.status is StepStatus.PENDING:
        return _before_restart(plan, state, step, now_s) or Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return go_back(plan, state, f"{worker.id} could not be restarted: {at.why}", now_s, blamed=worker.id)
    if at.status is StepStatus.ACTIVE:
        # While others are taken back, nobody is put on the release once more.
        too_late = state.direction is Direction.BACK and not is_taken_back(state, worker.id)
        if at.permanent or at.attempts >= step.attempts_max or too_late:
            return Note(StepFailed(now_s, step.id, at.why))
        return _before_restart(plan, state, step, now_s) or perform(state, step, now_s)
    return Note(StepFinished(now_s, step.id, f"{worker.id} was started on {step.release}"))


def _before_restart(plan: Plan, state: DeployState, step: Step, now_s: float) -> Decision | Wait | None:
    """Look once more: still drained or held, its host there to be asked for a restart, and still allowed to be down."""
    worker, known = worker_of(plan, step), known_of(state, step)
    away: Wait | None = None
    if unasked := why_unasked(known.sighting):
        away = Wait("observation", f"how {worker.id} runs can't be seen, so it isn't restarted yet: {unasked}", now_s + LOOK_FRESH_S)
    drain = index_of(plan).way(state.direction).out.get(worker.id)
    if drain is None:
        return away or blocker_of(plan, state, worker, now_s)
    sighting = seen_lately(state, known, now_s)
    if sighting is None or sighting.proxy is None:
        return away or Wait("observation", f"{worker.id} is drained, but has not been seen for a while", now_s + LOOK_FRESH_S)
    guarded = away or guard_of(plan, state, worker, now_s)
    if guarded is None and drain.verb is Verb.DRAIN and plan.guards and state.direction is Direction.FORWARD:
        # Of the minute that a drain takes, what guards said before says little. A hold is short, and nobody waits longer for this.
        drained_at_s = state.steps[drain.id].applied_at_s or 0.0
        if state.guards_seen_at_s <= drained_at_s and sighting.healthy is True:
            return Wait("guard", f"{worker.id} is drained; what guards say since then is being read", now_s + LOOK_FRESH_S)
    if guarded is not None and drain.verb is Verb.HOLD and sighting.healthy is True and sighting.proxy.up and sighting.proxy.holding:
        # What waits behind a hold would pile up for as long as the guard doesn't hold, or its host is away.
        why = f"its requests go on while it may not be restarted: {guarded.why if isinstance(guarded, Wait) else 'the rollout pauses'}"
        return Perform(replace(perform(state, drain, now_s, why=why).effect, verb=Verb.LET_GO))
    if away is not None:
        return away
    if drain.verb is Verb.HOLD and sighting.healthy is True and sighting.proxy.up:
        # Where it is down already only its restart helps: what is let go before would be cut.
        left_s = _too_short(plan, state, known, sighting.proxy, now_s)
        if left_s is not None:
            why = f"only {left_s:.0f} s of its hold are left, so it is held anew"
            return Perform(replace(perform(state, drain, now_s, why=why).effect, verb=Verb.LET_GO))
    if not (sighting.proxy.held or not sighting.proxy.admitted) or sighting.proxy.sessions != 0:
        why = f"{worker.id} has got traffic again"
        waits = _before_hold(plan, state, worker, now_s) if drain.verb is Verb.HOLD else None
        return blocker_of(plan, state, worker, now_s) or waits or perform(state, drain, now_s, weight=0, why=why)
    return blocker_of(plan, state, worker, now_s)


def _too_short(plan: Plan, state: DeployState, known: WorkerState, proxy: ProxySighting, now_s: float) -> float | None:
    """Return how long the proxy still holds, by its own clock, if that is too short for a restart; None if it isn't, or nothing is held."""
    held_for_s = proxy.hold.held_for_s
    left_s = float("inf") if held_for_s is None else plan.hold.hold_s - held_for_s - (now_s - last_seen_s(state, known))
    return max(0.0, left_s) if left_s < HOLD_SHARE_TO_BOOT * plan.hold.hold_s else None
