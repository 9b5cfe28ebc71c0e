"""What a scrape may meet in place of a metrics page: each is a sentence, in time, and never a page."""

import gzip
import math
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rollout.adapters.metrics import scrape as scrape_module
from rollout.adapters.metrics.scrape import Scrape
from rollout.homeservers.synapse.metrics import PREFIXES, read_counters
from rollout.model.ids import WorkerId
from rollout.model.sample import Page
from tests.contracts.server import Says, serving
from tests.contracts.test_metrics import PAGE

SYNC1 = WorkerId("sync1")
BYTES_MAX = 16_000_000
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
AGED = b"HTTP/1.1 200 OK\r\nAge: %d\r\nContent-Length: %d\r\n\r\n"
ZIPPED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"


def read(url: str, timeout_s: float = 5.0) -> Page | str:
    return Scrape({SYNC1: url}, BYTES_MAX).read([SYNC1], PREFIXES, timeout_s)[SYNC1]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Says(b"<html><body>login</body></html>\n", kind="text/html"), "HTML"),
        (Says(b"oh no\n", status=500), "500"),
        (Says(b"", status=302), "302"),
        (Says(PAGE, length=len(PAGE) + 100), "truncated"),
        (Says(PAGE[:-20]), "truncated"),
        (Says(b""), "empty"),
        (Says(b"\xff\xfe\n"), "not UTF-8"),
        (Says(b'synapse_build_info{version="1.163.2" 1.0\n'), "parsed"),
        (Says(b"process_start_time_seconds one\n"), "parsed"),
        (Says(b"some_other_metric 1\n" * 100), "none of the metrics"),
        (Says(b"", bare=True), "hangs up, or doesn't speak HTTP"),
        (Says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", bare=True), "hangs up, or doesn't speak HTTP"),
        (Says(CHUNKED + b"16\r\nprocess_start_time_sec", bare=True), "truncated"),
        (Says(ZIPPED + gzip.compress(PAGE), bare=True), "compressed (gzip)"),
        (Says(PAGE, kind="application/json"), "a page of application/json"),
        (Says(b"<!doctype html>\n"), "HTML"),
        (Says(AGED % (11, len(PAGE)) + PAGE, bare=True), "11 s old"),
        (Says(PAGE + PAGE), "process_start_time_seconds twice"),
        (Says(PAGE + b"process_start_time_seconds 3\n"), "process_start_time_seconds twice"),
    ],
    ids=[
        *("html", "500", "redirect", "short", "half a line", "empty", "not utf-8", "labels", "number", "others"),
        *("closed", "ssh", "half a chunk", "zipped", "json", "html as text", "from a cache", "twice", "contradiction"),
    ],
)
def test_no_metrics_page_is_a_sentence(answer: Says, sentence: str) -> None:
    with serving(answer) as server:
        found = read(server.url)
    assert isinstance(found, str)
    assert sentence in found


def test_a_hundred_megabytes_are_not_read_to_their_end() -> None:
    with serving(Says(b"synapse_build_info 1\n" * 5_000_000)) as server:
        began_s = time.monotonic()
        found = read(server.url)
        assert time.monotonic() - began_s < 10
    assert found == f"the page is longer than {BYTES_MAX} bytes"


@pytest.mark.parametrize(
    "answer",
    [Says(PAGE, pause_s=0.1), Says(b"HTTP/1.1 200 OK\r\nX-Y: " + b"z" * 1000, pause_s=0.1, bare=True), Says(b"x", length=100, pause_s=60)],
    ids=["body", "header", "nothing"],
)
def test_a_page_that_does_not_come_is_not_waited_for_any_longer(answer: Says) -> None:
    with serving(answer) as server:
        began_s = time.monotonic()
        found = read(server.url, 1.0)
        assert time.monotonic() - began_s < 5
    assert found == "no answer in time"


def test_one_that_drips_holds_up_nobody_else() -> None:
    slow, fast = WorkerId("slow"), WorkerId("fast")
    with serving(Says(PAGE, pause_s=0.1)) as one, serving(Says(PAGE)) as other:
        pages = Scrape({slow: one.url, fast: other.url}, BYTES_MAX).read([slow, fast], PREFIXES, 1.0)
    assert isinstance(pages[slow], str)
    assert isinstance(pages[fast], Page)


def test_looks_over_one_connection_have_their_time_each() -> None:
    page = b"synapse_build_info 1\n"
    header = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page)
    with serving(Says(header + page, bare=True, kept=True, pause_s=0.01)) as server:
        scrape = Scrape({SYNC1: server.url}, BYTES_MAX)
        began_s = time.monotonic()
        looks = [scrape.read([SYNC1], PREFIXES, 3.0)[SYNC1] for _ in range(6)]
        assert time.monotonic() - began_s > 3.0, "or all would fit into the time of one"
        assert len(server.callers) == 1
    assert all(isinstance(page, Page) for page in looks)


def test_nobody_there() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found = read(f"http://127.0.0.1:{one.getsockname()[1]}")
    assert found == "no connection: connection refused"


def test_a_number_that_is_none_is_not_believed() -> None:
    """The page can be read; what it says can't be used."""
    with serving(Says(PAGE.replace(b" 7.0", b" NaN"))) as server:
        page = read(server.url)
    assert isinstance(page, Page)
    assert any(math.isnan(sample.value) for sample in page.samples)
    assert isinstance(read_counters(page.samples), str)


def test_a_line_that_says_when_it_was_written_is_read_with_that() -> None:
    """In milliseconds since the epoch, as the format has it; and a page that is a few seconds old is one."""
    dated = b"process_start_time_seconds 1.7e+09 1700000123456\n"
    with serving(Says(AGED % (5, len(dated)) + dated, bare=True)) as server:
        page = read(server.url)
    assert isinstance(page, Page)
    assert [sample.at_s for sample in page.samples] == [1700000123.456]


ODD = """\
synapse_build_info{version="1.163.2 (b=main,3905dc7)",note="a } and a \\" and a { and 7"} 1.0
synapse_build_info{a="x",b="y",} 3
synapse_build_info 4 1700000000000
synapse_build_info{a="z"} 4 1700000000000
synapse_build_info{a="braces}"}5
synapse_build_info\t6
synapse_build_info{c="1"}  -7.25e-3
synapse_build_info{c="2"} +Inf
synapse_build_info{c="3"} 1e400
synapse_build_info{c="4"} 0x10
synapse_build_info{c="5"} 1_000
synapse_build_info{c="6"}
synapse_build_info{c="7" 1
synapse_build_info}{ 1
synapse_build_info{c="8"} 12 13 14
synapse_build_info{c="9"} 5 # {trace_id="x"} 0.5
synapse_build_info
"""


@pytest.mark.parametrize("line", ODD.splitlines())
def test_an_odd_line_is_read_as_the_parser_reads_it(line: str) -> None:
    """What is known of a series saves parsing it again, and changes nothing: the same sample or complaint, the second time too."""

    def judged(read: Callable[[], list[tuple[str, dict[str, str], float]]]) -> object:
        try:
            return read()
        except (ValueError, KeyError, IndexError) as error:
            return type(error), str(error)

    def by_parser() -> list[tuple[str, dict[str, str], float]]:
        return [(one.name, one.labels, one.value) for family in text_string_to_metric_families(f"{line}\n") for one in family.samples]

    def by_us() -> list[tuple[str, dict[str, str], float]]:
        return [(one.name, dict(one.labels), one.value) for one in scrape_module._samples([line])]  # noqa: SLF001  (its own parsing is meant)

    assert judged(by_us) == judged(by_us) == judged(by_parser)


@pytest.mark.parametrize("page", sorted((Path(__file__).parents[2] / "data/metrics").glob("*.txt")), ids=lambda page: page.stem)
def test_a_page_of_synapse_is_read_as_the_parser_reads_it(page: Path) -> None:
    """Every line that is no comment, in order, to the last digit."""
    lines = [line for line in page.read_text().splitlines() if line and not line.startswith("#")]
    families = text_string_to_metric_families("\n".join(lines) + "\n")
    expected = [(one.name, one.labels, one.value) for family in families for one in family.samples]
    found = scrape_module._samples(lines)  # noqa: SLF001  (as above)
    assert [(one.name, dict(one.labels), one.value) for one in found] == expected
    assert len(found) > 10
