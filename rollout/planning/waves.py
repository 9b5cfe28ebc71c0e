"""Who may be out together."""

from collections.abc import Mapping, Sequence

from rollout.model.ids import PoolId, Role
from rollout.model.plan import Duty, Worker


def into_waves(workers: Sequence[Worker], budget: Mapping[PoolId, int]) -> list[tuple[Worker, ...]]:
    """
    Divide the workers of one group of roles into waves, keeping their order.

    A wave holds one worker of each role, or as many of one pool as *budget* allows to be out. A worker comes in a later wave than those
    that it depends on.
    """
    waves: list[tuple[Worker, ...]] = []
    pending = list(workers)
    while pending:
        waiting_for = {worker.id for worker in pending}
        wave: list[Worker] = []
        # As a wave only grows, whoever is like one that didn't fit doesn't fit either: of a thousand workers most are like another.
        unfit: set[tuple[Role, PoolId | None, Duty]] = set()
        for worker in pending:
            like = (worker.role, worker.pool, worker.duty)
            if like in unfit or not waiting_for.isdisjoint(worker.depends_on):
                continue
            if _fits(worker, wave, budget):
                wave.append(worker)
            else:
                unfit.add(like)
        # In a circle of dependencies (which the inventory's reader refuses) nobody could be first; the order given is as good as any.
        wave = wave or pending[:1]
        waves.append(tuple(wave))
        chosen = {worker.id for worker in wave}
        pending = [worker for worker in pending if worker.id not in chosen]
    return waves


def _fits(worker: Worker, wave: Sequence[Worker], budget: Mapping[PoolId, int]) -> bool:
    in_pool = sum(other.pool == worker.pool for other in wave)
    if worker.pool is not None and in_pool >= budget[worker.pool]:
        return False
    same_role = [other for other in wave if other.role == worker.role]
    return all(worker.duty is Duty.REPLACEABLE and other.pool == worker.pool for other in same_role)
