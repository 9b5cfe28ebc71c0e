"""What a person should know before saying yes: sentences beside the plan."""

from collections.abc import Iterator, Mapping, Sequence

from rollout.model.ids import WorkerId
from rollout.model.plan import Worker
from rollout.planning import buying, holding, plan_checks
from rollout.planning.evidence import behind_proxies, heeded
from rollout.planning.order import MAIN, Stretch
from rollout.planning.situation import Situation


def of(situation: Situation, stretches: Sequence[Stretch], skipped: Mapping[WorkerId, str], *, migrates: bool) -> tuple[str, ...]:
    """Collect every note on a plan."""
    rolled = [worker for stretch in stretches for worker in stretch.workers()]
    return (
        *(note for standing in situation.standings.values() for note in standing.notes),
        *(note for worker in rolled for note in holding.notes(worker, situation)),
        *(note for worker in rolled for note in _unseen(worker, situation)),
        *_liveness_only(rolled, situation),
        *(buying.notes(situation) if rolled else ()),
        *(_way_back(situation) if migrates else ()),
        *(_mixed(situation, skipped) if rolled else ()),
    )


def _unseen(worker: Worker, situation: Situation) -> Iterator[str]:
    """What the proxy doesn't see."""
    if worker.role == MAIN and len(situation.workers) > 1:
        yield f"workers call {worker.id} over replication, past the proxy: they try again while it restarts, and what fails is counted"


def _liveness_only(rolled: Sequence[Worker], situation: Situation) -> Iterator[str]:
    for role, proxied in behind_proxies(rolled).items():
        if not heeded(role, situation.playbook, proxied=proxied):
            yield f"role {role} is watched for being alive only: a release that makes it work badly will not be noticed there"


def _way_back(situation: Situation) -> Iterator[str]:
    match plan_checks.way_back(situation):
        case False:
            yield "after the migration the old release can no longer run on the database: from there on, only forward"
        case None if situation.observation.schema is None:
            yield "whether there is a way back after the migration isn't known: the database's schema could not be seen"
        case None:
            yield "whether there is a way back is known once the release is prepared; without one the rollout stops before the migration"


def _mixed(situation: Situation, skipped: Mapping[WorkerId, str]) -> Iterator[str]:
    """What stays behind when the rollout is through."""
    stays = [
        worker.id for worker in situation.workers if worker.id in skipped and situation.standings[worker.id].release != situation.to.id
    ]
    if stays:
        yield f"afterwards the homeserver runs mixed releases: {', '.join(stays)} {'stays' if len(stays) == 1 else 'stay'} on what runs now"
