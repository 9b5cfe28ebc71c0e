"""Who is warmed, and when: the inheritors of a worker's users before it is drained, and the worker itself before it is admitted."""

from collections.abc import Iterator, Sequence

from rollout.homeservers.synapse.warm_up import WARMABLE
from rollout.model.ids import WorkerId
from rollout.model.plan import Duty, Worker
from rollout.model.warming import WarmBudget
from rollout.planning.situation import Situation


def budget(situation: Situation) -> WarmBudget | None:
    """Return what warming may cost; None where the playbook doesn't want any."""
    warm = situation.playbook.strategy.warm
    return None if warm is None else WarmBudget(warm.users_max, warm.concurrency, warm.seconds, warm.cpu_max)


def is_warmed(worker: Worker, situation: Situation) -> bool:
    """Tell whether a worker is warmed: it serves users of its own, and has none while it is out."""
    return situation.playbook.strategy.warm is not None and worker.duty is Duty.REPLACEABLE and worker.role in WARMABLE


def inheritors(worker: Worker, situation: Situation) -> tuple[WorkerId, ...]:
    """List the siblings that take a worker's users over while it is out."""
    warm = situation.playbook.strategy.warm
    if warm is None or not warm.inheritors or not is_warmed(worker, situation) or worker.id in situation.ours:
        return ()
    return tuple(other for other in situation.members(worker.pool) if other != worker.id and other not in situation.foreign)


def refusals(rolled: Sequence[Worker], situation: Situation) -> Iterator[str]:
    """Warming that is asked for but can't be had is refused: a rollout without it would be another one than was planned."""
    warm = situation.playbook.strategy.warm
    if warm is None or not any(is_warmed(worker, situation) for worker in rolled):
        return
    if situation.inventory.warming_driver is None:
        yield "warming: the inventory has no warming_driver; add one, or leave strategy.warm out"
    elif situation.observation.no_warming:
        yield f"warming: {situation.observation.no_warming}; settle that, or leave strategy.warm out"
