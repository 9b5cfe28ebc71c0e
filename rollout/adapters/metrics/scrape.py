"""
Reading each worker's metrics page.

A page has 1,500 to 2,000 lines, of which a few dozen are wanted: lines are filtered by prefix before they are parsed, which is what makes
it cheap. Whatever isn't a metrics page (HTML, an error, half a page, too much of one) is a sentence that says so. Pages are asked for as
they are: compressing one costs the worker more than sending it, and what a few kilobytes unfold to can't be bounded by their number.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import chain
from typing import TypeAlias

import requests
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as ParsedSample
from pydantic import Field
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as ReadTimeoutError

from rollout.adapters.asking import Asker
from rollout.adapters.settings import Settings, check
from rollout.adapters.wording import reason_of, shortened
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sample import Page, Sample

# Names and labels are the same from page to page and from worker to worker; only their values change. So these are parsed once, which is
# nine tenths of what parsing takes. A worker has some 200 that are looked for, and most are everybody's.
SERIES_MAX = 50_000
# What else may stand for a number, or after it, is the parser's to judge.
_MARKED = 0.123456789
_PLAIN = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?")
CHUNK_BYTES = 65_536
# What a cache may have kept for longer says nothing about now.
AGE_MAX_S = 10
# As exporters call it; one that calls it nothing is believed.
KINDS = frozenset({"", "text/plain", "application/openmetrics-text"})

# A name with its labels, whatever order these are written in.
_Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]


class ScrapeSettings(Settings):
    """*page_bytes_max*: a longer page is not read; Synapse's have about 200 KB."""

    page_bytes_max: int = Field(default=16_000_000, gt=0)


def build(settings: Mapping[str, object], inventory: Inventory) -> "Scrape":
    """Open the driver; nothing is connected yet."""
    checked = check(ScrapeSettings, settings, "metrics_driver")
    return Scrape({worker: entry.metrics for worker, entry in inventory.workers.items()}, checked.page_bytes_max)


class Scrape:
    """See ports.metrics."""

    def __init__(self, urls: Mapping[WorkerId, str], page_bytes_max: int) -> None:
        self._urls = urls
        self._bytes_max = page_bytes_max
        self._asker = Asker({"Accept-Encoding": "identity"}, len(urls))

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        """See ports.metrics."""
        wanted = tuple(prefixes)
        return self._asker.each(workers, lambda worker: self._page(worker, wanted, timeout_s))

    def _page(self, worker: WorkerId, wanted: tuple[str, ...], timeout_s: float) -> Page | str:
        if worker not in self._urls:
            return "the inventory has no metrics page for it"
        try:
            text = self._text(self._urls[worker], timeout_s)
        except (requests.RequestException, HTTPError, UnicodeDecodeError, _UnusableError) as error:
            return _sentence(error)
        lines = [line for line in text.splitlines() if line.startswith(wanted)]
        if not lines:
            return "the page has none of the metrics that are looked for"
        try:
            return Page(_samples(lines))
        except _UnusableError as error:
            return _sentence(error)
        except (ValueError, KeyError, IndexError) as error:
            return f"the page can't be parsed: {reason_of(error)}"

    def _text(self, url: str, timeout_s: float) -> str:
        with self._asker.get(url, timeout_s) as answer:
            if answer.status_code != requests.codes.ok:
                raise _UnusableError(f"it was answered {answer.status_code}")
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if kind not in KINDS:
                raise _UnusableError(f"it is a page of {'HTML' if 'html' in kind else shortened(kind)}")
            if (age := answer.headers.get("Age", "0").strip()).isdecimal() and int(age) > AGE_MAX_S:
                raise _UnusableError(f"it is {age} s old: something between us and the worker has kept it")
            if (encoding := answer.headers.get("Content-Encoding", "identity")) != "identity":
                raise _UnusableError(f"it is compressed ({shortened(encoding)}), which was not asked for")
            body = bytearray()
            while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
                body += chunk
                if len(body) > self._bytes_max:
                    raise _UnusableError(f"the page is longer than {self._bytes_max} bytes")
        if not body:
            raise _UnusableError("the page is empty")
        if body.lstrip().startswith(b"<"):
            raise _UnusableError("it is a page of HTML")
        if not body.endswith(b"\n"):
            raise _UnusableError("the page is truncated")
        return body.decode()


def _sample(one: ParsedSample) -> Sample:
    return Sample(one.name, one.labels, one.value, None if one.timestamp is None else float(one.timestamp))


class _UnusableError(Exception):
    """What came is no metrics page."""


def _samples(lines: list[str]) -> tuple[Sample, ...]:
    """Parse lines. Raises what the parser raises, of the line as it stands, and _UnusableError for one that is there twice."""
    samples: list[Sample] = []
    seen: set[_Series] = set()
    for line in lines:
        # Of a line with labels the name ends with the last brace, of another with the first space.
        end = line.rfind("}") + 1 or line.find(" ")
        value = line[end:].strip()
        known = _series(line[:end]) if end > 0 and _PLAIN.fullmatch(value) else None
        if known is not None:
            name, labels, series = known
            found = [(series, Sample(name, labels, _number(value)))]
        else:
            found = [(_series_of(one), one) for one in _parsed(line)]
        for series, sample in found:
            if series in seen:
                # Nobody knows which of the two to believe.
                raise _UnusableError(f"the page has {shortened(sample.name)} twice with the same labels")
            seen.add(series)
            samples.append(sample)
    return tuple(samples)


def _number(plain: str) -> float:
    """Read it as the parser does: what is written as a whole number is shown as one."""
    return int(plain) if plain.removeprefix("-").isdigit() else float(plain)


def _parsed(text: str) -> list[Sample]:
    families = text_string_to_metric_families(f"{text}\n")
    return [_sample(one) for one in chain.from_iterable(family.samples for family in families)]


def _series_of(sample: Sample) -> _Series:
    return sample.name, frozenset(sample.labels.items())


@lru_cache(SERIES_MAX)
def _series(text: str) -> tuple[str, Mapping[str, str], _Series] | None:
    """Parse what stands before a value; None when that is more or less than the name and labels of one series."""
    try:
        (one,) = _parsed(f"{text} {_MARKED}")
    except (ValueError, KeyError, IndexError):
        return None
    # With a value of its own in it, that one would have been taken: an exemplar has braces too.
    return (one.name, one.labels, _series_of(one)) if one.value == _MARKED else None


def _sentence(error: Exception) -> str:
    match error:
        case _UnusableError():
            return str(error)
        case requests.Timeout() | ReadTimeoutError():
            return "no answer in time"
        case requests.exceptions.SSLError():
            return "no TLS connection that can be trusted"
        case requests.ConnectionError():
            return _why_not_connected(error)
        case requests.exceptions.ChunkedEncodingError() | ProtocolError():
            return "the page is truncated: its connection ended before it did"
        case UnicodeDecodeError():
            return "it is not UTF-8 text"
        case _:
            return f"it can't be read: {type(error).__name__}"


def _why_not_connected(error: requests.ConnectionError) -> str:
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    cause = reason.__cause__ if isinstance(reason, BaseException) else None
    if not isinstance(reason, ProtocolError) and isinstance(cause, OSError) and cause.strerror:
        return f"no connection: {cause.strerror.lower()}"
    return "it hangs up, or doesn't speak HTTP"
