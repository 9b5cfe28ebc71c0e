"""What forbids a rollout. Each check answers with sentences, one per blocker, so that a refusal can list them all at once."""

from collections.abc import Iterator, Sequence

from rollout.homeservers.synapse import schema_rules, topology
from rollout.homeservers.synapse.roles import evidence_of
from rollout.model.effect import FULL_WEIGHT
from rollout.model.gate import GUARDS_OF_PAGES, Metric
from rollout.model.plan import Worker
from rollout.model.playbook import Playbook
from rollout.planning.evidence import behind_proxies, gates_of, heeded
from rollout.planning.order import MAIN
from rollout.planning.situation import Situation


def changed_topology(situation: Situation) -> Iterator[str]:
    """A change in who does what can't be rolled worker by worker: meanwhile two would do the same, or nobody would."""
    differences = [
        difference for release in situation.running() for difference in topology.explain_difference(release.topology, situation.to.topology)
    ]
    yield from dict.fromkeys(differences)
    if differences:
        yield f"a change of topology is no rolling restart: {topology.procedure()}"


def condemned(situation: Situation) -> Iterator[str]:
    """What a rollout of ours was taking somebody back from, when it was lost, is not rolled out before everybody is back."""
    for worker, standing in situation.standings.items():
        if standing.condemned == situation.to.id:
            yield (
                f"{worker} was being taken back from {situation.to.id}, and is not admitted on it: "
                "roll the release before it out, or another one; once nobody is out it may be tried again"
            )


def too_old_for_the_database(situation: Situation) -> Iterator[str]:
    """A release refuses to start on a database that only newer ones understand."""
    schema, to = situation.observation.schema, situation.to
    versions = schema_rules.versions_of(to)
    if schema is not None and versions is not None and schema.compat_version > versions[0]:
        needed = f"the database needs schema {schema.compat_version} or newer"
        yield f"{to.version} would not start: {needed}, and {to.version} knows {versions[0]}"


def overdrawn_pools(situation: Situation, rolled: Sequence[Worker]) -> Iterator[str]:
    """Somebody must be left in every pool, and what somebody else drained uses up what may be out."""
    for pool in dict.fromkeys(worker.pool for worker in rolled if worker.pool is not None):
        members = situation.members(pool)
        limit = situation.max_unavailable[pool]
        if limit >= len(members) > 1:
            yield f"pool {pool}: max_unavailable is {limit} of {len(members)} workers, so nobody might be left"
        if situation.budget[pool] < 1:
            drained = [worker for worker in members if worker in situation.foreign]
            is_are = "is" if len(drained) == 1 else "are"
            yield f"pool {pool}: {', '.join(drained)} {is_are} drained by somebody else, and at most {limit} of {len(members)} may be out"


def without_evidence(rolled: Sequence[Worker], playbook: Playbook) -> Iterator[str]:
    """Being alive proves little: a role that no gate looks at passes only if the playbook says so by name."""
    for role, proxied in behind_proxies(rolled).items():
        if heeded(role, playbook, proxied=proxied) or role in playbook.liveness_only:
            continue
        if metrics := ", ".join(evidence_of(role)):
            yield f"role {role}: no gate looks at it; add one on {metrics}, or name the role in liveness_only"
        else:
            yield f"role {role}: nothing can be measured of it yet; name the role in liveness_only to accept that"


def unmeasurable_guards(situation: Situation) -> Iterator[str]:
    """A guard that can't be read would hold the rollout for ever."""
    if situation.inventory.database_driver is None:
        for entry in situation.playbook.guards:
            if entry.guard not in GUARDS_OF_PAGES:
                yield f"guard {entry.guard}: the inventory has no database_driver to read it with"


def uncounting_proxies(situation: Situation, rolled: Sequence[Worker]) -> Iterator[str]:
    """A gate on what a proxy counts would wait for ever for one that doesn't, with its worker restarted."""
    for entry in situation.playbook.gates:
        if entry.metric is not Metric.PROXY_FAILURES or not entry.act:
            continue
        uncounted = []
        for worker in rolled:
            sighting = situation.observation.sightings.get(worker.id)
            asked = entry.id in gates_of(worker.role, situation.playbook, proxied=worker.pool is not None)
            if asked and sighting is not None and (proxy := sighting.proxy) is not None and (proxy.requests is None or proxy.cuts is None):
                uncounted.append(str(worker.id))
        if uncounted:
            yield f"gate {entry.id}: the proxy of {', '.join(uncounted)} doesn't count requests, so there would be no ruling; leave it out"


def unweighable_pools(situation: Situation, rolled: Sequence[Worker]) -> Iterator[str]:
    """Where a worker is in or out and nothing between, a ramp would fail at its first step."""
    ramp = situation.playbook.strategy.ramp
    if ramp.weights == (FULL_WEIGHT,) and not ramp.down and ramp.utilisation_max is None:
        return
    for pool in dict.fromkeys(worker.pool for worker in rolled if worker.pool is not None):
        seen = situation.observation.pools.get(pool)
        if seen is not None and not seen.weighs:
            yield f"pool {pool}: its traffic_driver has no weights, so nobody is ramped there; let `ramp` be {{weights: [100], step_s: 0}}"


def misplaced_canary(situation: Situation) -> Iterator[str]:
    """The canary shall do little harm if the release is bad; main does the most."""
    canary = situation.playbook.strategy.canary
    if canary is None:
        return
    if canary not in situation.inventory.workers:
        yield f"canary {canary}: there is no such worker"
    elif situation.inventory.workers[canary].role == MAIN:
        yield f"canary {canary}: main is rolled last, when the release has been seen to work"


def way_back(situation: Situation) -> bool | None:
    """Tell whether every release that runs could run again after the migration; None when that can't be known before PREPARE."""
    schema, to = situation.observation.schema, situation.to
    answers = {schema_rules.rollback_possible(schema, release, to) for release in situation.running() if release.version != to.version}
    if False in answers:
        return False
    return None if None in answers else True
