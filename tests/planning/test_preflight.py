"""Single rules of the preflight that no printed text shows clearly."""

from dataclasses import replace

import pytest

from rollout.gating.guards import broken
from rollout.model.conditions import Connections, DatabaseConditions, FilesUsed, LockWait, Transaction
from rollout.model.gate import GuardReading
from rollout.model.ids import PoolId, Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.plan import Guard
from rollout.model.playbook import GateEntry, Playbook, Strategy
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning.planner import make_plan
from rollout.planning.preflight import Check, Findings, Question, Result, of_blockers, of_files, of_guards, of_sudo, of_workers
from rollout.planning.preflight_database import of_database
from rollout.planning.preflight_release import of_release
from tests.planning.homeserver import OLD, SCHEMA, release, sighting

SYNC = PoolId("sync")
NEW = release("1.163.2", schema_version=94, schema_compat_version=84)
WORKERS = tuple(WorkerId(f"sync{n}") for n in range(1, 6))


def _inventory() -> Inventory:
    driver = DriverSettings(driver="any")
    return Inventory(
        homeserver="example.org",
        workers={worker: WorkerEntry(role=Role("sync"), pool=SYNC, url="http://h", metrics="http://m") for worker in WORKERS},
        pools={SYNC: PoolEntry(backend="sync")},
        workers_driver=driver,
        releases_driver=driver,
        traffic_driver=driver,
        ledger_driver=driver,
    )


def _seen(runs: Release = OLD) -> Observation:
    return Observation(1000.0, {worker: sighting(runs) for worker in WORKERS}, releases={runs.id: runs}, schema=SCHEMA)


def _asked(to: Release | None = NEW, runs: Release = OLD, guards: tuple[Guard, ...] = (), **conditions: object) -> Question:
    findings = Findings(
        observation=_seen(runs),
        conditions=DatabaseConditions(**conditions),  # type: ignore[arg-type]
        connections=dict.fromkeys(WORKERS, 10),
    )
    return Question(_inventory(), guards, findings, to)


def _results(checks: list[Check]) -> dict[str, Result]:
    return {check.name: check.result for check in checks}


@pytest.mark.parametrize(("used", "result"), [(77, Result.OK), (78, Result.NO)])
def test_workers_that_may_be_out_together_open_their_pools_together(used: int, result: Result) -> None:
    """Two of five at a time, with ten connections each: twenty must be free."""
    playbook = Playbook(name="wide", gates=(GateEntry.model_validate({"id": "cpu", "metric": "poll_cpu_s", "ratio_max": 1.5}),))
    playbook = playbook.model_copy(update={"strategy": Strategy(max_unavailable={SYNC: 2})})
    plan = make_plan(playbook, _inventory(), _seen(), NEW)
    asked = replace(_asked(connections=Connections(used, 100, 3)), plan=plan)
    assert _results(list(of_database(asked)))["connections"] is result


def test_a_pool_of_unknown_size_is_not_taken_for_a_small_one() -> None:
    asked = _asked(connections=Connections(0, 100, 3))
    asked = replace(asked, findings=replace(asked.findings, connections={}))
    assert _results(list(of_database(asked)))["connections"] is Result.UNKNOWN


@pytest.mark.parametrize(
    ("age_s", "guard_s", "migrates", "result"),
    [
        (100.0, None, True, Result.WARNING),
        (130.0, None, True, Result.NO),
        (130.0, None, False, Result.WARNING),
        (130.0, 300.0, True, Result.WARNING),
        (130.0, 60.0, False, Result.NO),
        (20.0, 10.0, False, Result.NO),
    ],
)
def test_how_long_a_transaction_may_be_open(age_s: float, guard_s: float | None, result: Result, *, migrates: bool) -> None:
    """Two minutes before a migration; whatever the playbook's guard says, before anything."""
    guards = () if guard_s is None else (Guard("long_transaction_s", guard_s, 900.0),)
    asked = _asked(NEW if migrates else OLD, guards=guards, transactions=(Transaction(1, "x", "active", age_s, ""),))
    assert _results(list(of_database(asked)))["long transaction"] is result


def test_who_has_waited_for_a_moment_is_no_queue() -> None:
    short = LockWait(2, "synapse", "events", "ShareLock", (1,), 0.4)
    assert _results(list(of_database(_asked(waits=(short,)))))["lock queues"] is Result.OK
    unknown = replace(short, age_s=None)
    assert _results(list(of_database(_asked(waits=(unknown,)))))["lock queue"] is Result.NO


def test_a_restart_depends_on_connections_alone() -> None:
    """What else can't be read of the database is a warning then, and a refusal for a migration."""
    denied = {"transactions": "denied", "background_updates": "denied too"}
    assert {check.result for check in of_database(_asked(OLD, unread=denied))} == {Result.WARNING}
    assert {check.result for check in of_database(_asked(NEW, unread=denied))} == {Result.UNKNOWN}
    assert {check.result for check in of_database(_asked(OLD, unread={"connections": "denied"}))} == {Result.UNKNOWN}


def test_a_version_without_numbers_is_unknown_and_refuses() -> None:
    asked = _asked(release("nightly"))
    assert _results(list(of_release(asked)))["hazards"] is Result.UNKNOWN


def test_a_downgrade_meets_what_breaks_replication_and_no_new_requirement() -> None:
    found = list(of_release(_asked(release("1.75.0"), release("1.90.0"))))
    assert [check.name for check in found if check.result is Result.NO] == ["hazard of 1.76.0"]
    assert "python" not in _results(found)


def test_what_is_full_soon_refuses_and_what_is_not_known_to_grow_does_not() -> None:
    files = {WORKERS[0]: FilesUsed(500, 1000, 60.0, 1.0), WORKERS[1]: FilesUsed(500, 1000, 2.0)}
    files |= dict.fromkeys(WORKERS[2:], FilesUsed(500, 1000, 60.0, 0.5))
    asked = _asked()
    checks = _results(list(of_files(replace(asked, findings=replace(asked.findings, files=files)))))
    assert checks == {"files of sync1": Result.NO}


@pytest.mark.parametrize(
    ("found", "results"),
    [(None, []), ((), [Result.OK]), (("sudo does not let a run b",) * 2, [Result.NO] * 2), ("no answer", [Result.UNKNOWN])],
)
def test_what_sudo_would_not_allow_refuses_and_so_does_what_it_does_not_say(
    found: tuple[str, ...] | str | None, results: list[Result]
) -> None:
    asked = _asked()
    assert [check.result for check in of_sudo(replace(asked, findings=replace(asked.findings, not_allowed=found)))] == results


def test_mixed_releases_are_told() -> None:
    older = release("1.161.0", schema_version=94, schema_compat_version=84)
    seen = _seen()
    seen = replace(seen, sightings={**seen.sightings, WORKERS[0]: sighting(older)}, releases={OLD.id: OLD, older.id: older})
    assert _results(list(of_workers(_inventory(), seen)))["releases"] is Result.WARNING


def test_what_was_said_of_a_worker_is_not_said_again_of_the_plan() -> None:
    told = [Check("sync1", Result.NO, "sync1 doesn't run")]
    assert [check.why for check in of_blockers("sync1 doesn't run\npool sync: nobody is left", told)] == ["pool sync: nobody is left"]
    assert [check.result for check in of_blockers("", told)] == [Result.OK]


@pytest.mark.parametrize("guard", ["files_projected", "reactor_tick_s", "replication_lag_s", "in_flight", "latency_p95_s", "error_ratio"])
@pytest.mark.parametrize(
    ("reading", "result", "why"),
    [
        ((None, "sync1: measured for 1 s", True), Result.OK, "is measured when the rollout has begun"),
        ((None, "sync1: its page doesn't tell"), Result.UNKNOWN, "(sync1: its page doesn't tell)"),
        ((None, "sync1: not measured lately"), Result.UNKNOWN, "(sync1: not measured lately)"),
        (None, Result.UNKNOWN, "could not be measured: nobody reads it"),
        ((0.5,), Result.OK, "at most 0.5"),
        ((0.6, "sync1"), Result.NO, "(sync1)"),
    ],
)
def test_what_measuring_on_will_not_tell_refuses(
    guard: str, reading: tuple[float | None, str, bool] | None, result: Result, why: str
) -> None:
    """A rollout that waits for it would wait in vain."""
    guards = (Guard(guard, 0.5, 900.0),)
    readings = () if reading is None else (GuardReading(guard, *reading),)
    asked = _asked(guards=guards)
    findings = replace(
        asked.findings,
        observation=replace(asked.findings.observation, guards=readings),
        broken={one.guard: one.why for one in broken(guards, readings)},
    )
    (check,) = of_guards(replace(asked, findings=findings))
    assert check.result is result
    assert check.why.endswith(why)
    assert "; it is measured" not in check.why
