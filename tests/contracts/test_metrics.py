"""What every driver of the port `metrics` promises: the scrape, a real Prometheus and the simulated one."""

from collections.abc import Iterator

import pytest

from rollout.adapters.metrics.prometheus import build as build_prometheus
from rollout.adapters.metrics.scrape import Scrape
from rollout.homeservers.synapse.metrics import PREFIXES, Counters, read_counters
from rollout.model.ids import WorkerId
from rollout.model.sample import Page
from rollout.ports.metrics import Metrics
from rollout.simulation.rehearse import set_stage
from tests.contracts.prometheus import Running, Target, inventory_of, prometheus
from tests.contracts.server import Says, serving

SYNC1, SYNC2, STRANGER = WorkerId("sync1"), WorkerId("sync2"), WorkerId("stranger")
PAGE = b"""\
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
process_start_time_seconds 1.7e+09
synapse_build_info{osversion="Linux",pythonversion="CPython 3.11",version="1.163.2"} 1.0
synapse_http_server_response_ru_utime_seconds_total{method="GET",servlet="SyncRestServlet",tag="SyncRestServlet"} 7.0
python_gc_objects_collected_total{generation="0"} 1.0
"""


@pytest.fixture(scope="module")
def with_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with prometheus(tmp_path_factory.mktemp("prometheus"), {SYNC1: Target(), SYNC2: Target()}) as running:
        running.targets[SYNC2].away = True
        # As soon as it has asked SYNC2 in vain, which is within a second.
        running.wait_for([SYNC1], 2)
        yield running


@pytest.fixture(params=["scrape", "prometheus", "simulated"])
def metrics(request: pytest.FixtureRequest) -> Iterator[Metrics]:
    """SYNC1 has a page, SYNC2 has none that can be read, STRANGER isn't known."""
    if request.param == "simulated":
        stage = set_stage({"sync1": ("sync", "sync"), "sync2": ("sync", "sync")})
        stage.world.dark.add(SYNC2)
        yield stage.drivers.metrics
    elif request.param == "prometheus":
        running: Running = request.getfixturevalue("with_prometheus")
        yield build_prometheus({"url": running.url}, inventory_of({name: target.address for name, target in running.targets.items()}))
    else:
        with serving(Says(PAGE)) as one, serving(Says(b"oh", status=500)) as other:
            yield Scrape({SYNC1: one.url, SYNC2: other.url}, 1_000_000)


def test_a_page_is_read_and_what_is_not_wanted_is_left_out(metrics: Metrics) -> None:
    page = metrics.read([SYNC1], ["process_start"], 5.0)[SYNC1]
    assert isinstance(page, Page)
    assert {sample.name for sample in page.samples} == {"process_start_time_seconds"}


def test_a_page_says_who_wrote_it(metrics: Metrics) -> None:
    page = metrics.read([SYNC1], PREFIXES, 5.0)[SYNC1]
    assert isinstance(page, Page)
    assert isinstance(read_counters(page.samples), Counters)


def test_what_cannot_be_read_is_a_sentence_and_holds_up_nobody(metrics: Metrics) -> None:
    pages = metrics.read([SYNC1, SYNC2, STRANGER], PREFIXES, 5.0)
    assert isinstance(pages[SYNC1], Page)
    for worker in (SYNC2, STRANGER):
        why = pages[worker]
        assert isinstance(why, str)
        assert why


def test_nobody_is_asked_for_nothing(metrics: Metrics) -> None:
    assert metrics.read([], PREFIXES, 5.0) == {}
