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

from rollout.adapters.asking import FAILURES, Asker, UnusableError, body_of, kind_of, why_not
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
NAME = "the page"
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
        except FAILURES as error:
            return why_not(error, NAME)
        lines = [line for line in text.splitlines() if line.startswith(wanted)]
        if not lines:
            return "the page has none of the metrics that are looked for"
        try:
            return Page(_samples(lines))
        except UnusableError as error:
            return why_not(error, NAME)
        except (ValueError, KeyError, IndexError) as error:
            return f"the page can't be parsed: {reason_of(error)}"

    def _text(self, url: str, timeout_s: float) -> str:
        with self._asker.get(url, timeout_s) as answer:
            if answer.status_code != requests.codes.ok:
                raise UnusableError(f"it was answered {answer.status_code}")
            if (kind := kind_of(answer)) not in KINDS:
                raise UnusableError(f"it is a page of {'HTML' if 'html' in kind else shortened(kind)}")
            if (age := answer.headers.get("Age", "0").strip()).isdecimal() and int(age) > AGE_MAX_S:
                raise UnusableError(f"it is {age} s old: something between us and the worker has kept it")
            body = body_of(answer, self._bytes_max, NAME)
        if body.lstrip().startswith(b"<"):
            raise UnusableError("it is a page of HTML")
        if not body.endswith(b"\n"):
            raise UnusableError("the page is truncated")
        return body.decode()


def _sample(one: ParsedSample) -> Sample:
    return Sample(one.name, one.labels, one.value, None if one.timestamp is None else float(one.timestamp))


def _samples(lines: list[str]) -> tuple[Sample, ...]:
    """Parse lines. Raises what the parser raises, of the line as it stands, and UnusableError for one that is there twice."""
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
                raise UnusableError(f"the page has {shortened(sample.name)} twice with the same labels")
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
