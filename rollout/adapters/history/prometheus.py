"""
Metrics pages of the past, as a Prometheus has kept them.

A page has a thousand lines, and a day of them is more than anybody wants to read: first it is asked only when which process ran, which is
one line a scrape. A process's start tells it from the one before, whatever its counters did. Then of each process its first and last page
are asked for, at the very moment of a scrape, at which Prometheus leaves out what wasn't on the page. So a scrape that was missed costs
nothing, and of a restart only what happened between the last scrape before it and the first one after it is left out; that time isn't
counted either. Rejected: `increase()`, which guesses beyond the ends of a range, and takes no notice of who ran.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from time import monotonic  # noqa: TID251  (how much is left of the time that a call has)

from rollout.adapters.prometheus import STARTED, Prometheus, PrometheusSettings, Series, name_of, open_prometheus, selector, why_several
from rollout.adapters.settings import check
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sample import Page, Sample
from rollout.ports.history import Life

WHERE = "history_driver"
# As for pages that say themselves when they were written: clocks of two hosts differ by less.
SKEW_MAX_S = 60.0
# Who restarts more often than that within an hour is no baseline for anything; of the longest ones the pages are read.
LIVES_MAX = 4


def build(settings: Mapping[str, object], inventory: Inventory) -> "PrometheusHistory":
    """Open the driver; nothing is connected yet. Raises InvalidFileError when a secret isn't there."""
    return PrometheusHistory(open_prometheus(check(PrometheusSettings, settings, WHERE), inventory, WHERE))


class PrometheusHistory:
    """See ports.history."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus

    def lives(
        self, workers: Collection[WorkerId], prefixes: Collection[str], since_s: float, until_s: float, now_s: float, timeout_s: float
    ) -> dict[WorkerId, tuple[Life, ...] | str]:
        """See ports.history."""
        end_s = monotonic() + timeout_s
        known = [worker for worker in workers if worker in self._prometheus.labels]
        found: dict[WorkerId, tuple[Life, ...] | str] = dict.fromkeys(workers, "the inventory has no metrics page for it")
        if not known:
            return found
        if apart := self._apart(now_s, timeout_s):
            return found | dict.fromkeys(known, apart)
        spans = self._spans(known, since_s, until_s, end_s)
        lives = self._prometheus.each(known, lambda worker: self._read(worker, spans[worker], prefixes, end_s))
        return found | lives

    def _apart(self, now_s: float, timeout_s: float) -> str:
        told = self._prometheus.vector("vector(time())", timeout_s)
        if isinstance(told, str) or not told:
            return told if isinstance(told, str) else "Prometheus doesn't say what time it is"
        apart_s = told[0].last - now_s
        if abs(apart_s) <= SKEW_MAX_S:
            return ""
        way = "ahead of" if apart_s > 0 else "behind"
        return f"Prometheus's clock is {abs(apart_s):.0f} s {way} ours: nobody knows when that was what it kept"

    def _spans(self, workers: Sequence[WorkerId], since_s: float, until_s: float, end_s: float) -> dict[WorkerId, list["_Span"] | str]:
        """Find out when which process ran."""

        def ask(group: Sequence[WorkerId]) -> dict[WorkerId, list["_Span"] | str]:
            query = f"{STARTED}{{{self._prometheus.selecting(group)}}}[{math.ceil(until_s - since_s)}s]"
            found = _in_time(end_s, lambda left_s: self._prometheus.matrix(query, left_s, until_s))
            if isinstance(found, str):
                return dict.fromkeys(group, found)
            return {worker: _spans_of(worker, its, since_s) for worker, its in self._prometheus.apart(group, found).items()}

        asked = self._prometheus.each(self._prometheus.groups(workers), ask)
        spans = {worker: its for group in asked.values() for worker, its in group.items()}
        absent = [worker for worker, its in spans.items() if not its]
        # A target that is there now may only have been away then.
        whys = self._prometheus.why_none(absent, max(0.001, end_s - monotonic()))
        return spans | whys

    def _read(self, worker: WorkerId, spans: "list[_Span] | str", prefixes: Collection[str], end_s: float) -> tuple[Life, ...] | str:
        if isinstance(spans, str):
            return spans
        longest = sorted(spans, key=lambda span: span[1] - span[0])[-LIVES_MAX:]
        lives: list[Life] = []
        whys: list[str] = []
        for since_s, until_s in sorted(longest):
            if since_s == until_s:
                whys.append("Prometheus has scraped it only once")
                continue
            first, last = (self._page(worker, prefixes, at_s, end_s) for at_s in (since_s, until_s))
            if isinstance(first, str) or isinstance(last, str):
                whys.append(first if isinstance(first, str) else str(last))
            else:
                lives.append(Life(since_s, until_s, first, last))
        return tuple(lives) or whys[-1]

    def _page(self, worker: WorkerId, prefixes: Collection[str], at_s: float, end_s: float) -> Page | str:
        query = f"{{{name_of(prefixes)},{selector(self._prometheus.labels[worker])[1:-1]}}}"
        found = _in_time(end_s, lambda left_s: self._prometheus.vector(query, left_s, at_s))
        if isinstance(found, str):
            return found
        for series in found:
            if not math.isfinite(series.last):
                return f"{series.labels.get('__name__', '')} was {series.last}"
        return Page(tuple(_sample(series, at_s) for series in found))


_Span = tuple[float, float]


def _spans_of(worker: WorkerId, found: Sequence[Series], since_s: float) -> list[_Span] | str:
    """Say from when until when each process was scraped; nothing when there is no series."""
    if len(found) > 1:
        return why_several(worker, found)
    spans: list[_Span] = []
    before = math.nan
    for at_s, started_at_s in found[0].samples if found else ():
        # A range that is asked for in whole seconds may begin a little earlier.
        if at_s < since_s or not math.isfinite(started_at_s):
            continue
        if started_at_s == before:
            spans[-1] = (spans[-1][0], at_s)
        else:
            spans.append((at_s, at_s))
        before = started_at_s
    return spans


def _in_time(end_s: float, ask: Callable[[float], tuple[Series, ...] | str]) -> tuple[Series, ...] | str:
    left_s = end_s - monotonic()
    return ask(left_s) if left_s > 0 else "Prometheus can't be asked: no answer in time"


def _sample(series: Series, at_s: float) -> Sample:
    labels = {label: value for label, value in series.labels.items() if label != "__name__"}
    return Sample(series.labels.get("__name__", ""), labels, series.last, at_s)
