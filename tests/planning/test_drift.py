"""What changed since a plan was saved, and whether it still holds."""

from dataclasses import replace

import pytest

from rollout.model.gate import Metric
from rollout.model.ids import GateId, PoolId, Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.load import Load
from rollout.model.plan import Plan
from rollout.model.playbook import GateEntry, Playbook
from rollout.model.sighting import Observation, PoolSighting, Sighting
from rollout.planning.drift import Drift, drift
from rollout.planning.planner import make_plan
from tests.planning.homeserver import NEW, OLD, SCHEMA, sighting

DRIVER = DriverSettings(driver="any")
SYNC1, SYNC2, SYNC3, SYNC4 = (WorkerId(f"sync{number}") for number in (1, 2, 3, 4))
PLAYBOOK = Playbook(name="drift", gates=(GateEntry(id=GateId("cpu"), metric=Metric.POLL_CPU, ratio_max=1.5),))
INVENTORY = Inventory(
    homeserver="example.org",
    workers={
        worker: WorkerEntry(role=Role("sync"), pool=PoolId("sync"), url="http://h", metrics="http://m") for worker in (SYNC1, SYNC2, SYNC3)
    },
    pools={PoolId("sync"): PoolEntry(backend="sync")},
    workers_driver=DRIVER,
    releases_driver=DRIVER,
    traffic_driver=DRIVER,
    ledger_driver=DRIVER,
)
BEFORE = Observation(1000.0, {worker: sighting(OLD) for worker in INVENTORY.workers}, releases={OLD.id: OLD, NEW.id: NEW}, schema=SCHEMA)
TWO_OUT = PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"max_unavailable": {PoolId("sync"): 2}})})
PLAN = make_plan(PLAYBOOK, INVENTORY, BEFORE, NEW)


def _drift(now: Observation, playbook: Playbook | None = PLAYBOOK, inventory: Inventory = INVENTORY, plan: Plan = PLAN) -> Drift:
    return drift(plan, now, inventory, playbook)


def _with(worker: WorkerId, seen: Sighting, before: Observation = BEFORE) -> Observation:
    return replace(before, sightings={**before.sightings, worker: seen})


def _restarted(seen: Sighting, at_s: float) -> Sighting:
    assert seen.process is not None
    return replace(seen, process=replace(seen.process, started_at_s=at_s))


def _loads(utilisation: float) -> dict[WorkerId, Load]:
    return dict.fromkeys(INVENTORY.workers, Load((utilisation,) * 3, 1000.0, 0.01, 1.0, "a test"))


def test_time_and_traffic_change_nothing() -> None:
    seen = sighting(OLD)
    assert seen.proxy is not None
    busier = replace(seen, proxy=replace(seen.proxy, sessions=900, requests=10**6, cuts=4))
    assert _drift(replace(BEFORE, taken_at_s=4600.0, sightings=dict.fromkeys(INVENTORY.workers, busier))) == Drift(3600.0)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (_with(SYNC2, sighting(NEW)), f"sync2 runs {NEW.id} now, not {OLD.id}"),
        (_with(SYNC2, sighting(OLD, drained_by="others")), "sync2 was drained by somebody else, and the plan would restart it"),
        (_with(SYNC2, sighting(OLD, drained_by="us")), "sync2 is out since an earlier rollout of ours, and has to come first in its pool"),
        (replace(BEFORE, missing={SYNC3: "no route to host"}), "sync3 could not be seen: no route to host"),
        (_with(SYNC1, replace(sighting(OLD), healthy=False)), "sync1 is not healthy: it doesn't answer /health"),
        (
            replace(BEFORE, schema=replace(SCHEMA, version=95)),
            "the database's schema changed: 95, compatible back to 84, not 94 and 84",
        ),
        (replace(BEFORE, schema=replace(SCHEMA, deltas=())), "the database's schema changed: other deltas were applied to it"),
        (replace(BEFORE, schema=None), "the database's schema cannot be seen now, unlike when this was planned"),
        (
            replace(BEFORE, releases={OLD.id: OLD, NEW.id: replace(NEW, artefact_lock="another")}),
            f"{NEW.id} at the target was prepared differently: artefact_lock",
        ),
        (
            replace(BEFORE, releases={OLD.id: replace(OLD, schema_compat_version=90), NEW.id: NEW}),
            f"{OLD.id} at the target was prepared differently: schema 94, compatible back to 90, not 94 and 84",
        ),
    ],
)
def test_what_breaks_a_plan_is_said(now: Observation, why: str) -> None:
    found = _drift(now)
    assert found.breaks == (why,)
    assert not found.holds


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (_with(SYNC2, _restarted(sighting(OLD), 2000.0)), f"sync2 was restarted, on the same release {OLD.id}"),
        (
            _with(SYNC1, sighting(OLD, drained_by="us")),
            "sync1 is out since an earlier rollout of ours; it is the first of its pool, and comes back with its turn",
        ),
        (
            replace(BEFORE, releases={OLD.id: OLD, NEW.id: replace(NEW, schema_version=95, schema_compat_version=84)}),
            f"{NEW.id} was prepared meanwhile",
        ),
    ],
)
def test_what_a_plan_bears_is_said(now: Observation, why: str) -> None:
    found = _drift(now)
    assert (found.breaks, found.bears) == ((), (why,))
    assert found.holds


def test_a_plan_may_be_older_than_its_release_at_the_target() -> None:
    """What is to be prepared anyway isn't missed."""
    assert _drift(replace(BEFORE, releases={OLD.id: OLD})) == Drift(0.0)


def test_a_new_worker_and_one_that_is_gone_break_it() -> None:
    entry = INVENTORY.workers[SYNC1]
    more = INVENTORY.model_copy(update={"workers": {**INVENTORY.workers, SYNC4: entry}})
    assert _drift(_with(SYNC4, sighting(OLD)), inventory=more).breaks == ("sync4 is new",)
    fewer = INVENTORY.model_copy(update={"workers": {SYNC1: entry, SYNC2: entry}})
    seen = replace(BEFORE, sightings={SYNC1: sighting(OLD), SYNC2: sighting(OLD)})
    assert _drift(seen, inventory=fewer).breaks == ("sync3 is no longer in the inventory",)


def test_changes_of_the_playbook_are_named() -> None:
    """Which keys, and what they were."""
    changed = Playbook.model_validate(
        PLAYBOOK.model_dump()
        | {
            "gates": [{"id": "cpu", "metric": "poll_cpu_s", "ratio_max": 2.5, "samples_min": 50}],
            "strategy": {"max_unavailable": {"sync": 2}, "ramp": {"weights": [50, 100]}, "drain_timeout_s": 30},
            "guards": [{"guard": "lock_queue", "max": 0}],
        }
    )
    assert _drift(BEFORE, changed).breaks == (
        "playbook: strategy.max_unavailable.sync is 2, not absent",
        "playbook: strategy.drain_timeout_s is 30, not 90",
        "playbook: strategy.ramp.weights is [50, 100], not [25, 50, 100]",
        "playbook: gates.cpu.ratio_max is 2.5, not 1.5",
        "playbook: guards.lock_queue is {guard: lock_queue, max: 0, deadline_s: 900}, not absent",
    )


def test_a_playbook_by_another_name_is_the_same() -> None:
    found = _drift(BEFORE, PLAYBOOK.model_copy(update={"name": "another"}))
    assert (found.breaks, found.bears) == ((), ("playbook: name is another, not drift",))


def test_without_a_playbook_the_plans_own_is_believed() -> None:
    assert _drift(BEFORE, None) == Drift(0.0)


@pytest.mark.parametrize(
    ("worker", "pool", "why"),
    [
        ({"url": "http://elsewhere"}, {}, "inventory: workers.sync2.url is another one"),
        ({"server": "other"}, {}, "inventory: workers.sync2.server is other, not absent"),
        ({}, {"routing": "hash"}, "inventory: pools.sync.routing is hash, not absent"),
    ],
)
def test_changes_of_the_inventory_are_named(worker: dict[str, str], pool: dict[str, str], why: str) -> None:
    entry, its_pool = INVENTORY.workers[SYNC2], INVENTORY.pools[PoolId("sync")]
    changed = INVENTORY.model_copy(
        update={
            "workers": {**INVENTORY.workers, SYNC2: entry.model_copy(update=worker)},
            "pools": {PoolId("sync"): its_pool.model_copy(update=pool)},
        }
    )
    assert _drift(BEFORE, inventory=changed).breaks == (why,)


def test_another_driver_is_borne() -> None:
    found = _drift(BEFORE, inventory=INVENTORY.model_copy(update={"metrics_driver": DriverSettings(driver="another")}))
    assert (found.breaks, len(found.bears)) == ((), 1)


def test_addresses_are_not_repeated_in_a_plan() -> None:
    assert "http://h" not in str(PLAN.basis)


def test_a_foreign_drain_that_ended_is_borne() -> None:
    drained = _with(SYNC3, sighting(OLD, drained_by="others"))
    plan = make_plan(TWO_OUT, INVENTORY, drained, NEW)
    assert _drift(drained, TWO_OUT, plan=plan) == Drift(0.0)
    found = _drift(BEFORE, TWO_OUT, plan=plan)
    assert (found.breaks, found.bears) == ((), ("sync3 is no longer drained by somebody else; the plan leaves it on what it runs",))


@pytest.mark.parametrize(
    ("playbook", "breaks", "bears"),
    [
        (PLAYBOOK, 1, 0),
        (TWO_OUT, 0, 1),
    ],
)
def test_a_foreign_drain_breaks_it_when_it_takes_the_last_room(playbook: Playbook, breaks: int, bears: int) -> None:
    """Of a worker that the plan leaves alone; one that it would restart always does."""
    runs_it = _with(SYNC3, sighting(NEW))
    plan = make_plan(playbook, INVENTORY, runs_it, NEW)
    found = _drift(_with(SYNC3, sighting(NEW, drained_by="others")), playbook, plan=plan)
    assert (len(found.breaks), len(found.bears)) == (breaks, bears)
    assert all("sync3 was drained by somebody else" in what for what in (*found.breaks, *found.bears))


def test_more_load_is_borne_while_there_is_room() -> None:
    even = replace(BEFORE, pools={PoolId("sync"): PoolSighting(0, 0.0, algorithm="leastconn")})
    plan = make_plan(PLAYBOOK, INVENTORY, replace(even, loads=_loads(0.2)), NEW)
    within = drift(plan, replace(even, loads=_loads(0.5)), INVENTORY, None)
    assert within.holds
    assert "there is more to do: sync2 would carry 75 % of a core while sync1 is out, not 30 %; that is within the playbook's capacity" in (
        within.bears
    )
    beyond = drift(plan, replace(even, loads=_loads(0.6)), INVENTORY, None)
    assert beyond.breaks[0] == "while sync1 is out, sync2 would use up to 90 % of its core, and 85 % is the most (capacity.utilisation_max)"


def test_nothing_that_is_not_understood_is_borne() -> None:
    """A difference that has no sentence of its own still breaks a plan."""
    found = drift(replace(PLAN, observation_digest="another"), BEFORE, INVENTORY, PLAYBOOK)
    assert found.breaks == ("what is seen of the homeserver is not what the plan was made from",)


@pytest.mark.parametrize(("age_s", "said"), [(0, "0 s"), (100, "100 s"), (600, "10 min"), (7200, "2 h"), (3 * 86400, "3 d"), (-5, "0 s")])
def test_a_plans_age_is_said(age_s: float, said: str) -> None:
    assert Drift(age_s).age == said
