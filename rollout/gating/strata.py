"""
Telling apart what users ask for: a worker that is asked for other things than before is not slower for that.

Each request is compared with those of its own kind (stratum) before. Of a histogram the buckets of all strata stand one after the other,
each with the baseline of its own, and one shift is looked for that fits all of them: so how many there are of each kind says nothing. Of
what a request costs only the mean is known; it is compared with what the same mix would have cost before.

Strata are the kinds with most requests in the baseline, and a rest, in which kinds are not told apart. A kind that could not be placed
within its buckets, or had few requests, belongs to the rest. Where a baseline's requests, or a worker's, are not told apart (an older
journal, a Prometheus without the label), nothing is: then all are the rest.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

from rollout.gating.shift import PSEUDO, SHIFTS, Shape, Table, shape_of
from rollout.model.gate import LATENCY_EDGES_S, Metric, Stratum, Tally, is_told_apart

# Besides the rest. A look at a block takes a time that grows with their number.
STRATA_MAX = 10
# With fewer the rest knows better how long such requests take.
REQUESTS_MIN = 30.0
# A kind that few asked for before is known badly: of more than so many times its share, and what chance adds to that, only as much counts.
_GROWS_MAX = 2.0
# Where more of the requests are of kinds that nobody asked for before, all are taken for one kind: those can be compared with nothing of
# their own, and a release that calls a servlet by another name must not pass by what is left.
UNKNOWN_MAX = 0.1
_BUCKETS = len(LATENCY_EDGES_S) + 1
# An edge that less than half a request has reached, or all but that, is no point of a curve.
_HALF = 0.5
_NO_REQUEST = (0.0,) * _BUCKETS


def known_kinds(baseline: Tally | None) -> frozenset[str]:
    """Name the kinds that were asked for before."""
    return frozenset() if baseline is None else frozenset(one.name for one in baseline.strata if one.requests or one.polls)


def unknown_requests(tally: Tally, known: frozenset[str]) -> float:
    """Count the requests of kinds that nobody asked for before."""
    return sum(one.requests + one.polls for one in tally.strata if one.name not in known)


def are_still_apart(before: bool | None, tally: Tally) -> bool | None:  # noqa: FBT001  (what this returned for the tallies before)
    """Tell whether all tallies so far say of what kind their requests are; None while there was no request."""
    if before is False or not is_told_apart(tally):
        return False
    return True if tally.strata else before


@dataclass(frozen=True)  # without slots, for what is worked out once it is asked for
class Apart:
    """
    A baseline of *requests* requests with the *shapes* of its strata side by side: of all *names*, and of the rest as the last.

    *shares* are those of its requests, and *others* the shares of those kinds that make up the rest. A shape is None where there was no
    request to make one of. *plain* and *tailed* as in Shape.
    """

    requests: float
    names: tuple[str, ...]
    shares: tuple[float, ...]
    shapes: tuple[Shape | None, ...]
    others: Mapping[str, float]

    @cached_property
    def plain(self) -> Table:
        """See Shape."""
        return _beside([None if shape is None else shape.plain for shape in self.shapes])

    @cached_property
    def tailed(self) -> Table:
        """See Shape."""
        return _beside([None if shape is None else shape.tailed for shape in self.shapes])


def shape_by_strata(own: Tally, pool: Tally | None) -> Apart | None:
    """
    Make the shape of a baseline with its strata side by side; None where there is nothing to tell apart.

    Of the pool PSEUDO requests stand in, as in shape_of: of each stratum its share.
    """
    most = sorted(own.strata, key=lambda one: one.requests, reverse=True)
    names = tuple(one.name for one in most if one.requests >= REQUESTS_MIN and _is_placed(one.latency))[:STRATA_MAX]
    if not names:
        return None
    mine = _apart(own, names)
    total = sum(map(sum, mine))
    theirs = None if pool is None or not pool.strata or not sum(pool.latency) else _apart(pool, names)
    part = 0.0 if theirs is None else PSEUDO / sum(map(sum, theirs))
    shapes = []
    for index, counts in enumerate(mine):
        its = _NO_REQUEST if theirs is None else theirs[index]
        # Less than a request is what rounding has left of the rest.
        known = sum(counts) >= 1
        shapes.append(shape_of(tuple([count + part * more for count, more in zip(counts, its, strict=True)])) if known else None)
    # What was never asked for before can't be compared with anything.
    shares = tuple(0.0 if shape is None else sum(counts) / total for shape, counts in zip(shapes, mine, strict=True))
    others = {one.name: one.requests / total for one in own.strata if one.requests and one.name not in names}
    return Apart(total, names, shares, tuple(shapes), others)


def _is_placed(latency: tuple[float, ...]) -> bool:
    """Tell whether a curve has two points or more (shift.py), and so where within their buckets its requests lie is known."""
    total = sum(latency)
    below = [reached for reached in accumulate(_whole(latency)[:-1]) if _HALF <= reached <= total - _HALF]
    return len(below) > 1 and below[-1] > below[0]


def counts_by_strata(tally: Tally, strata: Apart) -> tuple[float, ...]:
    """Lay the requests of a block out as the shape has them, of each stratum as many as may count."""
    apart = _apart(tally, strata.names)
    total = sum(map(sum, apart))
    rest = list(apart[-1])
    for one in tally.strata:
        if one.latency and one.name not in strata.names and one.requests > (most := _GROWS_MAX * total * strata.others.get(one.name, 0.0)):
            # The rest is no longer what it was where one of its kinds has grown.
            left_out = 1 - most / one.requests
            rest = [max(0.0, count - left_out * its) for count, its in zip(rest, _whole(one.latency), strict=True)]
    apart[-1] = tuple(rest)
    return tuple(chain.from_iterable(map(_thinned, apart, (_may_count(total * share) for share in strata.shares))))


def _may_count(expected: float) -> float:
    return _GROWS_MAX * (expected + math.sqrt(expected))


def _thinned(counts: tuple[float, ...], most: float) -> tuple[float, ...]:
    requests = sum(counts)
    return counts if requests <= most else tuple([count * most / requests for count in counts])


def costs_by_strata(metric: Metric, baseline: Tally) -> dict[str, float]:
    """Return what a request of each stratum cost on average in a baseline, and under "" one of the rest."""
    apart = sorted(((*_told(metric, one), one.name) for one in baseline.strata), reverse=True)
    named = [one for one in apart if one[0] >= REQUESTS_MIN][:STRATA_MAX]
    requests, cost = _told(metric, baseline)
    left = requests - sum(count for count, _, _ in named)
    # Of too few nothing is known but what all cost.
    count, spent = (left, cost - sum(its for _, its, _ in named)) if left >= REQUESTS_MIN else (requests, cost)
    return {"": max(0.0, spent) / count if count else 0.0, **{name: its / count for count, its, name in named}}


def excess(metric: Metric, tally: Tally, costs: Mapping[str, float]) -> float | None:
    """Return how many times as much its requests cost as so many of each stratum did before; None where that would be nothing."""
    requests, cost = _told(metric, tally)
    named = [(_told(metric, one)[0], costs[one.name]) for one in tally.strata if one.name in costs]
    left = max(0.0, requests - sum(count for count, _ in named))
    expected = left * costs[""] + sum(count * each for count, each in named)
    return cost / expected if expected > 0 else None


def _told(metric: Metric, of: Tally | Stratum) -> tuple[float, float]:
    """Return the requests behind a metric of costs, and what they cost together."""
    if isinstance(of, Tally):
        costs = (of.request_cpu_s, of.poll_cpu_s, of.poll_db_s, of.poll_scheduling_s)
    else:
        costs = (of.cpu_s, of.cpu_s, of.db_s, of.scheduling_s)
    count = of.requests if metric is Metric.REQUEST_CPU else of.polls
    return count, costs[_COSTS.index(metric)]


_COSTS = (Metric.REQUEST_CPU, Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING)


def _apart(tally: Tally, names: Sequence[str]) -> list[tuple[float, ...]]:
    """Return a histogram for each name, and that of the rest."""
    known = {one.name: _whole(one.latency) for one in tally.strata if one.latency}
    apart = [known.get(name, _NO_REQUEST) for name in names]
    rest = list(tally.latency)
    for counts in apart:
        rest = [max(0.0, whole - part) for whole, part in zip(rest, counts, strict=True)]
    return [*apart, tuple(rest)]


def _whole(latency: tuple[float, ...]) -> tuple[float, ...]:
    return latency + _NO_REQUEST[len(latency) :]


def _beside(tables: Sequence[Table | None]) -> Table:
    """Put tables side by side; one that isn't there says the same of every shift."""
    return tuple(tuple(chain.from_iterable(_NO_REQUEST if table is None else table[row] for table in tables)) for row in range(len(SHIFTS)))
