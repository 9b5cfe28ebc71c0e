"""What holds for every plan, whatever the homeserver looks like."""

from collections import Counter
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.homeservers.synapse.roles import duty_of
from rollout.model import codec
from rollout.model.errors import RefusedError
from rollout.model.gate import Metric
from rollout.model.ids import GateId, PoolId, Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.plan import Duty, Plan, Verb, steps_of
from rollout.model.playbook import Baseline, GateEntry, Playbook, Strategy
from rollout.model.sighting import Observation, Sighting
from rollout.planning.digest import digest_of_plan
from rollout.planning.planner import make_plan
from tests.planning.homeserver import NEW, OLD, SCHEMA, sighting

PROXIED = (Role("sync"), Role("client"), Role("main"))
UNPROXIED = (Role("event_persister"), Role("federation_sender"))
ALL = (*PROXIED, *UNPROXIED)
DRIVER = DriverSettings(driver="any")


@dataclass(frozen=True)
class Case:
    """Arguments of make_plan."""

    playbook: Playbook
    inventory: Inventory
    observation: Observation


@st.composite
def cases(draw: st.DrawFn) -> Case:
    counts = {role: draw(st.integers(0, 4)) for role in ALL} | {Role("main"): 1}
    workers: dict[WorkerId, WorkerEntry] = {}
    for role in draw(st.permutations(ALL)):
        for number in range(1, counts[role] + 1):
            name = WorkerId(f"{role}{number}")
            # Sync workers may stand in two pools.
            pool = PoolId(f"{role}-{draw(st.sampled_from('ab'))}" if role == "sync" else role) if role in PROXIED else None
            earlier = [other for other, entry in workers.items() if entry.role == role]
            depends_on = tuple(draw(st.lists(st.sampled_from(earlier), max_size=2))) if earlier else ()
            workers[name] = WorkerEntry(role=role, pool=pool, url="http://h", metrics="http://m", depends_on=depends_on)
    pools = {entry.pool: PoolEntry(backend=entry.pool) for entry in workers.values() if entry.pool is not None}
    inventory = Inventory(
        homeserver="example.org",
        workers=workers,
        pools=pools,
        workers_driver=DRIVER,
        releases_driver=DRIVER,
        traffic_driver=DRIVER,
        ledger_driver=DRIVER,
    )
    order = draw(st.permutations(ALL))
    cut = draw(st.integers(1, len(ALL)))
    playbook = Playbook(
        name="any",
        strategy=Strategy(
            role_order=(tuple(order[:cut]), *order[cut:]) if draw(st.booleans()) else tuple(order[:cut]),
            canary=draw(st.sampled_from([None, *(worker for worker, entry in workers.items() if entry.role != "main")])),
            max_unavailable={pool: draw(st.integers(1, 3)) for pool in pools},
        ),
        baseline=Baseline(baseline_s=draw(st.sampled_from([0.0, 60.0]))),
        gates=(GateEntry(id=GateId("errors"), metric=Metric.ERRORS, max=0.01),),
        liveness_only=ALL,
    )
    return Case(playbook, inventory, Observation(1000.0, draw(_sightings(inventory)), releases={OLD.id: OLD}, schema=SCHEMA))


@st.composite
def _sightings(draw: st.DrawFn, inventory: Inventory) -> dict[WorkerId, Sighting]:
    return {
        worker: sighting(
            draw(st.sampled_from([OLD, OLD, OLD, NEW])),
            proxied=entry.pool is not None,
            drained_by=draw(st.sampled_from([None] * 8 + ["us", "others"])) if entry.role in {"sync", "client"} else None,
        )
        for worker, entry in inventory.workers.items()
    }


def _plan(case: Case) -> Plan | None:
    """Plan; None for what is refused, which the named tests look at."""
    prepared = replace(case.observation, releases={OLD.id: OLD, NEW.id: NEW})
    try:
        return make_plan(case.playbook, case.inventory, prepared, NEW)
    except RefusedError:
        return None


@settings(deadline=None)
@given(cases())
def test_a_pool_is_never_short_of_more_than_it_may(case: Case) -> None:
    """No wave, with what somebody else has drained, takes more of a pool out than max_unavailable, or all of it."""
    if (plan := _plan(case)) is None:
        return
    pools = {worker.id: worker.pool for worker in plan.workers}
    sizes = Counter(pools.values())
    foreign = Counter(pools[worker] for worker in plan.foreign_drains)
    for wave in (wave for phase in plan.phases for wave in phase.waves):
        for pool, out in Counter(pools[worker] for worker in wave.workers).items():
            if pool is not None:
                assert out + foreign[pool] <= max(1, plan.max_unavailable[pool])
                assert sizes[pool] == 1 or out + foreign[pool] < sizes[pool]


@settings(deadline=None)
@given(cases())
def test_what_cannot_be_replaced_goes_one_at_a_time(case: Case) -> None:
    if (plan := _plan(case)) is None:
        return
    workers = {worker.id: worker for worker in plan.workers}
    for wave in (wave for phase in plan.phases for wave in phase.waves):
        alone = Counter(workers[worker].role for worker in wave.workers if workers[worker].duty is not Duty.REPLACEABLE)
        assert all(count == 1 for count in alone.values())


@settings(deadline=None)
@given(cases())
def test_every_worker_has_one_turn_or_a_reason(case: Case) -> None:
    if (plan := _plan(case)) is None:
        return
    turns = Counter(worker for phase in plan.phases for wave in phase.waves for worker in wave.workers)
    assert set(turns) | set(plan.skipped) == set(case.inventory.workers)
    assert not set(turns) & set(plan.skipped)
    assert all(count == 1 for count in turns.values())


@settings(deadline=None)
@given(cases())
def test_main_is_last_and_what_moves_easily_is_first(case: Case) -> None:
    """After the canary, and unless the playbook puts roles side by side."""
    if (plan := _plan(case)) is None:
        return
    order = [worker for phase in plan.phases for wave in phase.waves for worker in wave.workers]
    assert "main1" not in order[:-1]
    if isinstance(case.playbook.strategy.role_order[0], tuple):
        return
    roles = {worker.id: worker.role for worker in plan.workers}
    ranks = [
        max(list(Duty).index(duty_of(roles[worker])) for wave in phase.waves for worker in wave.workers)
        for phase in plan.phases
        if phase.waves[0].workers and phase.name != "canary"
    ]
    assert ranks == sorted(ranks)


@settings(deadline=None)
@given(cases())
def test_needs_are_steps_that_come_before(case: Case) -> None:
    """So that the steps form no circle, and the first of every worker waits for the whole wave before it."""
    if (plan := _plan(case)) is None:
        return
    for phases in (plan.phases, plan.rollback):
        done: set[str] = set()
        before: set[str] = set()
        for wave in (wave for phase in phases for wave in phase.waves):
            first = {worker: next(step for step in wave.steps if step.worker == worker) for worker in wave.workers}
            assert all(set(step.needs) == before for step in first.values())
            for step in wave.steps:
                assert set(step.needs) <= done
                done.add(step.id)
            before = {step.id for step in wave.steps}
    ids = [step.id for step in (*steps_of(plan.phases), *steps_of(plan.rollback))]
    assert len(ids) == len(set(ids))


@settings(deadline=None)
@given(cases())
def test_the_way_back_covers_everybody_newest_first(case: Case) -> None:
    if (plan := _plan(case)) is None:
        return
    there = [worker for phase in plan.phases for wave in phase.waves for worker in wave.workers]
    back = [worker for phase in plan.rollback for wave in phase.waves for worker in wave.workers]
    assert back == there[::-1]
    for step in steps_of(plan.rollback):
        assert step.worker is not None
        assert step.release == plan.from_releases[step.worker]


@settings(deadline=None)
@given(cases())
def test_dependencies_go_first_within_a_role(case: Case) -> None:
    if (plan := _plan(case)) is None:
        return
    for phase in plan.phases:
        turn = {worker: number for number, wave in enumerate(phase.waves) for worker in wave.workers}
        for worker in plan.workers:
            for needed in worker.depends_on:
                if worker.id in turn and needed in turn:
                    assert turn[needed] < turn[worker.id]


@settings(deadline=None)
@given(cases())
def test_who_is_drained_is_admitted(case: Case) -> None:
    """And whoever is left out by us gets its traffic back."""
    if (plan := _plan(case)) is None:
        return
    for phases in (plan.phases, plan.rollback):
        verbs = {(step.worker, step.verb) for step in steps_of(phases)}
        for worker in plan.workers:
            assert ((worker.id, Verb.DRAIN) in verbs) == ((worker.id, Verb.ADMIT) in verbs)
            if case.observation.sightings[worker.id].drain is not None:
                assert (worker.id, Verb.ADMIT) in verbs


@settings(deadline=None)
@given(cases(), st.integers(0, 500), st.floats(0, 1e6))
def test_the_same_homeserver_gets_the_same_plan(case: Case, sessions: int, later_s: float) -> None:
    """Sessions, counters and times make no difference; a saved plan read back is the same plan."""
    if (plan := _plan(case)) is None:
        return
    later = replace(
        case.observation,
        taken_at_s=case.observation.taken_at_s + later_s,
        sightings={
            worker: replace(seen, proxy=replace(seen.proxy, sessions=sessions, requests=sessions)) if seen.proxy is not None else seen
            for worker, seen in case.observation.sightings.items()
        },
    )
    again = _plan(replace(case, observation=later))
    assert again is not None
    assert (again.digest, again.observation_digest) == (plan.digest, plan.observation_digest)
    read_back = codec.load_plan(codec.dump_json(plan))
    assert read_back == plan
    assert digest_of_plan(read_back) == plan.digest


def test_many_of_these_cases_get_a_plan() -> None:
    """The invariants above look at plans, not at refusals alone."""
    planned: list[bool] = []

    @settings(deadline=None)
    @given(cases())
    def look(case: Case) -> None:
        planned.append(_plan(case) is not None)

    look()
    assert sum(planned) > len(planned) / 4
