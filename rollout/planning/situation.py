"""Everything that the planner's parts look at: the arguments of `make_plan`, and what follows from them at once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rollout.homeservers.synapse.roles import duty_of
from rollout.model.gate import Gate
from rollout.model.ids import GateId, PoolId, ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Duty, Worker
from rollout.model.playbook import Playbook
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning.evidence import resolved
from rollout.planning.standing import Standing, judge


@dataclass(frozen=True, slots=True)
class Situation:
    """
    Before the rollout.

    *max_unavailable* is the playbook's limit for every pool; *budget* is what is left of it after what somebody else has drained.
    """

    playbook: Playbook
    inventory: Inventory
    observation: Observation
    to: Release
    releases: Mapping[ReleaseId, Release]
    workers: tuple[Worker, ...]
    standings: Mapping[WorkerId, Standing]
    max_unavailable: Mapping[PoolId, int]
    budget: Mapping[PoolId, int]
    gates: Mapping[GateId, Gate]

    @property
    def ours(self) -> frozenset[WorkerId]:
        """Workers that an earlier rollout of ours took out and left out."""
        return frozenset(worker for worker, standing in self.standings.items() if standing.ours)

    @property
    def foreign(self) -> frozenset[WorkerId]:
        """Workers that somebody else took out."""
        return frozenset(worker for worker, standing in self.standings.items() if standing.foreign)

    def running(self) -> tuple[Release, ...]:
        """List the releases that run, each once."""
        found = dict.fromkeys(standing.release for standing in self.standings.values() if standing.release is not None)
        return tuple(self.releases[release] for release in found if release in self.releases)

    def members(self, pool: PoolId | None) -> list[WorkerId]:
        """List a pool's workers, whatever state they are in."""
        return [worker.id for worker in self.workers if pool is not None and worker.pool == pool]


def look(playbook: Playbook, inventory: Inventory, observation: Observation, to: Release) -> Situation:
    """Take everything together. Nothing is refused here."""
    # What is prepared already knows its schema.
    to = observation.releases.get(to.id, to)
    replaceable = Counter(entry.pool for entry in inventory.workers.values() if duty_of(entry.role) is Duty.REPLACEABLE)
    workers = tuple(_worker(worker_id, inventory, replaceable) for worker_id in inventory.workers)
    standings = {worker.id: judge(worker.id, observation, proxied=worker.pool is not None) for worker in workers}
    limits = {worker.pool: playbook.strategy.max_unavailable.get(worker.pool, 1) for worker in workers if worker.pool is not None}
    foreign = [worker.pool for worker in workers if standings[worker.id].foreign]
    return Situation(
        playbook=playbook,
        inventory=inventory,
        observation=observation,
        to=to,
        releases={**observation.releases, to.id: to},
        workers=workers,
        standings=standings,
        max_unavailable=limits,
        budget={pool: limit - foreign.count(pool) for pool, limit in limits.items()},
        gates={entry.id: resolved(entry) for entry in playbook.gates},
    )


def _worker(worker_id: WorkerId, inventory: Inventory, replaceable: Mapping[PoolId | None, int]) -> Worker:
    """Describe a worker; *replaceable* counts, by pool, those whose work a sibling could take over."""
    entry = inventory.workers[worker_id]
    duty = duty_of(entry.role)
    if duty is Duty.REPLACEABLE and (entry.pool is None or replaceable[entry.pool] == 1):
        # With nobody beside it in the proxy's eyes, nobody takes over.
        duty = Duty.SINGLETON
    return Worker(id=worker_id, role=entry.role, duty=duty, pool=entry.pool, host=entry.host, depends_on=entry.depends_on)
