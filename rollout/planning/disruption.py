"""
May this worker go down now? Asked again before every disruptive step, against what was seen last.

Source: Strimzi's `canRoll` and Redpanda's "is it safe to stop X now" ask the same question before each unit; "never more than
max_unavailable out" counts whoever took a worker out, so a drain by somebody else uses up the budget too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rollout.model.ids import PoolId, WorkerId
from rollout.model.plan import Worker
from rollout.model.sighting import Sighting, is_out


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What is known of one worker: *sighting* from *at_s*, or *missing* with the reason. *taken* says what we have done to it that no look has
    shown yet.
    """

    sighting: Sighting | None
    at_s: float
    missing: str
    taken: str = ""


def why_not_down(
    worker: Worker, workers: Sequence[Worker], seen: Mapping[WorkerId, Seen], max_unavailable: Mapping[PoolId, int]
) -> str | None:
    """
    Say what forbids taking *worker* down now; None when nothing does.

    A worker that is out already takes nothing away by going down. A pool's other members count as out when they are seen out, not healthy,
    or not seen at all: unknown is never healthy.
    """
    own = seen[worker.id]
    if own.sighting is not None and not own.missing and is_out(own.sighting):
        return None
    if worker.pool is None:
        return _why_duty_forbids(worker, workers, seen)
    members = [other for other in workers if other.pool == worker.pool and other.id != worker.id]
    out = [(other, why) for other in members if (why := _why_out(seen[other.id])) is not None]
    limit = max_unavailable.get(worker.pool, 1)
    if len(out) + 1 > limit and members:
        first, why = out[0]
        return f"{worker.id} may not go down: {len(out)} of {len(members) + 1} in pool {worker.pool} already out ({first.id}: {why})"
    return None


def _why_duty_forbids(worker: Worker, workers: Sequence[Worker], seen: Mapping[WorkerId, Seen]) -> str | None:
    """Workers that the proxy doesn't see share their work by role: one of a role at a time."""
    for other in workers:
        if other.pool is None and other.role == worker.role and other.id != worker.id and (why := _why_out(seen[other.id])) is not None:
            return f"{worker.id} may not go down: {other.id}, of the same role, is out ({why})"
    return None


def _why_out(seen: Seen) -> str | None:
    if seen.taken:
        return seen.taken
    if seen.missing or seen.sighting is None:
        return f"not seen: {seen.missing or 'not looked at yet'}"
    sighting = seen.sighting
    if sighting.healthy is not True:
        return "doesn't answer /health" if sighting.healthy is False else "its health is unknown"
    if sighting.proxy is not None and is_out(sighting):
        if not sighting.proxy.admitted:
            return "drained" if sighting.drain is not None else "drained by somebody else"
        return "the proxy sees it down" if not sighting.proxy.up else "weight 0 at the proxy"
    return None
