"""
When a sequential gate will have ruled, reckoned before anything is measured: its own rules, asked of a worker that does just what is
expected of it.

Formulas were here before, and promised twice as much as was measured: a time that is long for good looks like a cold cache until the curves
that explain that part from it, and who isn't known to recover, or has few to be compared with, is excused for longer. All of that is
in the rules themselves, so they are asked: requests as many as usual, spread as in a log-normal, slow at first as workers are, and by a
ratio for good (or a share of them failing). What comes out is near the middle of what made-up restarts show
(tests/gating/test_foreseen.py), as luck helps about as often as it hinders.

Curves of earlier restarts are taken to be known, as after the first rollout.

Source: our own.
"""

import math
from bisect import bisect_right
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from rollout.gating import pooled, sequential
from rollout.gating.curves import Curve, Kind, named
from rollout.gating.latency import Level
from rollout.gating.sequential import BLOCK_S, BLOCKS_MAX, HISTOGRAMS, SHARES, Kept, Seen
from rollout.gating.shift import SPREAD
from rollout.gating.windows import extend_blocks
from rollout.model.gate import LATENCY_EDGES_S, Gate, Metric, Ruling, Tally

# What restarted workers do in the middle: twice as slow at once, and half of that gone after half a minute (as in tests/benchmarks/gates).
_COLD = Curve(Kind.EXPONENTIAL, 1.0, 40.0)
# How earlier restarts of such workers were explained.
_EARLIER = named(("exponential 0.9 30", "exponential 0.9 60", "exponential 0.4 60", "exponential 1.8 30", "plateau 0.9 30"))
# Any time would do: all that counts is how many times as long requests take.
_MEDIAN_S = 0.06
# Failures are asked about as often as a rollout looks, the rest when a block of evidence ends.
_LOOK_S = 5.0


class Facing(NamedTuple):
    """
    What a worker's sequential gate will have: *per_s* samples a second, also in the *baseline_s* before, of which the share *usual* fail,
    and *peers_per_s* of its pool's others to compare with (0: nobody).

    It is one of *workers* of its role, who follow one another every *turn_s*, pool by pool, *pool* workers each, and are watched for
    *watch_s* after the last.
    """

    per_s: float
    baseline_s: float
    peers_per_s: float
    workers: int
    pool: int
    turn_s: float
    watch_s: float
    usual: float

    @property
    def alone(self) -> bool:
        """Whether there is nobody to compare with."""
        return self.peers_per_s <= 0


class Foreseen(NamedTuple):
    """When it fails and when it passes, in seconds after admission (infinity: not in time), and what is known of it by then (*levels*)."""

    failed_s: float
    passed_s: float
    levels: tuple[Level, ...] = ()


def foresee(gate: Gate, facing: Facing, amount: float, until_s: float) -> Foreseen:
    """
    Say what *gate* makes of a worker until *until_s*: one that is *amount* times as slow or as expensive as before, or of which this share
    fails.
    """
    # Who follows whom, and for how long, changes nothing for one of them.
    return _foresee(replace(gate, metric=_like(gate.metric)), facing._replace(workers=1, pool=1, turn_s=0.0, watch_s=0.0), amount, until_s)


@lru_cache(maxsize=1024)
def _foresee(gate: Gate, facing: Facing, amount: float, until_s: float) -> Foreseen:
    share, since_s = gate.metric in SHARES, facing.baseline_s
    step_s, usual = (_LOOK_S, facing.usual) if share else (BLOCK_S, 0.0)
    peers = None if facing.alone else _tally(gate.metric, 0.0, since_s, facing.peers_per_s, usual)
    seen = Seen((), _tally(gate.metric, 0.0, since_s, facing.per_s, usual), peers, _EARLIER, since_s)
    kept: Kept | None = None
    odds, passed_s = None, math.inf
    for index in range(math.ceil(until_s / step_s)):
        from_s = since_s + index * step_s
        slower = amount if share else math.log(amount) + _COLD.level((index + 0.5) * step_s)
        own = _tally(gate.metric, from_s, from_s + step_s, facing.per_s, slower)
        beside = None if facing.alone else _tally(gate.metric, from_s, from_s + step_s, facing.peers_per_s, usual)
        seen = seen._replace(blocks=extend_blocks(seen.blocks, own, beside, BLOCK_S, BLOCKS_MAX))
        odds, kept = sequential.weigh(gate, seen, kept)
        ruling = sequential.rule(gate, seen, odds, unmeasured=None, now_s=from_s + step_s).ruling
        if ruling is Ruling.FAIL:
            return Foreseen(from_s + step_s - since_s, passed_s)
        if ruling is Ruling.PASS:
            passed_s = min(passed_s, from_s + step_s - since_s)
    return Foreseen(math.inf, passed_s, () if odds is None else odds.levels)


def together(foreseen: Foreseen, facing: Facing, turn: int, more_s: float = 0.0) -> float:
    """
    Return the logarithm of the odds against good workers of all together, *more_s* after that one was admitted whose *turn* it is.

    Who is left to be compared with grows fewer with each of a pool, and from the last one on a worker's evidence is worth much less.
    """
    ends_s = [level.until_s for level in foreseen.levels]
    known: dict[tuple[int, int], Level | None] = {}
    since: list[Level] = []
    for place in range(1, turn + 1):
        # Who is as far in another pool, and is watched for as long, shows the same.
        key = ((place - 1) % facing.pool, bisect_right(ends_s, (turn - place) * facing.turn_s + more_s))
        if key not in known:
            known[key] = _since(foreseen, facing, *key)
        if (level := known[key]) is not None:
            since.append(level)
    return pooled.weigh(since)[0]


def _since(foreseen: Foreseen, facing: Facing, before: int, blocks: int) -> Level | None:
    """Say what the first *blocks* tell of a worker since it passed, which so many of its pool came *before*."""
    alone_from_s = (facing.pool - 1 - before) * facing.turn_s
    levels = [level._replace(alone=float(facing.alone or level.until_s > alone_from_s)) for level in foreseen.levels[:blocks]]
    return pooled.since(levels, foreseen.passed_s)


def _tally(metric: Metric, since_s: float, until_s: float, per_s: float, amount: float) -> Tally:
    """Return what comes in: requests slower by *amount* (a logarithm), or of which that share fails."""
    requests = per_s * (until_s - since_s)
    if metric in SHARES:
        return Tally(since_s, until_s, requests=requests, errors=requests * amount)
    if metric in HISTOGRAMS:
        return Tally(since_s, until_s, requests=requests, latency=_histogram(requests, amount))
    return Tally(since_s, until_s, requests=requests, request_cpu_s=requests * math.exp(amount))


def _like(metric: Metric) -> Metric:
    """Return one of the same kind, to which the same arithmetic applies: whole requests are not asked for."""
    return Metric.ERRORS if metric in SHARES else Metric.LATENCY_P95 if metric in HISTOGRAMS else Metric.REQUEST_CPU


def _histogram(requests: float, slower: float) -> tuple[float, ...]:
    below = [0.5 * math.erfc((math.log(_MEDIAN_S) + slower - math.log(edge_s)) / (SPREAD * math.sqrt(2))) for edge_s in LATENCY_EDGES_S]
    return tuple(requests * (high - low) for low, high in zip([0.0, *below], [*below, 1.0], strict=True))
