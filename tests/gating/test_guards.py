"""What must hold before a worker goes out, and liveness, the gate that says little."""

import math

import pytest

from rollout.gating import liveness
from rollout.gating.guards import Broken, broken
from rollout.model.gate import GuardReading, Ruling
from rollout.model.plan import Guard

LOCKS = Guard("lock_queue", 2.0, 900.0)
FILES = Guard("files_used", 0.8, 900.0)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_guard_that_holds_is_not_broken(value: float) -> None:
    assert broken((LOCKS,), (GuardReading("lock_queue", value), GuardReading("files_used", 0.99))) == ()


@pytest.mark.parametrize(
    ("guard", "reading", "why"),
    [
        (LOCKS, GuardReading("lock_queue", 3.0), "3 database requests wait for a lock, and 2 may"),
        (LOCKS, GuardReading("lock_queue", 3.0, "pid 7"), "3 database requests wait for a lock, and 2 may (pid 7)"),
        (
            Guard("long_transaction_s", 60.0, 9.0),
            GuardReading("long_transaction_s", 61.0),
            "a transaction has been open for 61 s, and 60 s are allowed",
        ),
        (
            Guard("connections_used", 0.9, 9.0),
            GuardReading("connections_used", 0.95),
            "95 % of the database's connections are used, and 90 % may be",
        ),
        (FILES, GuardReading("files_used", 0.9), "90 % of a worker's file handles are used, and 80 % may be"),
        (Guard("moon", 1.0, 9.0), GuardReading("moon", 2.5), "moon is 2.5, and 1 is allowed"),
        (LOCKS, GuardReading("lock_queue", None, "connection refused"), "lock_queue could not be measured (connection refused)"),
        (LOCKS, GuardReading("lock_queue", None), "lock_queue could not be measured"),
        (LOCKS, GuardReading("lock_queue", math.nan), "lock_queue could not be measured"),
        (LOCKS, GuardReading("files_used", 0.1), "lock_queue could not be measured: nobody reads it"),
    ],
)
def test_guard_that_does_not_hold_says_why(guard: Guard, reading: GuardReading, why: str) -> None:
    """What can't be seen does not hold."""
    assert broken((guard,), (reading,)) == (Broken(guard.guard, why),)


def test_guards_are_told_in_their_order() -> None:
    readings = (GuardReading("files_used", 1.0), GuardReading("lock_queue", 9.0))
    assert [one.guard for one in broken((LOCKS, FILES), readings)] == ["lock_queue", "files_used"]


@pytest.mark.parametrize(
    ("healthy", "watched_s", "ruling"),
    [
        (None, 60.0, Ruling.UNMEASURABLE),
        (False, 60.0, Ruling.PENDING),
        (True, liveness.WATCH_S - 1, Ruling.PENDING),
        (True, liveness.WATCH_S, Ruling.PASS),
    ],
)
def test_liveness_needs_answers_for_a_while(healthy: bool | None, watched_s: float, ruling: Ruling) -> None:  # noqa: FBT001  (three values)
    assert liveness.rule(healthy=healthy, since_s=100.0, now_s=100.0 + watched_s).ruling is ruling


def test_liveness_says_that_it_says_little() -> None:
    verdict = liveness.rule(healthy=True, since_s=0.0, now_s=60.0)
    assert verdict.gate == liveness.GATE
    assert verdict.because.endswith("nothing more is known of this role (liveness only)")
