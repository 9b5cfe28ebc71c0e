"""
What Prometheus answers about the last minute, from the scrapes that it has.

`rate(x[1m])` needs two samples in its window, so it takes in the increments between the first and the last of them: those that *began*
within it. Extrapolation to the whole window multiplies numerator and denominator alike and is left out.

Source: Prometheus 2, promql/functions.go (extrapolatedRate) and promql/quantile.go (bucketQuantile).
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rollout.model.gate import LATENCY_EDGES_S, Tally
from tests.benchmarks.gates.traces import Scrape

WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What two queries said at *at_s* (seconds after admission). None where Prometheus answers with nothing, or with NaN."""

    at_s: float
    latency_s: float | None
    errors: float | None


@dataclass(slots=True)
class Window:
    """The tallies of one worker, or of the sum of some, that a query looks back on."""

    tallies: deque[Tally]

    def add(self, tally: Tally | None) -> None:
        if tally is not None:
            self.tallies.append(tally)

    def _within(self, now_s: float) -> Iterator[Tally]:
        while self.tallies and self.tallies[0].since_s <= now_s - WINDOW_S:
            self.tallies.popleft()
        return iter(self.tallies)

    def read(self, now_s: float, at_s: float, quantile: float) -> Reading:
        """Ask at *now_s*, in the time of the tallies."""
        within = list(self._within(now_s))
        requests = sum(tally.requests for tally in within)
        if not requests:
            return Reading(at_s, None, None)
        return Reading(at_s, histogram_quantile(quantile, within), sum(tally.errors for tally in within) / requests)


@dataclass(slots=True)
class Queries:
    """Prometheus, for one worker: what it answers after each scrape, or that it does not answer."""

    admitted_s: float
    quantile: float
    window: Window

    def see(self, scrape: Scrape) -> None:
        self.window.add(scrape.own)

    def ask(self, scrape: Scrape) -> Reading:
        """Ask right after *scrape*. In an outage nothing comes back: the query itself fails."""
        if scrape.own is None and scrape.controls is None:
            return Reading(scrape.at_s, None, None)
        return self.window.read(self.admitted_s + scrape.at_s, scrape.at_s, self.quantile)


def queries(admitted_s: float, quantile: float) -> Queries:
    """Start with a worker of which nothing has been seen."""
    return Queries(admitted_s, quantile, Window(deque()))


def histogram_quantile(quantile: float, tallies: Iterable[Tally]) -> float | None:
    """Do as Prometheus does: linear within a bucket, the highest finite edge for all that lies above, None (its NaN) without requests."""
    counts = [sum(column) for column in zip(*(tally.latency for tally in tallies), strict=True)]
    total = sum(counts)
    if not total:
        return None
    rank = quantile * total
    below = lower = 0.0
    for count, edge in zip(counts, LATENCY_EDGES_S, strict=False):
        if count and below + count >= rank:
            return float(lower + (edge - lower) * (rank - below) / count)
        below, lower = below + count, edge
    return LATENCY_EDGES_S[-1]
