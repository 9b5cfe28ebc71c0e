"""What a scrape may meet in place of a metrics page: each is a sentence, in time, and never a page."""

import math
import socket
import time

import pytest

from rollout.adapters.metrics.scrape import Scrape
from rollout.homeservers.synapse.metrics import PREFIXES, read_counters
from rollout.model.ids import WorkerId
from rollout.model.sample import Page
from tests.contracts.server import Says, serving
from tests.contracts.test_metrics import PAGE

SYNC1 = WorkerId("sync1")
BYTES_MAX = 16_000_000


def read(url: str, timeout_s: float = 5.0) -> Page | str:
    return Scrape({SYNC1: url}, BYTES_MAX).read([SYNC1], PREFIXES, timeout_s)[SYNC1]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Says(b"<html><body>login</body></html>\n", kind="text/html"), "HTML"),
        (Says(b"oh no\n", status=500), "500"),
        (Says(b"", status=302), "302"),
        (Says(PAGE, length=len(PAGE) + 100), ""),
        (Says(PAGE[:-20]), "truncated"),
        (Says(b""), "none of the metrics"),
        (Says(b"\xff\xfe\n"), ""),
        (Says(b'synapse_build_info{version="1.163.2" 1.0\n'), "parsed"),
        (Says(b"process_start_time_seconds one\n"), "parsed"),
        (Says(b"some_other_metric 1\n" * 100), "none of the metrics"),
    ],
    ids=["html", "500", "redirect", "short", "half a line", "empty", "not utf-8", "labels", "number", "others"],
)
def test_no_metrics_page_is_a_sentence(answer: Says, sentence: str) -> None:
    with serving(answer) as server:
        found = read(server.url)
    assert isinstance(found, str)
    assert sentence in found


def test_a_hundred_megabytes_are_not_read_to_their_end() -> None:
    with serving(Says(b"synapse_build_info 1\n" * 5_000_000)) as server:
        found = read(server.url)
    assert found == f"the page is longer than {BYTES_MAX} bytes"


def test_a_page_that_drips_ends_in_time() -> None:
    with serving(Says(PAGE, pause_s=0.1)) as server:
        began_s = time.monotonic()
        found = read(server.url, 1.0)
        assert time.monotonic() - began_s < 2.5
    assert isinstance(found, str)


def test_nobody_there() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found = read(f"http://127.0.0.1:{one.getsockname()[1]}")
    assert found == "connection refused or reset"


def test_a_number_that_is_none_is_not_believed() -> None:
    """The page can be read; what it says can't be used."""
    with serving(Says(PAGE.replace(b" 7.0", b" NaN"))) as server:
        page = read(server.url)
    assert isinstance(page, Page)
    assert any(math.isnan(sample.value) for sample in page.samples)
    assert isinstance(read_counters(page.samples), str)
