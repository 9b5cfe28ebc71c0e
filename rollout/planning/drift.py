"""What changed since a plan was made. Nomad and Terraform only say "stale"; a person needs to know what."""

from collections.abc import Iterator

from rollout.model.ids import WorkerId
from rollout.model.plan import Plan
from rollout.model.sighting import Observation
from rollout.planning.digest import digest_of_observation
from rollout.planning.standing import Standing, judge


def explain_stale(plan: Plan, observation: Observation, playbook_digest: str) -> tuple[str, ...]:
    """Say what is no longer as the plan found it; empty when the plan still holds."""
    standings = {worker.id: judge(worker.id, observation, proxied=worker.pool is not None) for worker in plan.workers}
    changes = [change for worker, standing in standings.items() for change in _of_worker(plan, worker, standing)]
    changes += [f"{worker} is new" for worker in (*observation.sightings, *observation.missing) if worker not in standings]
    if not changes and digest_of_observation(observation) != plan.observation_digest:
        # What is left that a plan rests on: our marks, and the schema.
        changes = [f"{worker} is out since an earlier rollout of ours" for worker, standing in standings.items() if standing.ours]
        changes = changes or ["the database's schema changed"]
    if playbook_digest != plan.playbook_digest:
        changes.append("the playbook changed")
    return tuple(changes)


def _of_worker(plan: Plan, worker: WorkerId, now: Standing) -> Iterator[str]:
    yield from now.blockers
    if now.foreign and worker not in plan.foreign_drains:
        yield f"{worker} was drained by somebody else"
    elif not now.foreign and worker in plan.foreign_drains:
        yield f"{worker} is no longer drained by somebody else"
    before = plan.from_releases.get(worker)
    if now.release is not None and now.release != before:
        yield f"{worker} runs {now.release} now, not {before or 'an unknown release'}"
