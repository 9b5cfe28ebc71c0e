"""Single rules of the planner that no printed plan shows clearly."""

from dataclasses import replace

import pytest

from rollout.model.errors import InvalidFileError, RefusedError
from rollout.model.gate import Metric
from rollout.model.ids import GateId, PoolId, Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.plan import Duty, Plan, Verb, steps_of
from rollout.model.playbook import GateEntry, GuardEntry, Playbook, Ramp, Strategy
from rollout.model.sighting import Observation, PoolSighting
from rollout.planning.planner import make_plan
from tests.planning.homeserver import NEW, OLD, SCHEMA, release, sighting

SYNC = PoolId("sync")
GATE = GateEntry(id=GateId("cpu"), metric=Metric.POLL_CPU, ratio_max=1.5)
PLAYBOOK = Playbook(name="short", gates=(GATE,))


def _inventory(size: int) -> Inventory:
    driver = DriverSettings(driver="any")
    return Inventory(
        homeserver="example.org",
        workers={
            WorkerId(f"sync{n}"): WorkerEntry(role=Role("sync"), pool=SYNC, url="http://h", metrics="http://m") for n in range(1, size + 1)
        },
        pools={SYNC: PoolEntry(backend="sync")},
        workers_driver=driver,
        releases_driver=driver,
        traffic_driver=driver,
        ledger_driver=driver,
    )


def _seen(inventory: Inventory, **drained_by: str) -> Observation:
    sightings = {worker: sighting(OLD, drained_by=drained_by.get(worker)) for worker in inventory.workers}
    return Observation(1000.0, sightings, releases={OLD.id: OLD}, schema=SCHEMA)


def _may_be_out(count: int) -> Playbook:
    return PLAYBOOK.model_copy(update={"strategy": Strategy(max_unavailable={SYNC: count})})


def _waves(plan: Plan) -> list[tuple[str, ...]]:
    return [wave.workers for phase in plan.phases for wave in phase.waves if wave.workers]


def test_a_wave_is_as_wide_as_the_pool_allows_after_the_canary() -> None:
    inventory = _inventory(5)
    assert _waves(make_plan(_may_be_out(2), inventory, _seen(inventory), NEW)) == [("sync1",), ("sync2", "sync3"), ("sync4", "sync5")]


def test_somebody_elses_drain_makes_waves_narrower() -> None:
    """It counts as out for as long as the rollout takes, because nobody of us will end it."""
    inventory = _inventory(5)
    plan = make_plan(_may_be_out(2), inventory, _seen(inventory, sync4="others"), NEW)
    assert _waves(plan) == [("sync1",), ("sync2",), ("sync3",), ("sync5",)]
    assert plan.foreign_drains == ("sync4",)


def test_nobody_left_is_refused() -> None:
    inventory = _inventory(2)
    with pytest.raises(RefusedError, match="max_unavailable is 2 of 2"):
        make_plan(_may_be_out(2), inventory, _seen(inventory), NEW)


def test_a_pool_of_one_is_not_drained() -> None:
    """Draining it would refuse everybody instead of those in flight."""
    inventory = _inventory(1)
    plan = make_plan(PLAYBOOK, inventory, _seen(inventory), NEW)
    assert plan.workers[0].duty is Duty.SINGLETON
    assert Verb.DRAIN not in {step.verb for step in steps_of(plan.phases)}
    assert any("alone in pool sync" in note for note in plan.notes)


def test_a_worker_that_we_left_out_goes_first() -> None:
    """Before the playbook's canary: with it out nobody else of its pool may go."""
    inventory = _inventory(3)
    playbook = PLAYBOOK.model_copy(update={"strategy": Strategy(canary=WorkerId("sync1"))})
    assert _waves(make_plan(playbook, inventory, _seen(inventory, sync3="us"), NEW))[0] == ("sync3",)


def test_main_is_no_canary() -> None:
    main = WorkerId("main")
    inventory = _inventory(2)
    entry = WorkerEntry(role=Role("main"), url="http://h", metrics="http://m")
    inventory = inventory.model_copy(update={"workers": {**inventory.workers, main: entry}})
    playbook = PLAYBOOK.model_copy(update={"strategy": Strategy(canary=main), "liveness_only": (Role("main"),)})
    with pytest.raises(RefusedError, match="main is rolled last"):
        make_plan(playbook, inventory, _seen(inventory), NEW)


def test_a_guard_that_nobody_could_read_is_refused() -> None:
    inventory = _inventory(2)
    playbook = PLAYBOOK.model_copy(update={"guards": (GuardEntry(guard="lock_queue", max=0),)})
    with pytest.raises(RefusedError, match="no database_driver"):
        make_plan(playbook, inventory, _seen(inventory), NEW)


def test_a_ramp_that_no_proxy_can_do_is_refused() -> None:
    """A Service of Kubernetes' lets a pod in or not."""
    inventory = _inventory(2)
    seen = replace(_seen(inventory), pools={PoolId("sync"): PoolSighting(None, None, weighs=False)})
    with pytest.raises(RefusedError, match="pool sync: its traffic_driver has no weights"):
        make_plan(PLAYBOOK, inventory, seen, NEW)
    at_once = PLAYBOOK.model_copy(update={"strategy": Strategy(ramp=Ramp(weights=(100,), step_s=0))})
    assert make_plan(at_once, inventory, seen, NEW).ramp.weights == (100,)


def test_from_mixed_releases_everybody_goes_back_to_their_own() -> None:
    older = release("1.161.0", schema_version=94, schema_compat_version=84)
    inventory = _inventory(3)
    seen = _seen(inventory)
    seen = replace(seen, sightings={**seen.sightings, WorkerId("sync2"): sighting(older)}, releases={OLD.id: OLD, older.id: older})
    plan = make_plan(PLAYBOOK, inventory, seen, NEW)
    assert {step.worker: step.release for step in steps_of(plan.rollback)} == {"sync1": OLD.id, "sync2": older.id, "sync3": OLD.id}


def test_a_release_that_one_old_worker_could_not_go_back_from_has_no_way_back() -> None:
    ancient = release("1.90.0", schema_version=80, schema_compat_version=76)
    inventory = _inventory(3)
    seen = _seen(inventory)
    seen = replace(seen, sightings={**seen.sightings, WorkerId("sync2"): sighting(ancient)}, releases={OLD.id: OLD, ancient.id: ancient})
    assert make_plan(PLAYBOOK, inventory, seen, NEW).point_of_no_return == "release/migrate"


def test_only_an_unknown_role_is_an_argument_that_cannot_be_used() -> None:
    inventory = _inventory(2)
    with pytest.raises(InvalidFileError, match="try: sync"):
        make_plan(PLAYBOOK, inventory, _seen(inventory), NEW, only=Role("snyc"))


def test_a_gate_on_what_a_proxy_does_not_count_is_refused() -> None:
    """It would wait for ever, with the first worker restarted."""
    inventory = _inventory(2)
    gate = GateEntry(id=GateId("proxy"), metric=Metric.PROXY_FAILURES, max=0.01)
    playbook = PLAYBOOK.model_copy(update={"gates": (gate,), "liveness_only": ()})
    assert make_plan(playbook, inventory, _seen(inventory), NEW).gates.keys() == {"proxy"}
    seen = _seen(inventory)
    uncounted = {
        name: replace(one, proxy=None if one.proxy is None else replace(one.proxy, requests=None, cuts=None))
        for name, one in seen.sightings.items()
    }
    with pytest.raises(RefusedError, match="gate proxy: the proxy of sync1, sync2 doesn't count requests"):
        make_plan(playbook, inventory, replace(seen, sightings=uncounted), NEW)
