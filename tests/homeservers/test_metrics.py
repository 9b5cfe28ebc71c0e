"""Real pages of Synapse as counters, and what can't be believed."""

import math
from dataclasses import replace

import pytest

from rollout.homeservers.synapse.metrics import PREFIXES, Counters, read_counters, read_version, tally
from rollout.model.gate import PUSHES_FROM_S, Stratum, Tally
from rollout.model.sample import Sample
from tests.homeservers.pages import counters, samples

BEFORE = Counters("1.163.2", 50.0, requests=10.0, polls=4.0, poll_cpu_s=0.5, work=7.0)


def test_client_page_leaves_health_checks_and_our_canaries_out() -> None:
    """Of 211 completed requests 119 were health checks, 30 our canaries and one a long-poll: 61 were users'."""
    seen = counters("client")
    assert (seen.requests, sum(seen.latency), seen.polls, seen.errors) == (61, 61, 1, 0)
    assert list(seen.latency) == [5, 24, 1, 12, 8, 1, 7, 2, 1, 0, 0, 0, 0, 0, 0]
    assert (seen.version, seen.open_files, seen.files_max) == ("1.163.2", 31, 20_000)


@pytest.mark.parametrize("page", ["sync", "sync_1_162"])
def test_sync_page_counts_long_polls_and_what_they_cost(page: str) -> None:
    """Their duration is nowhere, their 5xx count, and both releases write the same names."""
    seen = counters(page)
    assert (seen.requests, sum(seen.latency), seen.polls, seen.errors) == (0, 0, 33, 1)
    assert 0.23 < seen.poll_cpu_s < 0.27
    assert 0.16 < seen.poll_db_s < 0.17
    assert 0 < seen.poll_scheduling_s < 0.2


@pytest.mark.parametrize(("page", "work", "backlog"), [("event_persister", 78, 0.0), ("federation_sender", 78, 0.0), ("client", 0, None)])
def test_work_and_backlog_are_those_of_the_role(page: str, work: float, backlog: float | None) -> None:
    """78 events were persisted, and the sender looked through all of them, though none had to be sent."""
    seen = counters(page)
    assert (seen.work, seen.backlog) == (work, backlog)


def test_main_page() -> None:
    seen = counters("main")
    assert (seen.requests, seen.errors, seen.polls) == (20, 0, 0)


def test_requests_under_way_at_an_event_persister_are_its_backlog() -> None:
    under_way = Sample(
        "synapse_http_server_in_flight_requests_count", {"method": "POST", "servlet": "ReplicationSendEventsRestServlet"}, 12
    )
    elsewhere = Sample("synapse_http_server_in_flight_requests_count", {"method": "GET", "servlet": "SyncRestServlet"}, 40)
    seen = read_counters((*samples("event_persister"), under_way, elsewhere))
    assert isinstance(seen, Counters)
    assert seen.backlog == 12


def test_worker_that_has_served_nothing_shows_zero() -> None:
    """Synapse makes the histogram with the first request; until then its absence is the truth."""
    seen = read_counters([sample for sample in samples("client") if not sample.name.startswith("synapse_http")])
    assert isinstance(seen, Counters)
    assert (seen.requests, seen.polls, seen.errors) == (0, 0, 0)


@pytest.mark.parametrize(
    ("page", "without", "sentence"),
    [
        ("client", "synapse_build_info", "the page has no synapse_build_info"),
        ("client", "process_start_time_seconds", "the page has no process_start_time_seconds"),
        (
            "client",
            "synapse_http_server_response_time_seconds_bucket",
            "synapse_http_server_response_time_seconds has other buckets than are known",
        ),
        (
            "sync",
            "synapse_http_server_response_ru_utime_seconds_total",
            "long-polls were served, but the page has no synapse_http_server_response_ru_utime_seconds_total of them",
        ),
        (
            "sync",
            "synapse_http_server_response_db_sched_duration_seconds_total",
            "long-polls were served, but the page has no synapse_http_server_response_db_sched_duration_seconds_total of them",
        ),
    ],
)
def test_page_that_lacks_what_it_must_have_is_a_sentence(page: str, without: str, sentence: str) -> None:
    """Never zero: a release that renamed a family would look idle, or cheap."""
    assert read_counters([sample for sample in samples(page) if sample.name != without]) == sentence


def test_sender_without_its_queue_is_a_sentence() -> None:
    sent = Sample("synapse_federation_client_sent_transactions_total", {}, 3.0)
    lacking = [sample for sample in samples("federation_sender") if "pending_pdus" not in sample.name]
    assert (
        read_counters([*lacking, sent]) == "transactions were sent, but the page has no synapse_federation_transaction_queue_pending_pdus"
    )


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf])
@pytest.mark.parametrize("name", sorted({sample.name for sample in samples("sync")}))
def test_value_that_can_not_be_is_a_sentence(name: str, value: float) -> None:
    """In whatever line: nothing of that page is used."""
    spoilt = [replace(sample, value=value) if sample.name == name else sample for sample in samples("sync")]
    assert read_counters(spoilt) == f"{name} is {value}"


def test_buckets_that_do_not_add_up_are_a_sentence() -> None:
    name = "synapse_http_server_response_time_seconds_bucket"
    spoilt = [
        replace(sample, value=0.0) if sample.name == name and sample.labels["le"] == "0.5" else sample for sample in samples("client")
    ]
    assert read_counters(spoilt) == "the buckets of synapse_http_server_response_time_seconds don't add up"


def test_bucket_without_a_number_is_a_sentence() -> None:
    odd = Sample("synapse_http_server_response_time_seconds_bucket", {"servlet": "A", "le": "wide"}, 1.0)
    assert read_counters([*samples("client"), odd]) == "synapse_http_server_response_time_seconds_bucket has a bucket up to 'wide'"


def test_version_is_what_the_process_says() -> None:
    assert read_version(samples("sync_1_162")) == "1.162.0"
    assert read_version([]) is None


def test_only_what_is_read_is_asked_for() -> None:
    """A whole page has 1,300 to 2,100 lines; scraping them all would cost the small machine that is being watched."""
    assert len(samples("sync")) < 120
    assert all(
        any(sample.name.startswith(prefix) for sample in samples("client")) for prefix in PREFIXES if "http_server_response" in prefix
    )


def test_tally_is_the_difference_of_two_real_pages() -> None:
    done = tally(counters("sync_before"), counters("sync"), 100.0, 105.0)
    assert isinstance(done, Tally)
    assert (done.since_s, done.until_s, done.requests, done.errors, done.polls) == (100, 105, 0, 1, 32)
    assert done.poll_cpu_s == pytest.approx(0.26, abs=0.005)


def test_pushes_that_are_not_taken_are_no_work() -> None:
    lines = {"synapse_http_httppusher_http_pushes_processed_total": 5.0, "synapse_http_httppusher_http_pushes_failed_total": 3.0}
    seen = read_counters((*samples("main"), *(Sample(name, {"server_name": "lab.localhost"}, value) for name, value in lines.items())))
    assert isinstance(seen, Counters)
    assert (seen.pushes_taken, seen.push_failures, seen.work - counters("main").work) == (5.0, 3.0, 5.0)


@pytest.mark.parametrize(("until_s", "told"), [(50.0 + PUSHES_FROM_S + 5.0, (8.0, 3.0)), (50.0 + PUSHES_FROM_S + 4.0, (0.0, 0.0))])
def test_pushes_count_once_gateways_that_are_away_are_tried_seldom(until_s: float, told: tuple[float, float]) -> None:
    """Whether they failed or not, or a share of nothing but failures would be left. As work they count from the start."""
    before = replace(BEFORE, pushes_taken=7.0, push_failures=20.0)
    later = replace(before, work=12.0, pushes_taken=12.0, push_failures=23.0)
    done = tally(before, later, until_s - 5.0, until_s)
    assert isinstance(done, Tally)
    assert (done.pushes, done.push_failures) == told
    assert done.work == 5


def test_process_that_began_in_between_counts_from_zero() -> None:
    after = Counters("1.163.2", 103.0, requests=3.0, polls=1.0, backlog=2.0)
    assert tally(BEFORE, after, 100.0, 105.0) == Tally(100.0, 105.0, requests=3.0, polls=1.0, backlog=2.0)


@pytest.mark.parametrize("later", [Counters("1.163.2", 60.0, requests=3.0), replace(BEFORE, polls=3.0), replace(BEFORE, poll_cpu_s=0.4)])
def test_reset_without_a_start_in_between_is_a_sentence(later: Counters) -> None:
    """Another process that began earlier, or counters that went back in the same one: what was done meanwhile can't be known."""
    assert tally(BEFORE, later, 100.0, 105.0) == "its counters began anew, but its process did not start between the two measurements"


def test_pages_out_of_order_are_a_sentence() -> None:
    assert tally(BEFORE, BEFORE, 105.0, 105.0) == "its two metrics pages were not read one after the other"


def test_last_digits_of_a_sum_are_no_reset() -> None:
    done = tally(BEFORE, replace(BEFORE, poll_cpu_s=0.5 - 1e-12), 100.0, 105.0)
    assert isinstance(done, Tally)
    assert done.poll_cpu_s == 0


def test_requests_are_told_apart_by_servlet() -> None:
    """Syncs by their tag too; health checks and our canaries are no kind; and all kinds together are all requests."""
    kinds = counters("client").strata
    assert {name: (kind.requests, kind.polls) for name, kind in kinds.items()} == {
        "VersionsRestServlet": (1, 0),
        "RoomCreateRestServlet": (1, 0),
        "RoomMembershipRestServlet": (4, 0),
        "RoomSendEventRestServlet": (25, 0),
        "RoomMessageListRestServlet": (30, 0),
        "EventStreamRestServlet": (0, 1),
    }
    assert tuple(map(sum, zip(*(kind.latency for kind in kinds.values() if kind.latency), strict=True))) == counters("client").latency
    assert sum(kind.cpu_s for kind in kinds.values() if kind.requests) == pytest.approx(counters("client").request_cpu_s, abs=0.01)
    syncs = counters("sync").strata
    first = syncs["SyncRestServlet sync_v2:initial_sync"]
    assert (first.polls, syncs["SyncRestServlet sync_v2:incremental_sync"].polls) == (30, 1)
    assert first.cpu_s == pytest.approx(0.2473, abs=1e-4)
    assert first.latency == ()


def test_a_tally_has_what_each_servlet_was_asked_meanwhile() -> None:
    """Without those that nobody asked, and cut off after the last bucket that holds one."""
    page = counters("client")
    sent = page.strata["RoomSendEventRestServlet"]
    earlier = replace(page, requests=page.requests - 5, latency=_less(page.latency, 3, 5), strata={**page.strata, sent.name: _fewer(sent)})
    told = tally(earlier, page, page.started_at_s + 10, page.started_at_s + 15)
    assert isinstance(told, Tally)
    assert told.strata == (Stratum("RoomSendEventRestServlet", requests=5.0, cpu_s=0.25, latency=(0.0, 0.0, 0.0, 5.0)),)


def _fewer(sent: Stratum) -> Stratum:
    return sent._replace(requests=sent.requests - 5, cpu_s=sent.cpu_s - 0.25, latency=_less(sent.latency, 3, 5))


def _less(latency: tuple[float, ...], bucket: int, by: float) -> tuple[float, ...]:
    return tuple(count - by * (index == bucket) for index, count in enumerate(latency))


def test_a_page_without_the_label_tells_nothing_apart() -> None:
    """A Prometheus may have dropped it; the sums are what they were, but for what long-polls are."""
    dropped = [Sample(one.name, {k: v for k, v in one.labels.items() if k != "servlet"}, one.value) for one in samples("client")]
    seen = read_counters(dropped)
    assert isinstance(seen, Counters)
    assert (seen.requests, seen.strata) == (211, {})


def test_of_very_many_servlets_those_with_most_requests_are_told_apart() -> None:
    """What is left is in the sums alone."""
    kinds = {f"Servlet{index:02}": Stratum(f"Servlet{index:02}", requests=1.0 + index) for index in range(40)}
    later = replace(BEFORE, requests=BEFORE.requests + 820.0, strata=kinds)
    told = tally(BEFORE, later, 100.0, 105.0)
    assert isinstance(told, Tally)
    assert [one.name for one in told.strata] == [f"Servlet{index:02}" for index in range(8, 40)]
    assert told.requests == 820
