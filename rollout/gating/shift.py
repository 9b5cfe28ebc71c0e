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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
# The first look for the top of a likelihood goes in steps of so many.
_STRIDE = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """
    A baseline of *requests* requests. *plain* and *tailed* hold, for each of SHIFTS, the logarithm of each bucket's probability: shifted as
    a whole, and likewise with TAIL_SHARE of very slow ones besides.
    """

    requests: float
    plain: Table
    tailed: Table


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
    knots = _knots(counts)
    plain = _plain(knots)
    # A curve through only one or two edges is wider than what they were drawn from, and doesn't lie where its own requests do.
    if abs(off := peak_of(plain, counts).at) > STEP and SHIFTS[0] < off < SHIFTS[-1]:
        knots = tuple((log_edge + off, probit) for log_edge, probit in knots)
        plain = _plain(knots)
    tailed = []
    tail = _tail(knots)
    beyond = _BUCKETS - tail
    for shift in SHIFTS:
        mixed = (
            (1 - TAIL_SHARE) * share + (TAIL_SHARE / beyond if bucket >= tail else 0.0)
            for bucket, share in enumerate(_shares(knots, shift))
        )
        tailed.append(_logs(mixed))
    return Shape(requests, plain, tuple(tailed))


def _plain(knots: tuple[tuple[float, float], ...]) -> Table:
    return tuple(_logs(_shares(knots, shift)) for shift in SHIFTS)


def _logs(shares: Iterable[float]) -> tuple[float, ...]:
    return tuple(math.log((1 - _STRAY) * share + _STRAY / _BUCKETS) for share in shares)


def _knots(counts: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
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


def _shares(knots: tuple[tuple[float, float], ...], shift: float) -> list[float]:
    """Return the probability of each bucket when the whole curve is shifted."""
    below = [_below(knots, log_edge - shift) for log_edge in _LOG_EDGES]
    return [max(0.0, high - low) for low, high in zip([0.0, *below], [*below, 1.0], strict=True)]


def _below(knots: tuple[tuple[float, float], ...], log_s: float) -> float:
    (first, low), (last, high) = knots[0], knots[-1]
    slope = (high - low) / (last - first)
    if log_s <= first:
        probit = low + slope * (log_s - first)
    elif log_s >= last:
        probit = high + slope * (log_s - last)
    else:
        probit = high
        for (left, its), (right, next_one) in pairwise(knots):
            if log_s <= right:
                probit = its + (next_one - its) * (log_s - left) / (right - left)
                break
    return 0.5 * math.erfc(-probit / _ROOT2)


def _tail(knots: tuple[tuple[float, float], ...]) -> int:
    """Return the first bucket of the very slow ones."""
    edge = next((index for index, log_edge in enumerate(_LOG_EDGES) if 1 - _below(knots, log_edge) <= _TAIL_BEYOND), len(_LOG_EDGES) - 1)
    return edge + 1


def log_likelihood(table: Table, counts: Sequence[float]) -> list[float]:
    """Return, for each of SHIFTS, how likely these counts per bucket are (a logarithm, up to the same constant for all)."""
    return [sum(map(mul, row, counts)) for row in table]


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
    known: dict[int, float] = {}

    def at(index: int) -> float:
        if index not in known:
            known[index] = sum(map(mul, table[index], counts))
        return known[index]

    top = max(range(0, len(SHIFTS), _STRIDE), key=at)
    stride = _STRIDE // 2
    while stride:
        top = max((place for place in (top - stride, top, top + stride) if 0 <= place < len(SHIFTS)), key=at)
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


def blurred(likelihood: list[float], deviation: float) -> list[float]:
    """Average a likelihood over SHIFTS over what is not known of the shift, which is normal with this standard deviation."""
    reach = max(1, math.ceil(2.5 * deviation / STEP))
    kernel = [math.exp(-0.5 * (step * STEP / deviation) ** 2) for step in range(-reach, reach + 1)]
    whole, top = sum(kernel), max(likelihood)
    plain = [math.exp(one - top) for one in likelihood]
    padded = [plain[0]] * reach + plain + [plain[-1]] * reach
    width = len(kernel)
    sums = (sum(map(mul, kernel, padded[index : index + width])) for index in range(len(likelihood)))
    return [top + math.log(max(one / whole, 1e-300)) for one in sums]
