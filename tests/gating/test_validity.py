"""
How often the odds against good workers are ever high, where each model's own hypotheses say how they come about: 1/p with a chance of p.

Two kinds of odds are watched. Those of a gate are against the likeliest of all good hypotheses, whose curves explain so much that they are
hardly ever high. Those of one bad hypothesis against the good one that is true have nothing to spare: as soon as too much is made of what
was seen, too many are condemned. How many may be by chance, a binomial says.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from rollout.gating import latency, pooled
from rollout.gating.curves import CURVES, Curve, Kind, expected
from rollout.gating.drift import STRAYS
from rollout.gating.latency import APART, WAVERS, Block, Heard, Level, Mean, Setting, hear, listen, silence, weigh
from rollout.gating.shift import SPREAD, shape_of
from tests.gating import lognormal
from tests.gating.evidence_at_hand import BUCKETS

BLOCK_S = 30.0
BASELINE, PEERS = 40_000.0, 4
COST_S = 0.004
# As drift.py expects them: how far it walks in half a minute, and that those who are compared with waver. And as shift.py does: one request
# of a thousand may be anywhere.
WALK, PEERS_WAVER, STRAY = 0.06, 0.03, 1e-3
# So near to a bad ratio a good one may be.
NEAR = APART + 1e-3
QUICK = CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 30.0))
P = (0.05, 0.01)

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """
    *requests* in each of some *blocks* of a worker, of which the times are known, or only what they cost (*costs*); with four others, or
    *alone*; looked at *looks* times a block. It is slower for good, NEAR to what is *bad*, and for now by a *curve* that was learned.
    """

    requests: float
    blocks: int
    runs: int = 800
    costs: bool = False
    alone: bool = False
    looks: int = 1
    bad: float = 1.3
    curve: int = 0
    seed: int = 1


class Odds(NamedTuple):
    """
    Logarithms. The gate's: *slower*, and with a *tail* of very slow requests. And of one hypothesis against the true one: that it is just
    so slow as is bad (*one_slower*), and that it is as slow as it is and has very slow requests besides (*one_tail*).
    """

    slower: float
    tail: float
    one_slower: float
    one_tail: float


SLOWER = {
    "times": Course(60.0, 16),
    "times, alone": Course(60.0, 16, alone=True, bad=1.8),
    "costs": Course(60.0, 16, costs=True, curve=QUICK),
    "costs, alone": Course(240.0, 16, costs=True, alone=True, bad=1.8),
}
TAIL = Course(18.0, 8, runs=1200, looks=2)
# So many that what they share in a block is all that is not known.
BUSY = Course(6000.0, 8, runs=400)


def _setting(course: Course) -> Setting:
    baselines = BASELINE, PEERS * BASELINE
    own, pool = (Mean(count, COST_S) if course.costs else shape_of(lognormal.expected(count)) for count in baselines)
    assert own is not None
    return Setting(own, None if course.alone else pool, expected((course.curve,) * 5), 1.25, accepted=course.bad / math.exp(NEAR))


def _drawn(rng: np.random.Generator, course: Course, slower: float, requests: float) -> tuple[float, ...]:
    """Draw requests that take or cost e^*slower* times as much as before."""
    if course.costs:
        costs = rng.lognormal(math.log(COST_S) + slower - SPREAD**2 / 2, SPREAD, round(requests))
        return float(costs.mean()), requests
    means = (1 - STRAY) * np.array(lognormal.expected(requests, slower)) + STRAY * requests / BUCKETS
    return tuple(rng.poisson(means).astype(float).tolist())


def _blocks(rng: np.random.Generator, course: Course, good: float) -> Iterator[tuple[Block, ...]]:
    """Draw what is seen of a block at each look."""
    drift = rng.normal(0.0, STRAYS)
    for index in range(course.blocks):
        drift = rng.normal(0.0, STRAYS) if course.alone else drift + (rng.normal(0.0, WALK) if index else 0.0)
        slower = drift + rng.normal(0.0, WAVERS) + good + CURVES[course.curve].level((index + 0.5) * BLOCK_S)
        others = drift + rng.normal(0.0, PEERS_WAVER)
        own = [_drawn(rng, course, slower, course.requests / course.looks) for _ in range(course.looks)]
        pool = [_drawn(rng, course, others, PEERS * course.requests / course.looks) for _ in range(course.looks)]
        yield tuple(
            Block(
                _sum(own[:count]),
                None if course.alone else _sum(pool[:count]),
                BLOCK_S * count / course.looks,
                (index + count / course.looks / 2) * BLOCK_S,
            )
            for count in range(1, course.looks + 1)
        )


def _sum(parts: list[tuple[float, ...]]) -> tuple[float, ...]:
    return parts[0] if len(parts) == 1 else tuple(map(sum, zip(*parts, strict=True)))


def _odds(heard: Heard, curve: int) -> Odds:
    said, plain, tailed = weigh(heard), heard.plain, heard.tailed
    true = len(heard.setting.good_ones) - 1
    well = plain.row(true, plain.second)[curve]
    slow_tail = -math.inf if tailed is None else tailed.row(true, tailed.second)[curve] + tailed.height - plain.height - well
    return Odds(said.slower, said.tail, plain.row(true + 1, plain.second)[curve] - well, slow_tail)


def _highest(course: Course) -> Numbers:
    """Return the most that ever spoke against each worker: a row each, with a column for each of Odds."""
    rng, setting, tops = np.random.default_rng(course.seed), _setting(course), []
    assert setting.bad[0] - setting.good == pytest.approx(NEAR)
    for _ in range(course.runs):
        heard, seen = silence(setting), []
        for looks in _blocks(rng, course, setting.good):
            so_far = [hear(heard, listen(heard, block)) for block in looks]
            seen += [_odds(one, course.curve) for one in so_far if one.levels]
            heard = so_far[-1]
        tops.append(np.max(seen, axis=0))
    return np.array(tops)


_kept = functools.cache(_highest)


def _condemned(highest: Numbers, p: float) -> int:
    return int((highest >= math.log(1 / p)).sum())


def _allowed(runs: int, p: float) -> int:
    """Return how many of them may be condemned at most, with the chance of that itself at one in ten thousand."""
    return int(stats.binom.ppf(0.9999, runs, p))


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("name", [*SLOWER, "very slow requests"])
def test_a_good_worker_is_ever_condemned_no_oftener_than_the_odds_say(name: str, p: float) -> None:
    """By the gate's odds, and by those of one hypothesis that is near to the true one."""
    course = SLOWER.get(name, TAIL)
    for highest in _kept(course).T:
        assert _condemned(highest, p) <= _allowed(course.runs, p)


@pytest.mark.parametrize("name", list(SLOWER))
def test_odds_that_say_twice_as_much_would_show(name: str) -> None:
    """Their square: too many are condemned at 20 : 1. And as they are, some are: what never says anything would be as right."""
    course = SLOWER[name]
    highest = _kept(course)[:, Odds._fields.index("one_slower")]
    assert _condemned(highest, P[0]) > 0
    assert _condemned(2 * highest, P[0]) > _allowed(course.runs, P[0])


def test_odds_that_say_twice_as_much_of_a_tail_would_show() -> None:
    """One very slow request says much at once, and there seldom is one: so it shows at 100 : 1."""
    highest = _kept(TAIL)[:, Odds._fields.index("one_tail")]
    assert _condemned(highest, P[0]) > 0
    assert _condemned(2 * highest, P[1]) > _allowed(TAIL.runs, P[1])


@pytest.mark.parametrize("costs", [False, True])
def test_what_requests_share_in_a_block_would_be_missed(costs: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001  (one of two)
    """That a worker wavers counts, or each of its busy blocks would claim to know too much."""
    course = replace(BUSY, costs=costs)
    column = Odds._fields.index("one_slower")
    assert _condemned(_highest(course)[:, column], P[0]) <= _allowed(course.runs, P[0])
    monkeypatch.setattr(latency, "WAVERS", 1e-3)
    assert _condemned(_highest(course)[:, column], P[0]) > _allowed(course.runs, P[0])


# As pooled.py has it: up to there a release is good, and by so much workers differ for good.
GOOD, DIFFER = math.log(1.05), 0.06
TOGETHER, PASSED_S = 2000, 300.0


def _highest_together(alone: float) -> Numbers:
    """
    Return the most that ever spoke against all of a dozen workers of a good release. One more passes with each block, and counts for four.

    *alone* is the share for which there was nobody to compare with, so that what a day does to one it does to all of them.
    """
    rng, tops = np.random.default_rng(4), []
    for _ in range(TOGETHER):
        slower = GOOD + alone * rng.normal(0.0, STRAYS) + rng.normal(0.0, DIFFER, 12)
        seen = rng.normal(slower[:, None], 0.09, (12, 4)).tolist()
        levels = [[Level(at, 0.09**2, BLOCK_S, PASSED_S + (i + 1) * BLOCK_S, 0.0, alone=alone) for i, at in enumerate(its)] for its in seen]
        averages = [[pooled.since(its[: count + 1], PASSED_S) for count in range(4)] for its in levels]
        looks = ([its[min(3, now - at)] for at, its in enumerate(averages[: now + 1])] for now in range(15))
        tops.append(max(pooled.weigh([one for one in look if one is not None])[0] for look in looks))
    return np.array(tops)


@pytest.mark.parametrize("alone", [0.0, 1.0])
def test_good_workers_are_ever_condemned_together_no_oftener_than_the_odds_say(alone: float) -> None:
    """Some are at 20 : 1. Where the difference between workers is left out, too many are at 100 : 1."""
    highest = _highest_together(alone)
    assert all(_condemned(highest, p) <= _allowed(TOGETHER, p) for p in P)
    assert _condemned(highest, P[0]) > 0


@pytest.mark.parametrize(("name", "alone"), [("_DIFFER", 0.0), ("STRAYS", 1.0)])
def test_what_is_left_out_of_what_workers_share_would_show(name: str, alone: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """That they differ for good, and that a day is the same for all who are compared with nobody."""
    monkeypatch.setattr(pooled, name, 1e-3)
    assert _condemned(_highest_together(alone), P[1]) > _allowed(TOGETHER, P[1])
