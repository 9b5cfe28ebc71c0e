"""From whom evidence is bought with canary requests, and whether that can be done."""

from collections.abc import Iterator

from rollout.homeservers.synapse.canaries import bought_path
from rollout.model.buying import Buying
from rollout.planning.situation import Situation


def resolved(situation: Situation) -> Buying | None:
    """
    Turn what the playbook says into what the plan carries; None where nothing is bought.

    Those of a worker's pool who aren't rolled are asked as well: it is compared with them.
    """
    entry = situation.playbook.canary_requests
    if entry is None:
        return None
    workers = tuple(worker.id for worker in situation.workers if bought_path(worker.role, 0) is not None)
    return Buying(entry.per_s, entry.requests_max, entry.cpu_max, workers) if workers else None


def refusals(situation: Situation) -> Iterator[str]:
    """Evidence that can't be bought is refused: without it the gates would wait, and end without a ruling."""
    if resolved(situation) is not None and situation.observation.no_canaries:
        yield f"canary requests: {situation.observation.no_canaries}; settle that, or leave canary_requests out"


def notes(situation: Situation) -> Iterator[str]:
    """Say what will be asked, of whom, and how much at most."""
    buying = resolved(situation)
    if buying is not None:
        yield (
            f"canary requests: {buying.per_s:g} a second to each of {', '.join(buying.workers)}, straight to its port, while the baseline "
            f"is taken, one soaks or is watched; at most {buying.requests_max} each, and none above {buying.cpu_max:.0%} of a core"
        )
