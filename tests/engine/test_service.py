"""How users are served: what is under way at one worker, and how long requests take and how many fail at all of them."""

from dataclasses import replace

import pytest

from rollout.engine.service import ERRORS, FRESH_S, IN_FLIGHT, LATENCY, SAMPLES_MIN, Service
from rollout.gating.guards import broken
from rollout.homeservers.synapse.metrics import PREFIXES, Counters, read_counters
from rollout.model.gate import GUARDS_OF_PAGES, LATENCY_EDGES_S, GuardReading
from rollout.model.ids import WorkerId
from rollout.model.plan import Guard
from rollout.model.sample import Sample
from tests.homeservers.pages import counters, samples

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
FAST, SLOW = 0.05, 2.5


def _page(fast: float, slow: float = 0.0, errors: float = 0.0, in_flight: float | None = 0.0, started_at_s: float = -1.0) -> Counters:
    latency = [0.0] * (len(LATENCY_EDGES_S) + 1)
    latency[LATENCY_EDGES_S.index(FAST)], latency[LATENCY_EDGES_S.index(SLOW)] = fast, slow
    return Counters("1.163.2", started_at_s, requests=fast + slow, errors=errors, latency=tuple(latency), in_flight=in_flight)


def _read(service: Service, now_s: float, *workers: WorkerId) -> dict[str, GuardReading]:
    return {reading.guard: reading for reading in service.guards(workers or (SYNC1,), now_s)}


def test_a_page_tells_what_is_under_way() -> None:
    """All servlets but long-polls, health checks and our own canaries, whatever the method; lines as on a page of 1.163.2."""
    many = {"SyncRestServlet": 40, "RoomSendEventRestServlet": 7, "ReplicationSendEventsRestServlet": 5, "MetricsResource": 1}
    lines = [
        Sample("synapse_http_server_in_flight_requests_count", {"method": method, "servlet": servlet, "server_name": "lab"}, count)
        for method in ("GET", "POST")
        for servlet, count in many.items()
    ]
    seen = read_counters((*samples("client"), *lines))
    assert isinstance(seen, Counters)
    assert seen.in_flight == 2 * (7 + 5)
    assert counters("client").in_flight is None
    assert all(line.name.startswith(PREFIXES) for line in lines)


def test_the_worker_with_most_under_way_counts() -> None:
    service = Service()
    service.record(SYNC1, 0.0, _page(0.0, in_flight=3.0))
    service.record(SYNC2, 0.0, _page(0.0, in_flight=2000.0))
    assert _read(service, 1.0, SYNC1, SYNC2)[IN_FLIGHT] == GuardReading(IN_FLIGHT, 2000.0, "sync2")
    service.record(SYNC2, 5.0, _page(0.0, in_flight=None))
    assert _read(service, 6.0, SYNC1, SYNC2)[IN_FLIGHT] == GuardReading(IN_FLIGHT, 3.0, "sync1")


def test_as_long_as_no_page_shows_a_request_none_under_way_is_not_believed() -> None:
    """There is no line of none, and none of a name that has changed. A long-poll is a line."""
    service = Service()
    service.record(SYNC1, 0.0, _page(100.0, in_flight=None))
    service.record(SYNC1, 60.0, _page(200.0, in_flight=None))
    unknown = GuardReading(IN_FLIGHT, None, "no page has shown a request under way yet", short=True)
    assert _read(service, 61.0)[IN_FLIGHT] == unknown
    service.record(SYNC2, 61.0, _page(0.0, in_flight=0.0))
    assert _read(service, 62.0)[IN_FLIGHT].value == 0.0


def test_all_workers_together_are_judged_by_the_last_minute() -> None:
    """Of 1,000 requests of both in it 60 are slow, and 30 failed; what was before doesn't count."""
    service = Service()
    for worker in (SYNC1, SYNC2):
        service.record(worker, 0.0, _page(0.0))
        service.record(worker, 100.0, _page(0.0, 5000.0, errors=4000.0))
    service.record(SYNC1, 160.0, _page(440.0, 5060.0, errors=4030.0))
    service.record(SYNC2, 160.0, _page(500.0, 5000.0, errors=4000.0))
    told = _read(service, 160.0, SYNC1, SYNC2)
    assert told[ERRORS] == GuardReading(ERRORS, 0.03, "of 1000 in 60 s")
    # 940 took 0.05 s at most; of the 60 between one second and two and a half the tenth is the 950th.
    assert told[LATENCY].value == pytest.approx(1.0 + 1.5 * 10 / 60)
    assert told[LATENCY].detail == "of 1000 in 60 s"


def test_where_few_ask_it_is_judged_by_up_to_ten_minutes() -> None:
    """One a second for two minutes, then one every ten: a minute of those says nothing. Where ten say nothing either, nothing is known."""
    service = Service()
    requests, told = 0.0, _read(service, 0.0)
    for at in range(0, 2000, 10):
        requests += 10.0 if at <= 120 else 1.0 if at < 1300 else 0.1
        service.record(SYNC1, float(at), _page(requests))
        told = _read(service, float(at))
        if at == 120:
            assert told[ERRORS].detail == "of 60 in 60 s"
        if at == 1200:
            assert told[ERRORS] == GuardReading(ERRORS, 0.0, "of 60 in 600 s")
            assert told[LATENCY].value is not None
    many = GuardReading(ERRORS, None, f"6 of the {SAMPLES_MIN} requests that are needed within 10 min", short=True)
    assert told[ERRORS] == many
    assert (told[LATENCY].value, told[LATENCY].short) == (None, True)


def test_a_long_poll_is_a_request_that_may_fail_and_none_that_takes_long() -> None:
    service = Service()
    service.record(SYNC1, 0.0, _page(0.0))
    service.record(SYNC1, 20.0, replace(_page(0.0, errors=30.0), polls=100.0))
    told = _read(service, 20.0)
    assert told[ERRORS].value == 0.3
    assert told[LATENCY].detail == f"0 of the {SAMPLES_MIN} requests that are no long-polls that are needed within 10 min"


def test_what_takes_longer_than_can_be_told_is_beyond_every_limit_that_may_be_set() -> None:
    service = Service()
    service.record(SYNC1, 0.0, _page(0.0))
    beyond = (*(0.0,) * len(LATENCY_EDGES_S), 100.0)
    service.record(SYNC1, 20.0, replace(_page(0.0), requests=100.0, latency=beyond))
    assert _read(service, 20.0)[LATENCY] == GuardReading(LATENCY, 10.0, "of 100 in 60 s, 10 s or more")


def test_a_restart_in_between_loses_nothing() -> None:
    """The new process counts from nothing, and what it did counts; one that began before, as it says, is not understood."""
    service = Service()
    service.record(SYNC1, 0.0, _page(1000.0))
    service.record(SYNC1, 20.0, _page(1100.0, errors=10.0))
    service.record(SYNC1, 40.0, _page(90.0, errors=90.0, started_at_s=30.0))
    assert _read(service, 40.0)[ERRORS] == GuardReading(ERRORS, 100 / 190, "of 190 in 60 s")
    service.record(SYNC1, 50.0, _page(900.0, started_at_s=5.0))
    assert _read(service, 50.0)[ERRORS] == GuardReading(ERRORS, None, "sync1: measured for 0 s, and 10 s are needed", short=True)


def test_a_counter_that_went_back_begins_anew() -> None:
    service = Service()
    service.record(SYNC1, 0.0, _page(1000.0))
    service.record(SYNC1, 20.0, _page(100.0, errors=50.0))
    assert _read(service, 20.0)[ERRORS].short
    service.record(SYNC1, 40.0, _page(200.0, errors=50.0))
    assert _read(service, 40.0)[ERRORS] == GuardReading(ERRORS, 0.0, "of 100 in 60 s")


def test_a_page_that_is_read_again_adds_nothing_and_a_clock_that_was_set_back_does_no_harm() -> None:
    """A Prometheus has the same page until its next scrape."""
    service = Service()
    for at in (1000.0, 1020.0, 1020.0, 100.0, 120.0):
        service.record(SYNC1, at, _page(at, errors=0.0) if at > 500 else _page(2000.0 + at, errors=at))
    assert _read(service, 120.0)[ERRORS] == GuardReading(ERRORS, None, "20 of the 50 requests that are needed within 10 min", short=True)


def test_unknown_of_one_is_unknown() -> None:
    """Old, never seen, or a page that can't be read: what the others do says nothing of it."""
    service = Service()
    assert {one.detail for one in service.guards([], 0.0)} == {"not measured yet"}
    for at in (0.0, 20.0):
        service.record(SYNC1, at, _page(100.0 * at))
    assert all(one.value is not None for one in service.guards([SYNC1], 20.0))
    lacking = service.guards([SYNC1, SYNC2], 20.0)
    assert {(one.value, one.detail, one.short) for one in lacking} == {(None, "sync2: not measured lately", False)}
    assert {one.value for one in service.guards([SYNC1], 21.0 + FRESH_S)} == {None}
    service.record(SYNC1, 25.0, "it was answered 500")
    assert {(one.value, one.detail) for one in service.guards([SYNC1], 26.0)} == {(None, "sync1: it was answered 500")}


def test_a_recorded_page_is_told_as_it_is() -> None:
    """61 requests of users, 3 of which took longer than a quarter of a second; none was under way."""
    service = Service()
    page = counters("client")
    service.record(SYNC1, page.started_at_s - 20.0, _page(5000.0, started_at_s=0.0))
    service.record(SYNC1, page.started_at_s + 20.0, page)
    told = _read(service, page.started_at_s + 20.0)
    assert told[LATENCY].value == pytest.approx(0.1 + 0.15 * (0.95 * 61 - 51) / 7)
    assert told[ERRORS] == GuardReading(ERRORS, 0.0, "of 62 in 60 s")
    assert told[IN_FLIGHT].value == 0.0


def test_what_is_beyond_is_said_and_what_is_not_known_does_not_hold() -> None:
    guards = (Guard(IN_FLIGHT, 500, 60.0), Guard(LATENCY, 5.0, 60.0), Guard(ERRORS, 0.1, 60.0))
    assert {guard.guard for guard in guards} <= GUARDS_OF_PAGES
    assert [one.why for one in broken(guards, ())] == [f"{guard.guard} could not be measured: nobody reads it" for guard in guards]
    bad = (
        GuardReading(IN_FLIGHT, 2000.0, "sync1"),
        GuardReading(LATENCY, 7.25, "of 900 in 60 s"),
        GuardReading(ERRORS, 0.125, "of 900 in 60 s"),
    )
    assert [one.why for one in broken(guards, bad)] == [
        "2000 requests are under way at one worker, and 500 may be (sync1)",
        "95 of 100 requests take up to 7.2 s, and 5 s are allowed (of 900 in 60 s)",
        "12.5 % of all requests end in 5xx, and 10 % may (of 900 in 60 s)",
    ]
    good = (GuardReading(IN_FLIGHT, 500.0), GuardReading(LATENCY, 5.0), GuardReading(ERRORS, 0.1))
    assert broken(guards, good) == ()
