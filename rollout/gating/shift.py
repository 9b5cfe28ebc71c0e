"""
By how much a worker's requests take longer than before: the likelihood of every shift of its whole baseline.

A release that makes requests r times slower moves the whole histogram by ln r on a logarithmic axis. So the baseline's distribution is
kept as a curve, and each block of requests says how likely every shift of that curve is. A quantile read off one bucket can't do that: the
bucket from 0.1 to 0.25 s is 2.5 times as wide as its lower edge.

The curve is piecewise linear between bucket edges in probit against the logarithm of seconds, in which a log-normal is one straight line.
Beyond the edges that were reached it goes on with its mean slope.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from operator import mul
from statistics import NormalDist
from typing import TypeAlias

from rollout.model.gate import LATENCY_EDGES_S

# Shifts are looked at from one third to twenty times the time, in steps that a worker's own wavering is wider than.
STEP = 0.05
LOWEST = -1.0
SHIFTS = tuple(LOWEST + STEP * index for index in range(81))
# What a single request adds to the logarithm of its time: measured workers have a standard deviation of .9.
SPREAD = 0.9
# Requests that fit no shift: a stray one must not outweigh all others.
_STRAY = 1e-3
# Of the pool's distribution, so many requests stand in for what a short baseline of its own doesn't show.
PSEUDO = 20.0
# Of an edge below which, or beyond which, less than half a request lies, only that is known.
_REACHED_MIN = 0.5
# The share of requests that a release with a few very slow ones makes very slow, and beyond which share of the baseline that is.
TAIL_SHARE = 0.02
_TAIL_BEYOND = 0.002
_NORMAL = NormalDist()
_LOG_EDGES = tuple(map(math.log, LATENCY_EDGES_S))
_ROOT2 = math.sqrt(2)
_BUCKETS = len(LATENCY_EDGES_S) + 1


# For each of SHIFTS a logarithm for each bucket.
Table: TypeAlias = tuple[tuple[float, ...], ...]
# The points of a curve, in their order.
Knots: TypeAlias = tuple[tuple[float, float], ...]
# The first look for the top of a likelihood goes in steps of so many.
_STRIDE = 8
_FAR = range(0, len(SHIFTS), _STRIDE)


@dataclass(frozen=True)
class Shape:
    """
    A baseline of *requests* requests, whose curve goes through *knots*: the logarithm of an edge, and the probit of the share below it.

    *plain* and *tailed* hold, for each of SHIFTS, the logarithm of each bucket's probability: shifted as a whole, and likewise with
    TAIL_SHARE of very slow ones besides.
    """

    requests: float
    knots: Knots

    @cached_property
    def _shifted(self) -> tuple[list[float], ...]:
        return tuple(_shares(self.knots, shift) for shift in SHIFTS)

    @cached_property
    def plain(self) -> Table:
        return tuple(map(_logs, self._shifted))

    # Not every shape is asked for this: a pool's is not.
    @cached_property
    def tailed(self) -> Table:
        tail = _tail(self.knots)
        slow = [0.0] * tail + [TAIL_SHARE / (_BUCKETS - tail)] * (_BUCKETS - tail)
        return tuple(_logs([(1 - TAIL_SHARE) * share + more for share, more in zip(shares, slow, strict=True)]) for shares in self._shifted)


def shape_of(own: tuple[float, ...], pool: tuple[float, ...] | None = None) -> Shape | None:
    """
    Make the shape of a baseline's histogram (counts per bucket, not cumulative; see Tally). None without any request.

    *pool* is that of its pool, of which PSEUDO requests are added.
    """
    requests = sum(own)
    counts = own
    if pool is not None and (total := sum(pool)) > 0:
        counts = tuple(mine + PSEUDO * its / total for mine, its in zip(own, pool, strict=True))
    if sum(counts) <= 0:
        return None
    shape = Shape(requests, _knots(counts))
    # A curve through only one or two edges is wider than what they were drawn from, and doesn't lie where its own requests do.
    if abs(off := peak_of(shape.plain, counts).at) > STEP and SHIFTS[0] < off < SHIFTS[-1]:
        return Shape(requests, tuple((log_edge + off, probit) for log_edge, probit in shape.knots))
    return shape


def _logs(shares: list[float]) -> tuple[float, ...]:
    return tuple([log((1 - _STRAY) * share + _STRAY / _BUCKETS) for share in shares])


def _knots(counts: tuple[float, ...]) -> Knots:
    """Return the curve's points: the logarithm of an edge, and the probit of the share below it. At least two of them."""
    total, reached, knots = sum(counts), 0.0, []
    for log_edge, count in zip(_LOG_EDGES, counts, strict=False):
        reached += count
        # An edge that all or none have reached says only that the truth is somewhere beyond.
        if _REACHED_MIN <= reached <= total - _REACHED_MIN:
            knots.append((log_edge, _NORMAL.inv_cdf(reached / total)))
    if len(knots) > 1 and knots[-1][1] > knots[0][1]:
        return tuple(knots)
    if knots:
        log_edge, probit = knots[0]
    else:
        # All in one bucket: near its upper edge; shape_of moves the curve to where they are.
        bucket = max(range(len(counts)), key=counts.__getitem__)
        log_edge, probit = _LOG_EDGES[min(bucket, len(_LOG_EDGES) - 1)], 1.0
    return ((log_edge, probit), (log_edge + SPREAD, probit + 1.0))


def _shares(knots: Knots, shift: float) -> list[float]:
    """Return the probability of each bucket when the whole curve is shifted."""
    below = _below(knots, [log_edge - shift for log_edge in _LOG_EDGES])
    return [max(0.0, high - low) for low, high in zip([0.0, *below], [*below, 1.0], strict=True)]


def _below(knots: Knots, logs_s: Sequence[float]) -> list[float]:
    """Return the share below each of these logarithms of seconds."""
    (first, low), (last, high) = knots[0], knots[-1]
    slope = (high - low) / (last - first)
    below = []
    for log_s in logs_s:
        if log_s <= first:
            probit = low + slope * (log_s - first)
        elif log_s >= last:
            probit = high + slope * (log_s - last)
        else:
            right = bisect_left(knots, (log_s,))
            (left, its), (end, next_one) = knots[right - 1], knots[right]
            probit = its + (next_one - its) * (log_s - left) / (end - left)
        below.append(0.5 * math.erfc(-probit / _ROOT2))
    return below


def _tail(knots: Knots) -> int:
    """Return the first bucket of the very slow ones."""
    edge = next((index for index, below in enumerate(_below(knots, _LOG_EDGES)) if 1 - below <= _TAIL_BEYOND), len(_LOG_EDGES) - 1)
    return edge + 1


def log_likelihood(table: Table, counts: Sequence[float]) -> list[float]:
    """Return, for each of SHIFTS, how likely these counts per bucket are (a logarithm, up to the same constant for all)."""
    line = [0.0] * len(table)
    # It is asked for where requests are few, and so the buckets with any.
    for bucket, count in enumerate(counts):
        if count:
            line = [before + count * row[bucket] for before, row in zip(line, table, strict=True)]
    return line


def _used(counts: Sequence[float]) -> Sequence[float]:
    """Leave out the slowest buckets as far as they are empty, which they mostly are: nothing comes of them."""
    end = len(counts)
    while end and not counts[end - 1]:
        end -= 1
    return counts[:end]


@dataclass(frozen=True, slots=True)
class Peak:
    """Where a likelihood is greatest (a shift), the variance of that, and its logarithm there."""

    at: float
    variance: float
    height: float


def peak_of(table: Table, counts: Sequence[float]) -> Peak:
    """
    Find the shift by which these counts per bucket are the likeliest, by a parabola through the top.

    A likelihood over shifts has one top, but for stray requests; so it is looked for from far steps to near ones, not everywhere.
    """
    return _top(_Known(table, _used(counts)).__getitem__)


class _Known(dict[int, float]):
    """A likelihood over SHIFTS, each worked out when it is first asked for."""

    def __init__(self, table: Table, counts: Sequence[float]) -> None:
        super().__init__()
        self._table, self._counts = table, counts

    def __missing__(self, index: int) -> float:
        found: float = sum(map(mul, self._table[index], self._counts))
        self[index] = found
        return found


def peak_on(line: Sequence[float]) -> Peak:
    """Find the same in a likelihood of which all of SHIFTS is known."""
    return _top(line.__getitem__)


def _top(at: Callable[[int], float]) -> Peak:
    top = max(_FAR, key=at)
    stride = _STRIDE // 2
    while stride:
        top = max([place for place in (top - stride, top, top + stride) if 0 <= place < len(SHIFTS)], key=at)
        stride //= 2
    middle = min(max(top, 1), len(SHIFTS) - 2)
    left, here, right = at(middle - 1), at(middle), at(middle + 1)
    curvature = (2 * here - left - right) / STEP**2
    if curvature <= 0:
        return Peak(SHIFTS[top], 1.0, at(top))
    slope = (right - left) / (2 * STEP)
    # At either end of SHIFTS the parabola's own top may lie beyond.
    offset = max(-STEP, min(STEP, slope / curvature))
    return Peak(SHIFTS[middle] + offset, 1 / curvature, here + slope * offset - curvature * offset * offset / 2)


def blurred(likelihood: Sequence[float], deviation: float) -> list[float]:
    """Average a likelihood over SHIFTS over what is not known of the shift, which is normal with this standard deviation."""
    kernel = _kernel(deviation)
    reach, whole, top = len(kernel) - 1, 2 * sum(kernel) - kernel[0], max(likelihood)
    plain = [math.exp(one - top) for one in likelihood]
    padded = [plain[0]] * reach + plain + [plain[-1]] * reach
    sums = [kernel[0] * one for one in plain]
    for step, weight in enumerate(kernel[1:], 1):
        sides = zip(sums, padded[reach - step :], padded[reach + step :], strict=False)
        sums = [before + weight * (left + right) for before, left, right in sides]
    return [top + math.log(max(one / whole, _LEAST)) for one in sums]


def blurred_at(likelihood: Sequence[float], deviation: float, index: int) -> float:
    """Return one of what `blurred` returns, for a tenth of its price."""
    kernel = _kernel(deviation)
    top, last = max(likelihood), len(likelihood) - 1
    near = list(enumerate(kernel[1:], 1))
    places = [(index, kernel[0]), *((max(0, index - step), weight) for step, weight in near)]
    places += [(min(last, index + step), weight) for step, weight in near]
    found = sum(weight * math.exp(likelihood[place] - top) for place, weight in places)
    return top + math.log(max(found / (2 * sum(kernel) - kernel[0]), _LEAST))


_LEAST = 1e-300


def _kernel(deviation: float) -> list[float]:
    """Return the weights of what is so many steps away, from none on."""
    reach = max(1, math.ceil(2.5 * deviation / STEP))
    return [math.exp(-0.5 * (step * STEP / deviation) ** 2) for step in range(reach + 1)]
