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
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from rollout.gating.shift import PSEUDO, Shape, Strata, is_placed, shape_of
from rollout.model.gate import LATENCY_EDGES_S, Metric, Stratum, Tally, is_told_apart

# Besides the rest. A look at a block takes a time that grows with their number.
STRATA_MAX = 10
# With fewer the rest knows better how long such requests take.
REQUESTS_MIN = 30.0
# A kind that few asked for before is known badly: of more than so many times its share, and what chance adds to that, only as much counts.
_GROWS_MAX = 2.0
_BUCKETS = len(LATENCY_EDGES_S) + 1
_NO_REQUEST = (0.0,) * _BUCKETS


def are_told_apart(tallies: Iterable[Tally | None]) -> bool:
    """Tell whether all these tallies say of what kind their requests are, and there are any."""
    some = False
    for tally in tallies:
        if tally is not None:
            if not is_told_apart(tally):
                return False
            some = some or bool(tally.strata)
    return some


def shape_by_strata(own: Tally, pool: Tally | None) -> Shape | None:
    """
    Make the shape of a baseline with its strata side by side; None where there is nothing to tell apart.

    Of the pool PSEUDO requests stand in, as in shape_of: of each stratum its share.
    """
    most = sorted(own.strata, key=lambda one: one.requests, reverse=True)
    names = tuple(one.name for one in most if one.requests >= REQUESTS_MIN and is_placed(_whole(one.latency)))[:STRATA_MAX]
    if not names:
        return None
    mine = _apart(own, names)
    theirs = None if pool is None or not pool.strata or not sum(pool.latency) else _apart(pool, names)
    whole = 0.0 if theirs is None else sum(map(sum, theirs))
    shapes = []
    for index, counts in enumerate(mine):
        its = None if theirs is None else theirs[index]
        pseudo = 0.0 if its is None else PSEUDO * sum(its) / whole
        # Less than a request is what rounding has left of the rest.
        shapes.append(shape_of(counts, its, pseudo) if sum(counts) >= 1 else None)
    total = sum(map(sum, mine))
    # What was never asked for before can't be compared with anything.
    shares = tuple(0.0 if shape is None else sum(counts) / total for shape, counts in zip(shapes, mine, strict=True))
    plain = [None if shape is None else shape.plain for shape in shapes]
    tailed = [None if shape is None else shape.tailed for shape in shapes]
    return Shape(total, _beside(plain), _beside(tailed), Strata(names, shares))


def counts_by_strata(tally: Tally, strata: Strata) -> tuple[float, ...]:
    """Lay the requests of a block out as the shape has them, of each stratum as many as may count."""
    apart = _apart(tally, strata.names)
    total = sum(map(sum, apart))
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


def _beside(tables: Sequence[tuple[tuple[float, ...], ...] | None]) -> tuple[tuple[float, ...], ...]:
    """Put tables side by side; one that isn't there says the same of every shift."""
    shifts = len(next(table for table in tables if table is not None))
    return tuple(tuple(chain.from_iterable(_NO_REQUEST if table is None else table[row] for table in tables)) for row in range(shifts))
