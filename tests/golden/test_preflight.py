"""
What is looked at before a rollout, as printed text: each case is a homeserver with other troubles.

After a change on purpose: `pytest tests/golden --update-golden`, and read the diff.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rollout.interfaces.preflight_text import preflight_text
from rollout.model.conditions import Connections, DatabaseConditions, FilesUsed, IndexBuild, LockWait, Room, Transaction
from rollout.model.gate import GuardReading
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Guard
from rollout.model.sighting import Observation, SchemaSighting
from rollout.planning.preflight import Check, Findings, Question, of_blockers, of_files, of_guards, of_metrics, of_workers
from rollout.planning.preflight_database import of_database
from rollout.planning.preflight_release import of_release
from tests.planning.homeserver import OLD, release, sighting

HERE = Path(__file__).parent / "preflight"
DRIVER = {"driver": "any"}
INVENTORY = Inventory.model_validate(
    {
        "homeserver": "example.org",
        "workers": {
            "main": {"role": "main", "pool": "main", "url": "http://h:8000", "metrics": "http://h:9000"},
            "sync1": {"role": "sync", "pool": "sync", "url": "http://h:8002", "metrics": "http://h:9002"},
            "sync2": {"role": "sync", "pool": "sync", "url": "http://h:8003", "metrics": "http://h:9003"},
        },
        "pools": {"sync": {"backend": "sync"}, "main": {"backend": "main"}},
        "workers_driver": DRIVER,
        "releases_driver": DRIVER,
        "traffic_driver": DRIVER,
        "database_driver": DRIVER,
        "ledger_driver": DRIVER,
    }
)
MAIN, SYNC1, SYNC2 = WorkerId("main"), WorkerId("sync1"), WorkerId("sync2")
NEW = replace(release("1.163.2", schema_version=94, schema_compat_version=84), deltas=("94/01_one.sql", "94/02_two.sql.postgres"))
CALM = Question(
    inventory=INVENTORY,
    guards=(Guard("lock_queue", 0.0, 900.0),),
    findings=Findings(
        observation=Observation(
            1000.0,
            {worker: sighting(OLD) for worker in INVENTORY.workers},
            releases={OLD.id: OLD},
            schema=SchemaSighting(94, 84, ("94/01_one.sql",)),
        ),
        files=dict.fromkeys(INVENTORY.workers, FilesUsed(120, 1024, 30.0, 0.0)),
        conditions=DatabaseConditions(
            server_version=180006,
            connections=Connections(used=40, max=100, reserved=3),
            transactions=(),
            waits=(),
            builds=(),
            invalid_indexes=(),
            background_updates=(),
        ),
        room=Room(20_000_000_000, 506_000_000, "2 × the environment that runs, 253 MB"),
        connections=dict.fromkeys(INVENTORY.workers, 10),
    ),
    to=NEW,
)
LOCKS = "12 database requests wait for a lock, and 0 may"


def _found(asked: Question, **changes: object) -> Question:
    return replace(asked, findings=replace(asked.findings, **changes))  # type: ignore[arg-type]


def _conditions(asked: Question, **changes: object) -> Question:
    return _found(asked, conditions=replace(asked.findings.conditions or DatabaseConditions(), **changes))  # type: ignore[arg-type]


def _calm() -> Question:
    return CALM


def _founding_incident() -> Question:
    """A long delete holds a table, everybody waits behind it, and the file handles of those who wait are running out."""
    asked = _conditions(
        CALM,
        transactions=(Transaction(4711, "psql", "active", 754.2, "DELETE FROM event_search WHERE room_id"),),
        waits=(
            LockWait(4712, "synapse", "event_search", "AccessExclusiveLock", (4711,), 612.0),
            *(LockWait(5000 + n, "synapse", "event_search", "RowExclusiveLock", (4711, 4712), 600.0 - n) for n in range(11)),
        ),
        connections=Connections(used=93, max=100, reserved=3),
    )
    files = {MAIN: FilesUsed(400, 1024, 60.0, 0.1), SYNC1: FilesUsed(700, 1024, 60.0, 1.5), SYNC2: FilesUsed(980, 1024, 60.0, 0.0)}
    observation = replace(CALM.findings.observation, guards=(GuardReading("lock_queue", 12.0),))
    return _found(asked, observation=observation, files=files, broken={"lock_queue": LOCKS})


def _old_release() -> Question:
    """From before several breaks, to a release that leaves no way back, on a PostgreSQL that it no longer knows."""
    ancient = release("1.68.0", schema_version=72, schema_compat_version=68)
    seen = replace(
        CALM.findings.observation,
        sightings={worker: sighting(ancient) for worker in INVENTORY.workers},
        releases={ancient.id: ancient},
        schema=SchemaSighting(72, 68, ()),
    )
    return _found(_conditions(CALM, server_version=120009), observation=seen, room=Room(300_000_000, 500_000_000, "at least 2 × Synapse's"))


def _unfinished() -> Question:
    """What the last upgrade has left to do, while a person has drained somebody and one worker has gone."""
    seen = CALM.findings.observation
    sightings = {MAIN: sighting(OLD), SYNC1: sighting(OLD, drained_by="others")}
    asked = _conditions(
        CALM,
        builds=(IndexBuild(321, "events", "events_new_idx", "building index: scanning table"),),
        invalid_indexes=("events_old_idx", "rooms_idx"),
        background_updates=tuple(f"update_{n}" for n in range(7)),
    )
    unmeasured = {SYNC2: "no connection: connection refused"}
    files = {MAIN: FilesUsed(120, 1024), SYNC1: FilesUsed(130, 1024)}
    observation = replace(seen, sightings=sightings, missing={SYNC2: "the process manager doesn't know it"})
    return _found(asked, observation=observation, unmeasured=unmeasured, files=files)


def _blind() -> Question:
    """Nothing can be read of the database, and nothing of the disk."""
    parts = ("connections", "transactions", "waits", "builds", "invalid_indexes", "background_updates", "server_version")
    conditions = DatabaseConditions(unread=dict.fromkeys(parts, "database: Connection refused"))
    observation = replace(CALM.findings.observation, schema=None)
    broken = {"lock_queue": "lock_queue could not be measured (database: Connection refused)"}
    return _found(CALM, conditions=conditions, observation=observation, broken=broken, room="the target can't be read: permission denied")


def _may_not_look() -> Question:
    """A role that may see its own connections alone, and a restart, which depends on these few things."""
    why, denied = "its role may not see others: GRANT pg_read_all_stats", "permission denied for table background_updates"
    unread = {**dict.fromkeys(("connections", "transactions", "builds"), why), "background_updates": denied}
    asked = _conditions(CALM, connections=None, transactions=None, builds=None, background_updates=None, unread=unread)
    return replace(asked, to=OLD)


CASES: dict[str, Callable[[], Question]] = {
    "calm": _calm,
    "founding_incident": _founding_incident,
    "old_release": _old_release,
    "unfinished": _unfinished,
    "blind": _blind,
    "may_not_look": _may_not_look,
}


def _checks(asked: Question) -> list[Check]:
    checks = [
        *of_workers(asked.inventory, asked.findings.observation),
        *of_metrics(asked),
        *of_files(asked),
        *of_guards(asked),
        *of_database(asked),
        *of_release(asked),
    ]
    blockers = "; ".join(check.why for check in checks if check.name == "sync2" and check.refuses)
    return [*checks, *of_blockers(blockers, checks)]


@pytest.mark.parametrize("case", CASES)
def test_printed_preflight(case: str, request: pytest.FixtureRequest) -> None:
    """What was looked at reads as it was last approved."""
    printed = preflight_text(_checks(CASES[case]()))
    golden = HERE / f"{case}.txt"
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(printed, encoding="utf-8")
    assert printed == golden.read_text(encoding="utf-8")


def test_every_text_has_its_case() -> None:
    assert sorted(path.stem for path in HERE.glob("*.txt")) == sorted(CASES)
