"""
Can the others do without a worker now? Asked again before each drain, with how busy they were seen to be in the last minute.

On the way back it is only said: whatever it costs to leave a bad release, staying on it costs more.
"""

from rollout.deciding.decision import Wait
from rollout.deciding.seeing import LOOK_FRESH_S
from rollout.deciding.state import DeployState, Direction, WorkerState
from rollout.model.ids import WorkerId
from rollout.model.load import Headroom, Load, Routing
from rollout.model.plan import Duty, Plan, Worker
from rollout.model.sighting import is_out
from rollout.planning import capacity

# What was measured longer ago says nothing about now.
RECENT_S = 60.0
# Of each worker so many tallies are kept: a minute of them, a sweep every five seconds.
RECENT_MAX = 12


def room_without(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Headroom | None:
    """
    Predict what a worker's siblings come to while it is out; None where nobody inherits, or where it is out already.

    Those who go out in the same wave count as out beside it. Who is out already carries nothing, and inherits nothing.
    """
    if worker.duty is not Duty.REPLACEABLE or worker.pool is None or _is_out(state.workers[worker.id]):
        return None
    pool = [other.id for other in plan.workers if other.pool == worker.pool]
    left = [other for other in pool if other == worker.id or not _is_out(state.workers[other])]
    mates = _mates(plan, state, worker.id)
    out = [other for other in left if other == worker.id or (other in mates and not state.workers[other].touched)]
    # While one of them was out, the others carried more than they do now.
    whole_since_s = max(now_s - RECENT_S, *(state.workers[other].admitted_at_s or 0.0 for other in pool))
    loads = {other: load for other in left if (load := _load(state.workers[other], whole_since_s)) is not None}
    return capacity.predict(out, [other for other in left if other not in out], loads, plan.routing.get(worker.pool, Routing()))


def _mates(plan: Plan, state: DeployState, worker: WorkerId) -> tuple[WorkerId, ...]:
    phases = plan.phases if state.direction is Direction.FORWARD else plan.rollback
    return next((wave.workers for phase in phases for wave in phase.waves if worker in wave.workers), ())


def _is_out(known: WorkerState) -> bool:
    return known.sighting is not None and is_out(known.sighting) is True


def _load(known: WorkerState, since_s: float) -> Load | None:
    return capacity.load_of([tally for tally in known.recent if tally.since_s >= since_s], "the last minute")


def too_narrow(plan: Plan, state: DeployState, worker: Worker, room: Headroom | None, now_s: float) -> Wait | None:
    """Wait until the others can carry it; never on the way back."""
    if room is None or state.direction is Direction.BACK:
        return None
    why = capacity.refusal(worker.id, room, plan.capacity)
    return Wait("capacity", f"{worker.id} may not go down: {why}", now_s + LOOK_FRESH_S) if why else None


def narrowness(plan: Plan, worker: Worker, room: Headroom | None) -> str:
    """Say that it is narrow; "" where it isn't."""
    if room is None:
        return ""
    return capacity.refusal(worker.id, room, plan.capacity) or capacity.warning(worker.id, room, plan.capacity)
