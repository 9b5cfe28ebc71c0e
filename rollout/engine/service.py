"""
How users are served, whoever serves them: how many requests are under way, how long they take, and how many fail.

Gates compare a worker with its own past and with its siblings, so what is slow for everybody condemns nobody. These have limits that
compare with nothing: while the homeserver is beyond one of them nobody is taken out.

A table that is locked shows first in what is under way. What waits is not completed, so neither its time nor its failure is counted yet;
and a thousand requests may wait at one worker while the others have none, so it is the worst of them that counts. The other two are of all
workers together, over the last minute; where that has too few requests, over up to ten, and where these do too, nothing is known.

Synapse's page has a line only for servlets with requests under way. So no line may mean none, or a name that a release has changed: as long
as no page has shown any (a long-poll would do), it isn't known either.

Source: synapse/http/request_metrics.py of 1.163.2.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from rollout.gating.evidence import P95, quantile
from rollout.homeservers.synapse.metrics import Counters
from rollout.model.gate import LATENCY_EDGES_S, GuardReading
from rollout.model.ids import WorkerId

IN_FLIGHT, LATENCY, ERRORS = "in_flight", "latency_p95_s", "error_ratio"
# The shortest of these in which enough requests were completed. What is longer ago than the last of them says nothing about now.
WITHIN_S = (60.0, 120.0, 300.0, 600.0)
# Three slow ones of so many are more than one in twenty. A homeserver with one request every ten seconds has them within ten minutes.
SAMPLES_MIN = 50
# Over less than this, what came at once would decide.
MEASURED_MIN_S = 10.0
# Of a worker that nobody measures otherwise, pages are read anew when they are older than 30 s (engine/files.py).
FRESH_S = 45.0
# Pages come every few seconds, and not all of ten minutes' are needed.
_APART_S = 10.0
# Sums of the same numbers may differ in their last digits.
_ROUNDING = 1e-6


class _Seen(NamedTuple):
    """
    A page. *counts* are its requests of all kinds, how many of them failed, and its ordinary ones by LATENCY_EDGES_S.

    *total* is how many of each there were since this worker was first looked at, its restarts counted in.
    """

    at_s: float
    started_at_s: float
    in_flight: float | None
    counts: tuple[float, ...]
    total: tuple[float, ...]


class Service:
    """What was seen of every worker in the last ten minutes. One thread may record while another reads."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, tuple[_Seen, ...]] = {}
        self._untold: dict[WorkerId, str] = {}
        self._tells_in_flight = False

    def record(self, worker: WorkerId, at_s: float, counters: Counters | str) -> None:
        """Take in a page that was read at *at_s*, or why it could not be."""
        if isinstance(counters, str):
            self._untold[worker] = counters
            return
        self._untold.pop(worker, None)
        self._tells_in_flight = self._tells_in_flight or counters.in_flight is not None
        counts = (counters.requests + counters.polls, counters.errors, *counters.latency)
        before = self._seen.get(worker, ())
        # What is later than now, by a clock that was set, is no page of before.
        if before and (before[0].at_s < at_s - WITHIN_S[-1] or before[-1].at_s >= at_s):
            before = tuple(one for one in before if at_s - WITHIN_S[-1] <= one.at_s < at_s)
        total = _total(before[-1], at_s, counters.started_at_s, counts) if before else None
        now = _Seen(at_s, counters.started_at_s, counters.in_flight, counts, total or (0.0,) * len(counts))
        if total is None:
            before = ()
        elif len(before) > 1 and before[-1].at_s - before[-2].at_s < _APART_S:
            before = before[:-1]
        self._seen[worker] = (*before, now)

    def guards(self, workers: Collection[WorkerId], now_s: float) -> tuple[GuardReading, ...]:
        """Say how *workers* serve their users; unknown as long as one of them was not measured lately."""
        seen = {worker: self._seen.get(worker, ()) for worker in workers}
        blind = next(
            (
                f"{worker}: {self._untold.get(worker, 'not measured lately')}"
                for worker, its in seen.items()
                if worker in self._untold or not its or now_s - its[-1].at_s > FRESH_S
            ),
            "" if seen else "not measured yet",
        )
        if blind:
            return tuple(GuardReading(guard, None, blind) for guard in (IN_FLIGHT, LATENCY, ERRORS))
        return self._in_flight(seen), *_served(seen, now_s)

    def _in_flight(self, seen: Mapping[WorkerId, Sequence[_Seen]]) -> GuardReading:
        if not self._tells_in_flight:
            return GuardReading(IN_FLIGHT, None, "no page has shown a request under way yet", short=True)
        many = {worker: its[-1].in_flight or 0.0 for worker, its in seen.items()}
        most = max(many, key=lambda worker: many[worker])
        return GuardReading(IN_FLIGHT, many[most], most)


def _total(before: _Seen, at_s: float, started_at_s: float, counts: tuple[float, ...]) -> tuple[float, ...] | None:
    """Add up what was done until a page; None where that can't be known, as in homeservers.synapse.metrics.tally."""
    pairs = zip(before.total, before.counts, counts, strict=True)
    if started_at_s == before.started_at_s and all(now >= then - _ROUNDING for then, now in zip(before.counts, counts, strict=True)):
        return tuple([total + max(0.0, now - then) for total, then, now in pairs])
    if before.at_s <= started_at_s <= at_s:
        return tuple([total + now for total, _, now in pairs])
    return None


def _served(seen: Mapping[WorkerId, Sequence[_Seen]], now_s: float) -> tuple[GuardReading, GuardReading]:
    """Say how long the requests of all workers took, and how many failed."""
    for worker, its in seen.items():
        if (measured_s := its[-1].at_s - its[0].at_s) < MEASURED_MIN_S:
            why = f"{worker}: measured for {measured_s:.0f} s, and {MEASURED_MIN_S:.0f} s are needed"
            return GuardReading(LATENCY, None, why, short=True), GuardReading(ERRORS, None, why, short=True)
    return _latency(seen, now_s), _errors(seen, now_s)


def _latency(seen: Mapping[WorkerId, Sequence[_Seen]], now_s: float) -> GuardReading:
    (_, _, *latency), within_s = _lately(seen, now_s, slice(2, None))
    if (requests := sum(latency)) < SAMPLES_MIN:
        return _too_few(LATENCY, requests, "requests that are no long-polls")
    value = quantile(tuple(latency), P95)
    longer = f", {LATENCY_EDGES_S[-1]:g} s or more" if value == LATENCY_EDGES_S[-1] else ""
    return GuardReading(LATENCY, value, f"of {requests:.0f} in {within_s:.0f} s{longer}")


def _errors(seen: Mapping[WorkerId, Sequence[_Seen]], now_s: float) -> GuardReading:
    (requests, errors, *_), within_s = _lately(seen, now_s, slice(1))
    if requests < SAMPLES_MIN:
        return _too_few(ERRORS, requests, "requests")
    return GuardReading(ERRORS, errors / requests, f"of {requests:.0f} in {within_s:.0f} s")


def _lately(seen: Mapping[WorkerId, Sequence[_Seen]], now_s: float, samples: slice) -> tuple[list[float], float]:
    """Add up what all did lately, and say within what time: the shortest in which there are enough of *samples*, or else the longest."""
    for within_s in WITHIN_S[:-1]:
        done = _since(seen, now_s - within_s)
        if sum(done[samples]) >= SAMPLES_MIN:
            return done, within_s
    return _since(seen, now_s - WITHIN_S[-1]), WITHIN_S[-1]


def _since(seen: Mapping[WorkerId, Sequence[_Seen]], since_s: float) -> list[float]:
    """Add up what all have done since then, each since the last page before; who has none of before, since its first."""
    done = [0.0] * (2 + len(LATENCY_EDGES_S) + 1)
    for its in seen.values():
        first = next((one for one in reversed(its) if one.at_s <= since_s), its[0])
        done = [sum_ + now - then for sum_, then, now in zip(done, first.total, its[-1].total, strict=True)]
    return done


def _too_few(guard: str, requests: float, what: str) -> GuardReading:
    return GuardReading(
        guard, None, f"{requests:.0f} of the {SAMPLES_MIN} {what} that are needed within {WITHIN_S[-1] / 60:.0f} min", short=True
    )
