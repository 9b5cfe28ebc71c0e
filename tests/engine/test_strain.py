"""How workers keep up: turns of the reactor that take long, and streams that one worker knows later than another."""

import pytest

from rollout.engine.strain import FRESH_S, REACTOR_TICK, REPLICATION_LAG, Strain
from rollout.gating.guards import broken
from rollout.homeservers.synapse.metrics import PREFIXES, TICK_EDGES_S, Counters, read_counters
from rollout.model.gate import GuardReading
from rollout.model.ids import WorkerId
from rollout.model.plan import Guard
from rollout.model.sample import Sample

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")


def _page(ticks: dict[float, float], started_at_s: float = 0.0, **positions: float) -> Counters:
    counts = tuple(ticks.get(edge, 0.0) for edge in (*TICK_EDGES_S, float("inf")))
    return Counters("1.163.2", started_at_s, ticks=counts if ticks else (), positions=positions)


def _read(strain: Strain, now_s: float, *workers: WorkerId) -> dict[str, GuardReading]:
    return {reading.guard: reading for reading in strain.guards(workers or (SYNC1,), now_s)}


def test_a_page_tells_turns_and_positions() -> None:
    """Lines as on a page of 1.163.2; a stream of which nothing has been heard since the start has no position yet."""
    tick = "python_twisted_reactor_tick_time_bucket"
    turns = [Sample(tick, {"le": str(edge)}, 100.0 + index) for index, edge in enumerate((*TICK_EDGES_S, "+Inf"))]
    stream = "synapse_storage_stream_current_position"
    known = [Sample(stream, {"stream_name": name, "server_name": "lab"}, value) for name, value in (("events", 1183.0), ("receipts", 0.0))]
    written = [Sample("synapse_build_info", {"version": "1.163.2"}, 1.0), Sample("process_start_time_seconds", {}, 5.0)]
    counters = read_counters([*turns, *known, *written])
    assert isinstance(counters, Counters)
    assert counters.ticks == (100.0,) + (1.0,) * len(TICK_EDGES_S)
    assert counters.positions == {"events": 1183.0}
    assert all(line.name.startswith(PREFIXES) for line in (*turns, *known))


def test_what_99_of_100_turns_keep_to_counts() -> None:
    """One in fifty takes up to half a second; on the average that would be six milliseconds."""
    strain = Strain()
    strain.record(SYNC1, 0.0, _page({0.001: 5000.0}))
    strain.record(SYNC1, 30.0, _page({0.001: 5980.0, 0.5: 20.0}))
    reading = _read(strain, 31.0)[REACTOR_TICK]
    assert reading.value == pytest.approx(0.2 + 0.3 / 2)
    assert reading.detail == "sync1, in 30 s"


def test_a_reactor_that_stands_still_is_not_measured() -> None:
    strain = Strain()
    strain.record(SYNC1, 0.0, _page({0.001: 5000.0}))
    assert _read(strain, 1.0)[REACTOR_TICK] == GuardReading(REACTOR_TICK, None, "sync1: measured for 0 s, and 10 s are needed", short=True)
    strain.record(SYNC1, 20.0, _page({0.001: 5000.0}))
    assert _read(strain, 21.0)[REACTOR_TICK] == GuardReading(REACTOR_TICK, None, "sync1: its reactor has not turned for 20 s")


def test_a_restart_begins_anew() -> None:
    strain = Strain()
    strain.record(SYNC1, 0.0, _page({0.5: 5000.0}))
    strain.record(SYNC1, 20.0, _page({0.001: 10.0}, started_at_s=15.0))
    assert _read(strain, 21.0)[REACTOR_TICK].value is None
    strain.record(SYNC1, 35.0, _page({0.001: 110.0}, started_at_s=15.0))
    assert _read(strain, 36.0)[REACTOR_TICK].value == pytest.approx(0.00099)


def test_who_has_not_heard_what_another_knew_before_is_late() -> None:
    """Pages of two workers are of two moments: what sync2 knows now sync1 may know in a second, so positions aren't subtracted."""
    strain = Strain()
    strain.record(SYNC1, -10.0, _page({}, events=100.0))
    strain.record(SYNC2, -9.0, _page({}, events=101.0))
    strain.record(SYNC1, 0.0, _page({}, events=101.0))
    strain.record(SYNC2, 1.0, _page({}, events=102.0))
    assert _read(strain, 2.0, SYNC1, SYNC2)[REPLICATION_LAG].value == 0.0
    strain.record(SYNC1, 6.0, _page({}, events=102.0))
    strain.record(SYNC2, 7.0, _page({}, events=150.0))
    assert _read(strain, 8.0, SYNC1, SYNC2)[REPLICATION_LAG].value == 0.0
    strain.record(SYNC1, 27.0, _page({}, events=149.0))
    assert _read(strain, 28.0, SYNC1, SYNC2)[REPLICATION_LAG] == GuardReading(REPLICATION_LAG, 20.0, "sync1, stream events")
    strain.record(SYNC1, 32.0, _page({}, events=150.0))
    assert _read(strain, 33.0, SYNC1, SYNC2)[REPLICATION_LAG].value == 0.0


def test_who_hears_nothing_any_more_gets_later_and_later() -> None:
    """For longer than pages are kept, too; and one that comes nearer without having heard what is kept is no less late."""
    strain = Strain()
    late: dict[int, float | None] = {}
    for at in range(0, 601, 10):
        strain.record(SYNC2, float(at), _page({}, events=100.0 + at))
        strain.record(SYNC1, float(at), _page({}, events=100.0 if at < 300 else 105.0))
        late[at] = _read(strain, at + 1.0, SYNC1, SYNC2)[REPLICATION_LAG].value
    assert [late[at] for at in (10, 60, 130, 290, 300, 600)] == [0.0, 50.0, 120.0, 280.0, 290.0, 590.0]
    strain.record(SYNC1, 605.0, _page({}, events=695.0))
    assert _read(strain, 606.0, SYNC1, SYNC2)[REPLICATION_LAG].value == 5.0


def test_what_comes_after_a_long_silence_is_late_from_then_on() -> None:
    """Nobody was late while nobody knew more."""
    strain = Strain()
    for at in range(0, 301, 10):
        strain.record(SYNC1, float(at), _page({}, events=100.0))
        strain.record(SYNC2, float(at), _page({}, events=100.0 if at < 270 else 100.0 + at))
    assert _read(strain, 301.0, SYNC1, SYNC2)[REPLICATION_LAG].value == 30.0


@pytest.mark.parametrize("order", [(SYNC1, SYNC2), (SYNC2, SYNC1)])
def test_who_was_behind_before_it_was_measured_is_unknown_until_it_has_caught_up(order: tuple[WorkerId, ...]) -> None:
    """Since when isn't known, whosoever was looked at first, and however long it goes on."""
    strain = Strain()
    detail = ""
    for at in range(0, 301, 5):
        for worker in order:
            strain.record(worker, float(at), _page({}, events=50_000.0 + at if worker == SYNC1 else 10.0 + at))
        reading = _read(strain, at + 1.0, SYNC1, SYNC2)[REPLICATION_LAG]
        assert (reading.value, reading.short) == (None, at < 10)
        detail = reading.detail
    assert detail == "sync2: behind in stream events since before it was measured"
    strain.record(SYNC2, 303.0, _page({}, events=50_300.0))
    assert _read(strain, 304.0, SYNC1, SYNC2)[REPLICATION_LAG].value == 0.0


def test_who_is_behind_a_newcomer_is_not_said_to_keep_up() -> None:
    """Its last page is of before anybody knew better."""
    strain = Strain()
    for at in (0.0, 10.0, 20.0):
        strain.record(SYNC2, at, _page({}, events=10.0))
    for at in (21.0, 32.0):
        strain.record(SYNC1, at, _page({}, events=50_000.0))
    assert _read(strain, 33.0, SYNC1, SYNC2)[REPLICATION_LAG].value is None


def test_nobody_keeps_up_before_that_was_measured_for_a_while() -> None:
    strain = Strain()
    for at in (0.0, 9.0):
        strain.record(SYNC1, at, _page({}, events=100.0))
    short = GuardReading(REPLICATION_LAG, None, "sync1: measured for 9 s, and 10 s are needed", short=True)
    assert _read(strain, 9.0)[REPLICATION_LAG] == short
    strain.record(SYNC1, 10.0, _page({}, events=100.0))
    assert _read(strain, 10.0)[REPLICATION_LAG] == GuardReading(REPLICATION_LAG, 0.0, "sync1")


def test_what_measuring_on_does_not_mend_is_said_first() -> None:
    strain = Strain()
    strain.record(SYNC1, 0.0, _page({0.001: 10.0}, events=100.0))
    strain.record(SYNC2, 0.0, _page({}, events=100.0))
    assert _read(strain, 1.0, SYNC1, SYNC2)[REACTOR_TICK] == GuardReading(REACTOR_TICK, None, "sync2: its page doesn't tell")
    assert _read(strain, 1.0, SYNC1)[REACTOR_TICK].short


def test_unknown_of_one_is_unknown() -> None:
    """Old, never seen, or on a page that doesn't tell; and where no page tells, nobody claims to have looked."""
    strain = Strain()
    assert strain.guards([SYNC1], 0.0) == ()
    strain.record(SYNC1, 0.0, "it was answered 500")
    strain.record(SYNC1, 0.0, _page({}))
    assert strain.guards([SYNC1], 0.0) == ()
    strain.record(SYNC1, 0.0, _page({0.001: 10.0}, events=100.0))
    assert _read(strain, 1.0, SYNC1, SYNC2)[REPLICATION_LAG].detail == "sync2: not measured lately"
    strain.record(SYNC2, 0.0, _page({0.001: 10.0}))
    assert _read(strain, 1.0, SYNC1, SYNC2)[REPLICATION_LAG].detail == "sync2: its page doesn't tell"
    late = _read(strain, FRESH_S + 1.0, SYNC1)
    assert {reading.value for reading in late.values()} == {None}


def test_what_is_not_known_does_not_hold() -> None:
    guards = (Guard(REACTOR_TICK, 0.5, 60.0), Guard(REPLICATION_LAG, 10.0, 60.0))
    said = [one.why for one in broken(guards, ())]
    assert said == ["reactor_tick_s could not be measured: nobody reads it", "replication_lag_s could not be measured: nobody reads it"]
    slow = (GuardReading(REACTOR_TICK, 0.75, "sync1, in 30 s"), GuardReading(REPLICATION_LAG, 42.0, "sync1, stream events"))
    assert [one.why for one in broken(guards, slow)] == [
        "what comes to a worker waits for up to 0.75 s until its turn, and 0.5 s are allowed (sync1, in 30 s)",
        "a worker has not heard for 42 s what others have, and 10 s are allowed (sync1, stream events)",
    ]
    assert broken(guards, (GuardReading(REACTOR_TICK, 0.5), GuardReading(REPLICATION_LAG, 0.0))) == ()
