"""Could a rollout begin now? Everything that can be said before it is known what to roll to, as a list."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.model.inventory import Inventory
from rollout.model.sighting import Observation
from rollout.planning.standing import judge


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: *ok*, None where it isn't known, and what there is to say."""

    name: str
    ok: bool | None
    why: str


def of_workers(inventory: Inventory, seen: Observation) -> Iterator[Check]:
    """Look at each worker: well, seen, and in traffic."""
    for worker, entry in inventory.workers.items():
        standing = judge(worker, seen, proxied=entry.pool is not None)
        if worker in seen.missing or worker not in seen.sightings:
            yield Check(worker, ok=None, why=standing.blockers[0])
        elif standing.blockers:
            yield Check(worker, ok=False, why="; ".join(standing.blockers))
        elif standing.foreign:
            yield Check(worker, ok=False, why="drained by somebody else: it counts as out")
        elif standing.ours:
            yield Check(worker, ok=True, why="out since an earlier rollout of ours: the next one brings it back first")
        else:
            yield Check(worker, ok=True, why=f"runs {standing.release}")


def of_blockers(blockers: str) -> Iterator[Check]:
    """Turn what a planner refuses, a line each, into checks; one that is ok when there is nothing."""
    lines = [line.strip() for line in blockers.splitlines() if line.strip()]
    if not lines:
        yield Check("plan", ok=True, why="a restart could be planned now")
    yield from (Check("plan", ok=False, why=line) for line in lines)
