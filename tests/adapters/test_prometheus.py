"""
What a Prometheus may say instead of what was asked: each is a sentence, and none is a zero.

Most of it is shown by a real one. Its targets restart, go away and come back within some ten seconds, before anybody asks.
"""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest

from rollout.adapters.history.prometheus import PrometheusHistory
from rollout.adapters.history.prometheus import build as build_history
from rollout.adapters.metrics.prometheus import build as build_metrics
from rollout.adapters.prometheus import _seconds
from rollout.adapters.settings import InvalidSettingsError
from rollout.engine.past import Runs, tallies
from rollout.homeservers.synapse.metrics import PREFIXES, Counters, read_counters, tally
from rollout.model.errors import InvalidFileError
from rollout.model.gate import Tally
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sample import Page
from rollout.ports.history import Life
from tests.contracts.prometheus import REQUESTS_PER_SCRAPE, VERSION, Running, Target, inventory_of, prometheus
from tests.contracts.server import Says, serving

TIMEOUT_S = 5.0
SYNC1 = WorkerId("sync1")
NAMES = ("steady", "restarts", "missed", "gone", "nan", "renamed", "dated", "twice", "goes_back", "flaps")
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Past:
    """A Prometheus that has seen all that there is to see by *until_s*, and how many scrapes each process of `restarts` had."""

    running: Running
    inventory: Inventory
    since_s: float
    until_s: float

    def read(self, name: str, prefixes: tuple[str, ...] = PREFIXES, **settings: object) -> Page | str:
        driver = build_metrics({"url": self.running.url, **settings}, self.inventory)
        return driver.read([WorkerId(name)], prefixes, TIMEOUT_S)[WorkerId(name)]

    def lives(self, name: str, **settings: object) -> tuple[Life, ...] | str:
        driver = build_history({"url": self.running.url, **settings}, self.inventory)
        worker = WorkerId(name)
        return driver.lives([worker], PREFIXES, self.since_s, self.until_s, time.time(), TIMEOUT_S)[worker]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    since_s = time.time()
    targets = {name: Target() for name in NAMES}
    targets["nan"].edit = lambda page: "".join(
        "process_cpu_seconds_total NaN\n" if line.startswith("process_cpu") else line for line in page.splitlines(keepends=True)
    )
    targets["renamed"].edit = lambda page: page.replace("synapse_http_server_", "synapse_http_server_v2_")
    targets["dated"].dated_s = 20.0
    targets["goes_back"].requests = 1_000_000
    with prometheus(tmp_path_factory.mktemp("prometheus"), targets, twice=["twice"]) as running:
        running.wait_for(NAMES, 2)
        for name in ("restarts", "missed", "gone"):
            targets[name].away = True
        targets["restarts"].begin_anew()
        targets["flaps"].begin_anew()
        # Its process says that it is the same, and its counters begin again.
        targets["goes_back"].requests = 0
        running.wait_for(["steady", "flaps"], 2)
        targets["flaps"].begin_anew()
        for name in ("restarts", "missed"):
            targets[name].away = False
        running.wait_for(("restarts", "missed", "flaps"), 3)
        # Until Prometheus has stored what it was just given.
        time.sleep(0.3)
        addresses = {name: target.address for name, target in targets.items()}
        yield Past(running, inventory_of(addresses), since_s, time.time())


def counters(page: Page | str) -> Counters:
    assert isinstance(page, Page), page
    found = read_counters(page.samples)
    assert isinstance(found, Counters), found
    return found


def only_life(lives: tuple[Life, ...] | str) -> Life:
    assert isinstance(lives, tuple), lives
    (life,) = lives
    return life


def tallied(life: Life) -> Tally:
    found = tally(counters(life.first), counters(life.last), life.since_s, life.until_s)
    assert isinstance(found, Tally), found
    return found


def test_a_page_is_what_the_target_said_at_its_last_scrape(past: Past) -> None:
    """To the last digit, and it says when that was."""
    steady = past.running.targets["steady"]
    before = len(steady.served)
    page = past.read("steady")
    after = len(steady.served)
    assert isinstance(page, Page)
    found = counters(page)
    assert before * REQUESTS_PER_SCRAPE <= found.requests + REQUESTS_PER_SCRAPE
    assert found.requests <= after * REQUESTS_PER_SCRAPE
    assert found.started_at_s == steady.started_at_s
    assert found.latency[1] == found.requests
    (at_s,) = {sample.at_s for sample in page.samples}
    assert at_s is not None
    assert abs(at_s - steady.served[int(found.requests / REQUESTS_PER_SCRAPE) - 1]) < 0.5
    assert "python_gc_objects_collected_total" not in {sample.name for sample in page.samples}


def test_two_readings_between_two_scrapes_are_one_page(past: Past) -> None:
    """They say the same time, so that nobody takes the second for a worker that stands still."""
    driver = build_metrics({"url": past.running.url}, past.inventory)
    readings = [driver.read([WorkerId("steady")], PREFIXES, TIMEOUT_S)[WorkerId("steady")] for _ in range(5)]
    pages = [page for page in readings if isinstance(page, Page)]
    assert len(pages) == 5
    by_time = {page.samples[0].at_s: counters(page) for page in pages}
    assert all(by_time[page.samples[0].at_s] == counters(page) for page in pages)


def test_all_workers_are_asked_for_at_once_and_told_apart(past: Past) -> None:
    driver = build_metrics({"url": past.running.url}, past.inventory)
    pages = driver.read([WorkerId(name) for name in ("steady", "restarts", "missed")], PREFIXES, TIMEOUT_S)
    assert {counters(page).started_at_s for page in pages.values()} == {
        past.running.targets[name].started_at_s for name in ("steady", "restarts", "missed")
    }


def test_a_target_that_could_not_be_scraped_is_a_sentence(past: Past) -> None:
    """Its last page is no page of now, though Prometheus would still have it."""
    why = past.read("gone")
    assert isinstance(why, str)
    assert why.startswith("Prometheus could not scrape it ")
    assert why.endswith("s ago: its `up` is 0")


def test_what_is_older_than_it_may_be_is_a_sentence(past: Past) -> None:
    why = past.read("steady", stale_s=0.001)
    assert isinstance(why, str)
    assert why.startswith("Prometheus has last scraped it ")


def test_a_page_that_says_itself_when_it_was_written_is_as_old_as_it_says(past: Past) -> None:
    """The target's clock or a cache may be behind: the scrape was a moment ago."""
    page = past.read("dated")
    assert isinstance(page, Page)
    (at_s,) = {sample.at_s for sample in page.samples}
    assert at_s == pytest.approx(time.time() - 20.5, abs=2.0)
    why = past.read("dated", stale_s=10.0)
    assert isinstance(why, str)
    assert why.startswith("its page says itself that it was 2")


def test_a_value_that_is_no_number_is_a_sentence(past: Past) -> None:
    assert past.read("nan") == "process_cpu_seconds_total is nan"
    assert past.lives("nan") == "process_cpu_seconds_total was nan"


def test_a_family_that_was_renamed_is_no_traffic(past: Past) -> None:
    """Nothing is known under its new name; without any of the names that are looked for there is no page."""
    assert counters(past.read("renamed")).requests == 0
    assert past.read("renamed", ("synapse_http_server_response",)) == "Prometheus has none of the metrics that are looked for"


def test_two_targets_for_one_worker_are_a_sentence(past: Past) -> None:
    """Which of the two is right, nobody knows; the sentence says by what they could be told apart."""
    for why in (past.read("twice"), past.lives("twice")):
        assert why in {
            f"Prometheus has 2 targets for it: {first} and {second}; try match, or workers: {{twice: …}}, with that label"
            for first, second in (('{job="synapse"}', '{job="again"}'), ('{job="again"}', '{job="synapse"}'))
        }
    assert isinstance(past.read("twice", match={"instance": "{address}", "job": "synapse"}), Page)
    address = past.running.targets["twice"].address
    assert isinstance(past.read("twice", workers={"twice": {"instance": address, "job": "again"}}), Page)


def test_without_a_target_it_is_said_what_there_is_and_what_to_write(past: Past) -> None:
    """The likeliest first."""
    port = past.running.targets["steady"].address.rpartition(":")[2]
    for why in (past.read("steady", match={"instance": "localhost:{port}"}), past.lives("steady", match={"instance": "localhost:{port}"})):
        assert isinstance(why, str)
        head, _, rest = why.partition("; it has ")
        assert head == f'Prometheus has no target {{instance="localhost:{port}"}}'
        assert rest.startswith(f'{{instance="127.0.0.1:{port}", job="synapse"}}, ')
        assert rest.endswith(" and 6 more; try workers: {steady: {LABEL: VALUE}} with one of them")


def test_a_life_is_all_that_its_process_did(past: Past) -> None:
    life = only_life(past.lives("steady"))
    target = past.running.targets["steady"]
    scrapes = [at_s for at_s in target.served if life.since_s - 0.5 < at_s < life.until_s + 0.5]
    assert tallied(life).requests == pytest.approx((len(scrapes) - 1) * REQUESTS_PER_SCRAPE, abs=REQUESTS_PER_SCRAPE)
    assert life.until_s - life.since_s == pytest.approx(scrapes[-1] - scrapes[0], abs=1.0)
    assert tallied(life).cpu_s > 0


def test_a_restart_divides_two_lives(past: Past) -> None:
    """Counters began anew, and nothing of it is lost, negative or counted twice; the time in between belongs to neither."""
    lives = past.lives("restarts")
    assert isinstance(lives, tuple)
    first, second = lives
    target = past.running.targets["restarts"]
    assert counters(second.first).started_at_s == target.started_at_s
    assert counters(first.last).started_at_s < target.started_at_s
    longest_s, gap_at = max((later - before, index) for index, (before, later) in enumerate(pairwise(target.served)))
    assert longest_s > 1.5
    assert first.until_s < target.served[gap_at + 1] - 0.5 <= second.since_s
    assert tallied(first).requests == gap_at * REQUESTS_PER_SCRAPE
    assert tallied(second).requests >= 2 * REQUESTS_PER_SCRAPE
    assert tallied(second).requests % REQUESTS_PER_SCRAPE == 0


def test_a_restart_between_two_scrapes_is_noticed(past: Past) -> None:
    """Nobody has seen it away."""
    lives = past.lives("flaps")
    assert isinstance(lives, tuple)
    assert len(lives) == 3
    assert len({counters(life.first).started_at_s for life in lives}) == 3
    assert all(earlier.until_s < later.since_s for earlier, later in pairwise(lives))
    assert all(counters(life.first).started_at_s == counters(life.last).started_at_s for life in lives)


def test_missed_scrapes_within_a_life_cost_nothing(past: Past) -> None:
    """The counters went on meanwhile."""
    life = only_life(past.lives("missed"))
    served = past.running.targets["missed"].served
    assert max(later - before for before, later in pairwise(served)) > 1.5
    assert tallied(life).requests == pytest.approx((len(served) - 1) * REQUESTS_PER_SCRAPE, abs=REQUESTS_PER_SCRAPE)


def test_of_who_is_away_now_the_past_is_there_all_the_same(past: Past) -> None:
    assert tallied(only_life(past.lives("gone"))).requests >= REQUESTS_PER_SCRAPE


def test_counters_that_went_back_without_a_restart_are_not_believed(past: Past) -> None:
    """Somebody else answers at that address."""
    life = only_life(past.lives("goes_back"))
    found = tally(counters(life.first), counters(life.last), life.since_s, life.until_s)
    assert found == "its counters began anew, but its process did not start between the two measurements"


def test_a_range_in_which_nothing_was_kept_is_a_sentence(past: Past) -> None:
    driver = build_history({"url": past.running.url}, past.inventory)
    steady = WorkerId("steady")
    since_s = past.since_s - 5 * HOUR_S
    why = driver.lives([steady], PREFIXES, since_s, since_s + HOUR_S, time.time(), TIMEOUT_S)[steady]
    address = past.running.targets["steady"].address
    assert why == f'Prometheus has the target {{instance="{address}"}}, and nothing of it in that time'


def test_of_all_that_a_baseline_is_made(past: Past) -> None:
    """As a rollout would compare with it: of what runs now, and as long as what was seen of it."""
    driver = build_history({"url": past.running.url}, past.inventory)
    now_s = time.time()
    runs = {WorkerId(name): Runs(VERSION, past.since_s - 1.0) for name in NAMES}
    runs[WorkerId("missed")] = Runs("1.164.0", past.since_s - 1.0)
    runs[WorkerId("restarts")] = Runs(VERSION, past.running.targets["restarts"].started_at_s)
    found = tallies(driver, [*runs, WorkerId("stranger")], runs | {WorkerId("stranger"): Runs(VERSION, 0.0)}, now_s)
    steady, restarts, flaps = (found[WorkerId(name)] for name in ("steady", "restarts", "flaps"))
    assert isinstance(steady, Tally)
    assert isinstance(restarts, Tally)
    assert isinstance(flaps, Tally)
    # Ten requests a second, as long as somebody was there; of whom what runs was begun late, only since then.
    for tally_, least, most in ((steady, 50, 200), (restarts, 20, 60), (flaps, 30, 150)):
        assert least <= tally_.requests <= most
        assert tally_.requests / (tally_.until_s - tally_.since_s) == pytest.approx(REQUESTS_PER_SCRAPE, rel=0.1)
        assert tally_.until_s == now_s
    assert {name: found[WorkerId(name)] for name in ("missed", "nan", "renamed", "stranger")} == {
        "missed": f"what was kept of it is of version {VERSION}, and it runs 1.164.0",
        "nan": "process_cpu_seconds_total was nan",
        "renamed": "it did nothing at all: the families that tell what it does aren't kept, or have other names",
        "stranger": "the inventory has no metrics page for it",
    }


@pytest.mark.parametrize(("apart_s", "way"), [(600.0, "behind"), (-600.0, "ahead of")])
def test_a_past_by_another_clock_is_not_believed(past: Past, apart_s: float, way: str) -> None:
    driver = build_history({"url": past.running.url}, past.inventory)
    found = driver.lives([WorkerId("steady")], PREFIXES, past.since_s, past.until_s, time.time() + apart_s, TIMEOUT_S)
    why = found[WorkerId("steady")]
    assert isinstance(why, str)
    assert why.startswith(f"Prometheus's clock is {abs(apart_s):.0f} s {way} ours")


def test_a_query_that_prometheus_refuses_is_told_in_its_own_words(past: Past) -> None:
    prometheus_ = build_history({"url": past.running.url}, past.inventory)._prometheus  # noqa: SLF001  (no query of ours is refused)
    assert prometheus_.vector("up{", TIMEOUT_S) == (
        'Prometheus can\'t be asked: it was answered 400 (bad_data: invalid parameter "query": 1:4: parse error: unexp…)'
    )
    assert prometheus_.matrix("up", TIMEOUT_S, time.time()) == "what Prometheus answers can't be used: it is no matrix of samples"


def series(name: str, value: str, at_s: float = 1000.0, **labels: str) -> dict[str, object]:
    return {"metric": {"instance": "h:9000", **({"__name__": name} if name else {}), **labels}, "value": [at_s, value]}


GOOD = (
    series("up", "1"),
    series("", "995.5", rollout="scraped"),
    series("", "995.5", rollout="dated"),
    series("process_start_time_seconds", "100"),
)


def said(result: object = GOOD, *, kind: str = "vector", **others: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **others}).encode()


def told(answer: Says, timeout_s: float = TIMEOUT_S, **settings: object) -> Page | str:
    """Return what a driver makes of an answer that no real Prometheus gives."""
    with serving(answer) as server:
        driver = build_metrics({"url": server.url, **settings}, inventory_of({SYNC1: "h:9000"}))
        return driver.read([SYNC1], PREFIXES, timeout_s)[SYNC1]


def test_a_good_answer_is_a_page() -> None:
    """Or the following would show nothing."""
    page = told(Says(said()))
    assert isinstance(page, Page)
    assert [(one.name, one.value, one.at_s) for one in page.samples] == [("process_start_time_seconds", 100.0, 995.5)]


ERROR = json.dumps({"status": "error", "errorType": "timeout", "error": "query timed out"}).encode()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Says(b"<html>login</html>", status=200), "what Prometheus answers can't be used: it is a page of HTML"),
        (Says(b"bad gateway", status=502), "Prometheus can't be asked: it was answered 502"),
        (Says(b"", status=302), "Prometheus can't be asked: the answer is empty"),
        (Says(b"who are you?", status=401), "Prometheus can't be asked: it was answered 401"),
        (Says(ERROR, status=503), "Prometheus can't be asked: it was answered 503 (timeout: query timed out)"),
        (Says(ERROR), "what Prometheus answers can't be used: it was answered 200 (timeout: query timed out)"),
        (Says(said()[:-10]), "what Prometheus answers can't be used: it is no JSON of its API, or not all of it"),
        (Says(said(), length=10_000), "Prometheus can't be asked: the answer is truncated: its connection ended before it did"),
        (Says(b"[1]"), "what Prometheus answers can't be used: it is no JSON of its API, or not all of it"),
        (Says(b"[" * 60_000), "what Prometheus answers can't be used: it is no JSON of its API, or not all of it"),
        (Says(b"\xff\xfe"), "what Prometheus answers can't be used: it is no JSON of its API, or not all of it"),
        (Says(said(warnings=["a store is away"])), "what Prometheus answers can't be used: it warns that this isn't all: a store is away"),
        (Says(said(kind="matrix")), "what Prometheus answers can't be used: it is no vector of samples"),
        (Says(said([{"metric": {}}])), "what Prometheus answers can't be used: it is no vector of samples"),
        (Says(said([series("up", "one")])), "what Prometheus answers can't be used: a value in it is no number"),
        (Says(said([series("up", "NaN"), *GOOD[1:]])), "Prometheus could not scrape it 4 s ago: its `up` is nan"),
        (Says(said([*GOOD, series("process_open_fds", "+Inf")])), "process_open_fds is inf"),
        (Says(said([GOOD[0], *GOOD[3:]])), "Prometheus doesn't say when it has scraped it"),
        (Says(said([])), 'Prometheus has no target {instance="h:9000"}; it has none at all'),
        (Says(said([GOOD[0], series("", "900", rollout="scraped"), *GOOD[2:]])), "Prometheus has last scraped it 100 s ago"),
        (Says(said() + b" " * 70_000), "Prometheus can't be asked: the answer is longer than 65536 bytes"),
        (Says(said(), pause_s=0.1), "Prometheus can't be asked: no answer in time"),
    ],
    ids=[
        *("html", "502", "redirect", "401", "error", "error as 200", "half", "cut", "list", "deep", "bytes", "warnings", "matrix", "shape"),
        *("no number", "up nan", "infinite", "no time", "no target", "stale", "long", "drips"),
    ],
)
def test_what_is_no_answer_is_a_sentence(answer: Says, sentence: str) -> None:
    began_s = time.monotonic()
    assert told(answer, 1.0, answer_bytes_max=65_536) == sentence
    assert time.monotonic() - began_s < 3


def test_nobody_there() -> None:
    """For the past as for now; and nobody is asked for nothing."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        settings = {"url": f"http://127.0.0.1:{one.getsockname()[1]}"}
        its = inventory_of({SYNC1: "h:9000"})
        why = "Prometheus can't be asked: no connection: connection refused"
        assert build_metrics(settings, its).read([SYNC1], PREFIXES, TIMEOUT_S) == {SYNC1: why}
        assert build_history(settings, its).lives([SYNC1], PREFIXES, 0.0, HOUR_S, HOUR_S, TIMEOUT_S) == {SYNC1: why}
        assert build_history(settings, its).lives([], PREFIXES, 0.0, HOUR_S, HOUR_S, TIMEOUT_S) == {}


def test_a_past_that_does_not_come_is_not_waited_for_any_longer() -> None:
    """All its queries have the time of one call."""
    with serving(Says(said([series("", str(HOUR_S))]), pause_s=0.005)) as server:
        driver: PrometheusHistory = build_history({"url": server.url}, inventory_of({SYNC1: "h:9000"}))
        began_s = time.monotonic()
        found = driver.lives([SYNC1], PREFIXES, 0.0, HOUR_S, HOUR_S, 0.8)
        assert time.monotonic() - began_s < 2.5
    assert isinstance(found[SYNC1], str)


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"token": "env:PROMETHEUS_TOKEN"}, "Bearer s3cret"),
        ({"user": "rollout", "password": "env:PROMETHEUS_TOKEN"}, "Basic cm9sbG91dDpzM2NyZXQ="),
        ({}, None),
    ],
    ids=["token", "password", "nothing"],
)
def test_what_it_wants_to_be_shown_is_shown(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], shown: str | None) -> None:
    monkeypatch.setenv("PROMETHEUS_TOKEN", "s3cret")
    with serving(Says(said())) as server:
        build_metrics({"url": server.url, **settings}, inventory_of({SYNC1: "h:9000"})).read([SYNC1], PREFIXES, TIMEOUT_S)
    ((path, authorization),) = server.asked
    assert path.startswith("/api/v1/query?query=")
    assert authorization == shown


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, '"url" is missing'),
        ({"url": "prometheus:9090"}, "url is no address of a Prometheus"),
        ({"url": "http://me:hunter2@h:9090"}, "url holds a password, or a user"),
        ({"url": "http://h:9090/graph?g0=x"}, "url has more than a host and a path"),
        ({"url": "http://h:9090", "token": "hunter2"}, "a secret is written as env:NAME or file:PATH, not as itself"),
        ({"url": "http://h:9090", "user": "me"}, "user and password go together"),
        ({"url": "http://h:9090", "match": {"instance": "{adress}"}}, "nothing is known to fill in for {adress}"),
        ({"url": "http://h:9090", "match": {"job": "synapse"}}, 'sync1 and sync2 would be one target: {job="synapse"}'),
        ({"url": "http://h:9090", "match": {"a-b": "{worker}"}}, '"a-b" can be no label of Prometheus'),
        ({"url": "http://h:9090", "workers": {"sync3": {"instance": "x"}}}, 'there is no worker "sync3"'),
        ({"url": "http://h:9090", "stale_s": 0}, "stale_s"),
    ],
    ids=["no url", "no scheme", "in the url", "query", "secret", "no password", "place", "one target", "label", "worker", "stale"],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], what: str) -> None:
    with pytest.raises(InvalidFileError) as refusal:
        build_metrics(settings, inventory_of({SYNC1: "h:9000", "sync2": "h:9001"}))
    assert what in str(refusal.value)
    assert "hunter2" not in str(refusal.value)
    assert isinstance(refusal.value, InvalidSettingsError)


@pytest.mark.parametrize(
    ("written", "seconds"), [("15s", 15.0), ("1m30s", 90.0), ("500ms", 0.5), ("1h", 3600.0), ("", None), ("soon", None), ("1.5s", None)]
)
def test_times_as_prometheus_writes_them(written: str, seconds: float | None) -> None:
    assert _seconds(written) == seconds


def test_how_often_a_target_is_scraped(past: Past) -> None:
    driver = build_metrics({"url": past.running.url}, past.inventory)
    assert driver.intervals([WorkerId("steady"), WorkerId("twice")], TIMEOUT_S) == {"steady": 1.0, "twice": 1.0}
