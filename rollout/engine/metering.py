"""
What each worker did between two readings: of its metrics page, of the canaries that it was asked, and of what its proxy has counted.

Nobody is asked here; survey.py does that, and hands over what came of it.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

from rollout.engine.files import Files
from rollout.engine.service import Service
from rollout.engine.strain import Strain
from rollout.homeservers.synapse import metrics as synapse_metrics
from rollout.model.changed import changed
from rollout.model.gate import LATENCY_EDGES_S, GuardReading, Tally
from rollout.model.ids import WorkerId
from rollout.model.sample import Page
from rollout.model.sighting import ProxySighting, grown
from rollout.ports.probe import Answer

# A page that says itself when it was written is believed for so long, before and after; clocks of two hosts differ by less.
PAGE_AGE_MAX_S = 60.0
# As HAProxy calls it.
_5XX = "hrsp_5xx"


class _Reading(NamedTuple):
    """
    A page: true at *at_s* by our clock, and written at *written_at_s* by the writer's, if it says so.

    With a date it is as old as that says: what was scraped before a worker came back is no evidence of how it does since.
    """

    at_s: float
    counters: synapse_metrics.Counters
    written_at_s: float | None


class Meter:
    """Keeps the last reading of every worker. Not for use by several threads at once, except that any may buy."""

    def __init__(self) -> None:
        self._pages: dict[WorkerId, _Reading] = {}
        self._waiting: dict[WorkerId, tuple[Answer, ...]] = {}
        self._bought: dict[WorkerId, tuple[Answer, ...]] = {}
        self._buying = threading.Lock()
        # What each proxy had counted when its worker was last measured.
        self._counted: dict[WorkerId, ProxySighting] = {}
        self.files = Files()
        self._strain = Strain()
        self._service = Service()

    def record(self, worker: WorkerId, at_s: float, counters: synapse_metrics.Counters | str) -> None:
        """Take in for the guards what a page says at *at_s*, or why it could not be read."""
        self.files.record(worker, at_s, counters)
        self._strain.record(worker, at_s, counters)
        self._service.record(worker, at_s, counters)

    def guards(self, running: Collection[WorkerId], now_s: float) -> tuple[GuardReading, ...]:
        """Say how those do that are *running*, by what is recorded of their pages."""
        told = (self.files, self._strain, self._service)
        return tuple(reading for one in told for reading in one.guards(running, now_s))

    def take(self, worker: WorkerId, page: Page | str, read_at_s: float, asked: tuple[Answer, ...]) -> Tally | str | None:
        """
        Take a page in, and the canaries that were *asked* meanwhile; return what was done since the page before.

        Returned is a sentence where the page could not be read or believed, and None for the first one, or for the same one again.
        """
        if isinstance(page, str):
            self.record(worker, read_at_s, page)
            return page
        written_at_s = min((sample.at_s for sample in page.samples if sample.at_s is not None), default=None)
        counters = _not_of_now(written_at_s, read_at_s) or synapse_metrics.read_counters(page.samples)
        at_s = read_at_s if written_at_s is None else min(written_at_s, read_at_s)
        self.record(worker, at_s, counters)
        if isinstance(counters, str):
            self._pages.pop(worker, None)
            self._waiting.pop(worker, None)
            self.with_bought(worker, None)
            return counters
        before = self._pages.get(worker)
        if before is not None and written_at_s is not None and before.written_at_s == written_at_s:
            self._waiting[worker] = (*self._waiting.get(worker, ()), *asked)
            return None
        asked = (*self._waiting.pop(worker, ()), *asked)
        self._pages[worker] = _Reading(at_s, counters, written_at_s)
        told = None if before is None else synapse_metrics.tally(before.counters, counters, before.at_s, at_s)
        bought = self.with_bought(worker, None if isinstance(told, str) else told)
        return told if isinstance(told, str) or bought is None else reduce(with_canary, asked, bought)

    def counters(self) -> dict[WorkerId, synapse_metrics.Counters]:
        """Return the last page of each worker that could be read."""
        return {worker: reading.counters for worker, reading in self._pages.items()}

    def dated(self) -> frozenset[WorkerId]:
        """Name the workers whose last page says itself when it was written, so that it may be the same as the one before."""
        return frozenset(worker for worker, reading in self._pages.items() if reading.written_at_s is not None)

    def buy(self, worker: WorkerId, answer: Answer) -> None:
        """Take in what came of a request that buys evidence: it belongs to the next measurement of that worker."""
        with self._buying:
            self._bought[worker] = (*self._bought.get(worker, ()), answer)

    def with_bought(self, worker: WorkerId, tally: Tally | None) -> Tally | None:
        """Add what was bought since the last time; where nothing was measured meanwhile it counts for nothing."""
        with self._buying:
            bought = self._bought.pop(worker, ())
        if tally is None or not bought:
            return tally
        return reduce(with_canary, bought, replace(tally, bought=tally.bought + len(bought)))

    def with_proxies(
        self, workers: Collection[WorkerId], tallies: Mapping[WorkerId, Tally], at_proxy: Mapping[WorkerId, ProxySighting]
    ) -> dict[WorkerId, Tally]:
        """
        Add what each proxy has counted between the looks before the two measurements; *at_proxy* is the last one.

        A request that fails may be counted as an error, as a 5xx, or as both: of the two counts the greater one is taken.
        """
        counted = dict(tallies)
        for worker in workers:
            now, before = at_proxy.get(worker), self._counted.get(worker)
            if now is None or now.requests is None or now.cuts is None or (before is not None and worker not in tallies):
                continue
            self._counted[worker] = now
            if before is None or worker not in tallies:
                continue
            many = grown(before.requests or 0, now.requests)
            failed = max(grown(before.cuts or 0, now.cuts), grown(before.counters.get(_5XX, 0), now.counters.get(_5XX, 0)))
            if many or failed:
                # What failed may have come before this time.
                counted[worker] = changed(tallies[worker], proxied=float(max(many, failed)), proxy_failures=float(failed))
        return counted


def with_canary(tally: Tally, answer: Answer) -> Tally:
    """Add a canary's answer to what a worker did."""
    bucket = next((index for index, edge in enumerate(LATENCY_EDGES_S) if answer.seconds <= edge), len(LATENCY_EDGES_S))
    latency = tuple(many + (answer.ok and index == bucket) for index, many in enumerate(tally.canary_latency))
    return replace(tally, canaries=tally.canaries + 1, canary_failures=tally.canary_failures + (not answer.ok), canary_latency=latency)


def _not_of_now(written_at_s: float | None, read_at_s: float) -> str:
    """Say why a page with a date is not believed; nothing where it is."""
    if written_at_s is None or abs(read_at_s - written_at_s) <= PAGE_AGE_MAX_S:
        return ""
    if written_at_s < read_at_s:
        return f"its page says itself that it is {read_at_s - written_at_s:.0f} s old"
    return f"its page says itself that it was written {written_at_s - read_at_s:.0f} s from now: that clock is ahead of ours"
