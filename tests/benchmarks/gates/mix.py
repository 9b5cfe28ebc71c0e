"""
Restarts whose users ask for other things than before: how often a good one is taken back for that, and how soon a bad one is found, with
requests told apart by servlet and without. `python -m tests.benchmarks.gates.mix RUNS` prints a row for each kind.

Eight servlets have log-normal latencies of their own; what they share wavers, as in traces.py, and a cold cache decays in half a minute.
"""

import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import add

import numpy as np
from scipy.special import ndtr

from rollout.gating.curves import CURVES, Curve, Kind
from rollout.gating.sequential import BLOCK_S, Kept, Seen, rule, weigh
from rollout.gating.windows import Window
from rollout.model.gate import LATENCY_EDGES_S, Metric, Ruling, Stratum, Tally
from tests.benchmarks.gates import ours

# The median's logarithm against MEDIAN_S, and the standard deviation.
KINDS = {
    "Join": (2.6, 0.9),
    "Keys": (-2.2, 0.6),
    "Members": (0.5, 0.6),
    "Messages": (-0.3, 0.7),
    "Profile": (-1.6, 0.4),
    "Search": (1.6, 0.8),
    "Send": (0.2, 0.6),
    "State": (-0.8, 0.5),
}
USUAL = dict(zip(KINDS, (0.01, 0.30, 0.05, 0.18, 0.08, 0.03, 0.25, 0.10), strict=True))
MIXES = {
    "as before": USUAL,
    "twice as many searches and joins": {**USUAL, "Join": 0.02, "Search": 0.06, "Keys": 0.26},
    "five times as many": {**USUAL, "Join": 0.05, "Search": 0.15, "Keys": 0.14},
}
MEDIAN_S = 0.06
# Twenty blocks are watched.
BLOCKS = 20
ODDS = 6200.0
# What wavers does so for about two minutes.
_KEEPS = math.exp(-BLOCK_S / 120.0)
_SHARED, _OWN = 0.08, 0.05
_EDGES = np.log(LATENCY_EDGES_S)
_EARLIER = (CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 30.0)),) * 5
_COLD = Curve(Kind.EXPONENTIAL, 0.9, 30.0)


@dataclass(frozen=True, slots=True)
class Setup:
    """A worker with *per_s* requests a second, a baseline of *baseline_s* seconds, and so many *peers*, whose users stay as they were."""

    per_s: float
    baseline_s: float
    peers: int


def seen(seed: int, setup: Setup, mix: Mapping[str, float], ratio: float) -> Seen:
    """Draw what is seen of one restart; its latencies are *ratio* times as long as before."""
    rng = np.random.default_rng(seed)
    before = round(setup.baseline_s / BLOCK_S)
    shared, own = _wavering(rng, _SHARED, before + BLOCKS), _wavering(rng, _OWN, before + BLOCKS)
    baseline = [_drawn(rng, index, USUAL, shared[index] + own[index], setup.per_s) for index in range(before)]
    theirs = setup.per_s * setup.peers
    pool = [_drawn(rng, index, USUAL, shared[index], theirs) for index in range(before + BLOCKS)] if setup.peers else []
    admitted_s = before * BLOCK_S
    blocks = []
    for index in range(before, before + BLOCKS):
        cold = _COLD.level((index + 0.5) * BLOCK_S - admitted_s)
        worker = _drawn(rng, index, mix, shared[index] + own[index] + math.log(ratio) + cold, setup.per_s)
        blocks.append(Window(worker, (), pool[index] if pool else None))
    its = functools.reduce(add, pool[:before]) if pool else None
    return Seen(tuple(blocks), functools.reduce(add, baseline), its, _EARLIER, admitted_s)


def not_told_apart(its: Seen) -> Seen:
    """Leave out of what kind the requests are."""
    blocks = tuple(Window(_plain(block.own), (), None if block.controls is None else _plain(block.controls)) for block in its.blocks)
    pool = None if its.pool is None else _plain(its.pool)
    return its._replace(blocks=blocks, baseline=None if its.baseline is None else _plain(its.baseline), pool=pool)


def ruled(its: Seen) -> tuple[Ruling, float]:
    """Look after each block, until it fails: the last ruling that is one, and after how many seconds it came."""
    found: tuple[Ruling, float] = (Ruling.PENDING, BLOCKS * BLOCK_S)
    kept: Kept | None = None
    for count in range(1, len(its.blocks) + 1):
        found, kept = _look(its._replace(blocks=its.blocks[:count]), kept, found)
        if found[0] is Ruling.FAIL:
            break
    return found


def _look(its: Seen, kept: Kept | None, before: tuple[Ruling, float]) -> tuple[tuple[Ruling, float], Kept | None]:
    gate = ours.gate(Metric.LATENCY_P95, ODDS)
    odds, kept = weigh(gate, its, kept)
    now_s = its.blocks[-1].own.until_s
    ruling = rule(gate, its, odds, unmeasured=None, now_s=now_s).ruling
    is_news = ruling is Ruling.FAIL or (ruling is Ruling.PASS and before[0] is not Ruling.PASS)
    return ((ruling, now_s - its.admitted_at_s) if is_news else before), kept


def _plain(tally: Tally) -> Tally:
    return replace(tally, strata=())


def _wavering(rng: np.random.Generator, deviation: float, blocks: int) -> list[float]:
    values = [float(rng.normal(0, deviation))]
    while len(values) < blocks:
        values.append(_KEEPS * values[-1] + float(rng.normal(0, deviation * math.sqrt(1 - _KEEPS**2))))
    return values


def _drawn(rng: np.random.Generator, index: int, mix: Mapping[str, float], shift: float, per_s: float) -> Tally:
    apart = []
    for name, share in sorted(mix.items()):
        median, deviation = KINDS[name]
        below = ndtr((_EDGES - math.log(MEDIAN_S) - median - shift) / deviation)
        counts = [float(count) for count in rng.poisson(per_s * BLOCK_S * share * np.diff(below, prepend=0.0, append=1.0))]
        apart.append(Stratum(name, requests=sum(counts), latency=tuple(counts)))
    latency = tuple(map(sum, zip(*(one.latency for one in apart), strict=True)))
    asked = tuple(one for one in apart if one.requests)
    return Tally(index * BLOCK_S, (index + 1) * BLOCK_S, requests=sum(latency), latency=latency, strata=asked)


def rows(runs: Sequence[int]) -> Iterator[str]:
    """Print a row for each kind."""
    for setup in (Setup(1.0, 300.0, 4), Setup(5.0, 300.0, 4), Setup(5.0, 1800.0, 4), Setup(5.0, 1800.0, 0)):
        for name, mix in MIXES.items():
            for ratio in (1.0, 1.5, 2.0):
                every = [seen(run, setup, mix, ratio) for run in runs]
                told, blind = _counted([ruled(one) for one in every]), _counted([ruled(not_told_apart(one)) for one in every])
                yield f"{setup.per_s:g}/s, {setup.baseline_s:g} s, {setup.peers} peers, {name}, × {ratio:g}: told apart {told}; not {blind}"


def _counted(found: Sequence[tuple[Ruling, float]]) -> str:
    said = []
    for ruling in (Ruling.PASS, Ruling.FAIL):
        times = sorted(at_s for its, at_s in found if its is ruling)
        said.append(f"{len(times)} {ruling}" + (f" ({times[len(times) // 2]:.0f} s)" if times else ""))
    return f"{' and '.join(said)} of {len(found)}"


if __name__ == "__main__":
    for row in rows(range(int(sys.argv[1]))):
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
