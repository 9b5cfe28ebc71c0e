"""What changed since a plan was saved."""

from dataclasses import replace

import pytest

from rollout.model.gate import Metric
from rollout.model.ids import GateId, PoolId, Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.playbook import GateEntry, Playbook
from rollout.model.sighting import Observation
from rollout.planning.digest import digest_of_playbook
from rollout.planning.drift import explain_stale
from rollout.planning.planner import make_plan
from tests.planning.homeserver import NEW, OLD, SCHEMA, sighting

DRIVER = DriverSettings(driver="any")
SYNC1, SYNC2, SYNC3 = (WorkerId(f"sync{number}") for number in (1, 2, 3))
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
PLAN = make_plan(PLAYBOOK, INVENTORY, BEFORE, NEW)


def _stale(now: Observation, playbook: Playbook = PLAYBOOK) -> tuple[str, ...]:
    return explain_stale(PLAN, now, digest_of_playbook(playbook))


def test_time_and_traffic_do_not_make_a_plan_stale() -> None:
    seen = sighting(OLD)
    assert seen.proxy is not None
    busier = replace(seen, proxy=replace(seen.proxy, sessions=900, requests=10**6, cuts=4))
    assert _stale(replace(BEFORE, taken_at_s=9e9, sightings=dict.fromkeys(INVENTORY.workers, busier))) == ()


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (replace(BEFORE, sightings={**BEFORE.sightings, SYNC2: sighting(NEW)}), f"sync2 runs {NEW.id} now, not {OLD.id}"),
        (replace(BEFORE, sightings={**BEFORE.sightings, SYNC2: sighting(OLD, drained_by="others")}), "sync2 was drained by somebody else"),
        (
            replace(BEFORE, sightings={**BEFORE.sightings, SYNC2: sighting(OLD, drained_by="us")}),
            "sync2 is out since an earlier rollout of ours",
        ),
        (replace(BEFORE, missing={SYNC3: "no route to host"}), "sync3 could not be seen: no route to host"),
        (
            replace(BEFORE, sightings={**BEFORE.sightings, SYNC1: replace(sighting(OLD), healthy=False)}),
            "sync1 is not healthy: it doesn't answer /health",
        ),
        (replace(BEFORE, sightings={**BEFORE.sightings, WorkerId("sync4"): sighting(OLD)}), "sync4 is new"),
        (replace(BEFORE, schema=replace(SCHEMA, version=95)), "the database's schema changed"),
    ],
)
def test_what_changed_is_said(now: Observation, why: str) -> None:
    assert _stale(now) == (why,)


def test_a_changed_playbook_is_said() -> None:
    assert _stale(BEFORE, PLAYBOOK.model_copy(update={"name": "another"})) == ("the playbook changed",)


def test_a_foreign_drain_that_ended_is_said() -> None:
    drained = replace(BEFORE, sightings={**BEFORE.sightings, SYNC3: sighting(OLD, drained_by="others")})
    playbook = PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"max_unavailable": {PoolId("sync"): 2}})})
    plan = make_plan(playbook, INVENTORY, drained, NEW)
    assert explain_stale(plan, drained, plan.playbook_digest) == ()
    assert explain_stale(plan, BEFORE, plan.playbook_digest) == ("sync3 is no longer drained by somebody else",)
