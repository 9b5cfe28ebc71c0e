"""What a stretch of time holds of finished requests."""

from dataclasses import replace
from pathlib import Path

import pytest

from rollout.lab.load.records import Outcome, Record, open_long_polls, outcome_of, percentile_ms, read, window, write

OK = Record(10.0, 10.5, "send", "client", "@ann", Outcome.OK)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.OK),
        (302, Outcome.OK),
        (401, Outcome.CLIENT_ERROR),
        (429, Outcome.CLIENT_ERROR),
        (500, Outcome.RELEASE_ERROR),
        (501, Outcome.RELEASE_ERROR),
        (502, Outcome.CUT),
        (503, Outcome.CUT),
        (504, Outcome.CUT),
    ],
)
def test_only_what_a_proxy_says_in_place_of_a_server_is_cut(status: int, outcome: Outcome) -> None:
    assert outcome_of(status) is outcome


def test_a_window_holds_what_ended_in_it() -> None:
    """It begins with its first moment and ends before its last, so that two in a row count nothing twice."""
    records = [replace(OK, ended_s=ended_s) for ended_s in (9.9, 10.0, 10.5, 11.0)]
    assert window(records, 10.0, 11.0).requests == 2
    assert window(records).requests == 4


def test_a_window_can_be_of_some_pools() -> None:
    records = [OK, replace(OK, pool="sync"), replace(OK, pool="main", outcome=Outcome.CUT)]
    assert window(records, pools=("sync", "client")).requests == 2
    assert window(records, pools=("sync", "client")).cut == 0
    assert window(records).cut == 1


def test_each_outcome_is_counted_as_itself() -> None:
    records = [replace(OK, outcome=outcome) for outcome in Outcome for _ in range(2 if outcome is Outcome.CUT else 1)]
    seen = window(records)
    assert (seen.cut, seen.release_errors, seen.client_errors) == (2, 1, 1)


def test_a_long_poll_that_the_load_itself_ended_is_no_request() -> None:
    assert window([OK, replace(OK, kind="sync", outcome=Outcome.ENDED)]).requests == 1


def test_latencies_are_of_answered_requests_alone() -> None:
    """A cut one ended when it was cut, which says nothing of how fast the homeserver is; nor does a long-poll."""
    records = [
        OK,
        replace(OK, ended_s=99.0, outcome=Outcome.CUT),
        replace(OK, ended_s=40.0, kind="sync"),
        replace(OK, ended_s=40.0, kind="sliding_sync"),
        replace(OK, ended_s=12.0, kind="sync_initial"),
    ]
    seen = window(records)
    assert seen.other_p99_ms == 500.0
    assert seen.sync_initial_p99_ms == 2000.0


def test_a_percentile_is_the_nearest_rank() -> None:
    records = [replace(OK, ended_s=10.0 + number / 100) for number in range(100, 0, -1)]
    assert percentile_ms(records, 0.99) == 990.0
    assert percentile_ms(records, 0.5) == 500.0
    assert percentile_ms(records[-1:], 0.99) == 10.0
    assert percentile_ms([], 0.99) is None


def test_open_long_polls_are_those_of_the_pool_at_that_moment() -> None:
    poll = replace(OK, began_s=10.0, ended_s=40.0, kind="sync", pool="sync")
    records = [poll, replace(poll, outcome=Outcome.ENDED), replace(poll, ended_s=20.0), replace(poll, pool="client"), OK]
    assert open_long_polls(records, "sync", 20.0) == 2
    assert open_long_polls(records, "sync", 19.9) == 3
    assert open_long_polls(records, "sync", 9.9) == 0


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    records = [OK, replace(OK, outcome=Outcome.CUT, why="ServerDisconnectedError: “gone”")]
    write(records, tmp_path / "records.jsonl.gz")
    assert read(tmp_path / "records.jsonl.gz") == records
