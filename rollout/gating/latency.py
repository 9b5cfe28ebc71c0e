"""
Whether a restarted worker is slower than it was, and whether it surely is not: two tests over all its requests since its admission.

Hypotheses say by which *ratio* requests take longer for good, and by which *curve* (curves.py) they do besides while caches fill. How
likely each of them makes what was seen, block by block, is kept as a sum of logarithms. A worker is bad if it is slower for good, or if it
has a share of very slow requests that it had not (shift.py). The e-value of that is the mean over the bad hypotheses over the greatest of
the good ones: the good ones get the best of all curves, so that a slow recovery explains what it can.

That it passes is a test of its own: the likeliest good hypothesis must be so many times as likely as the likeliest with a ratio that would
be bad. Between the two there is nothing to say yet.

Within a block requests share their luck: a worker wavers by itself, the drift of its pool is known only so well, and a curve is only nearly
right. These variances are added to what the number of requests explains, or a busy worker would be condemned for a cloud.

Source: docs/decisions/0016-sequential-gates.md; Wasserman, Ramdas and Balakrishnan, "Universal inference" (2020), for the ratio.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import NamedTuple

from rollout.gating import shift
from rollout.gating.curves import Expected, levels
from rollout.gating.drift import Drift
from rollout.gating.shift import Peak, Shape
from rollout.gating.strata import Apart

# A ratio up to which a worker is as good as before. Synapse's own releases differ by less.
GOOD_RATIO = 1.10
# Without anybody to compare with: what a shared database does in a bad minute must not condemn a worker.
GOOD_RATIO_ALONE = 1.35
_BAD_RATIOS = (1.3, 1.5, 1.8, 2.2, 3.0, 4.5, 7.0)
_BETTER = (math.log(0.9), 0.0)
_STEP_MAX = 0.2
# A bad ratio must differ from a good one by more than this (a logarithm), or the two can't be told apart in a night.
APART = 0.1
# How a worker wavers by itself from one half minute to the next.
WAVERS = 0.06
# How slow a worker is while it recovers is told by a curve to within this share of it.
_CURVE_DOUBT = 0.05
# With fewer requests in a block its likelihood is no parabola yet.
_PARABOLA_MIN = 12.0
_BLUR_MIN = 0.12
# No ratio, curve and drift lie so many steps beyond SHIFTS together.
_PADDING = 120
_RECENT_S = 45.0
DRIFT_LASTS_S = 120.0


@dataclass(frozen=True, slots=True)
class Mean:
    """
    What *requests* requests cost on average (any unit): all that is known where there is no histogram. *costs* tell it apart, by what is
    asked for (strata.py).
    """

    requests: float
    mean: float
    costs: Mapping[str, float] | None = None


Basis = Shape | Apart | Mean


@dataclass(frozen=True, slots=True)
class Setting:
    """
    What a worker is compared with: its *shape* before and that of its pool's others (None where there is nobody), and its ratios. One up
    to *accepted* is as good as before, since somebody has said so.
    """

    shape: Basis
    pool: Basis | None
    expected: Expected
    bad_ratio: float
    accepted: float = 1.0

    @property
    def good(self) -> float:
        """The greatest ratio (its logarithm) that is as good as before, with what a short baseline leaves unknown."""
        ratio = GOOD_RATIO if self.pool is not None else GOOD_RATIO_ALONE
        return max(math.log(ratio) + shift.SPREAD / math.sqrt(max(1.0, self.shape.requests)), math.log(self.accepted))

    @property
    def bad(self) -> tuple[float, ...]:
        """The ratios (logarithms) of bad releases."""
        return tuple(log for log in map(math.log, _BAD_RATIOS) if log > self.good + APART) or (self.good + math.log(2),)

    @property
    def good_ones(self) -> tuple[float, ...]:
        """The ratios (logarithms) of good releases."""
        # Those between are good as well; a step of a fifth is narrower than what a night's requests tell apart.
        between = math.ceil(self.good / _STEP_MAX)
        return (*_BETTER, *(self.good * step / between for step in range(1, between + 1)))


class Block(NamedTuple):
    """
    *seconds* of a worker and its pool's others, with their middle so long after admission: requests per bucket, or (mean, requests) where
    the basis is a Mean. None: no request, or nobody.
    """

    own: tuple[float, ...] | None
    pool: tuple[float, ...] | None
    seconds: float
    middle_s: float


# For each ratio, a logarithm for each curve.
_Sums = tuple[list[float], ...]


class Level(NamedTuple):
    """
    How slow a worker was for some *seconds*, until so long after admission (a logarithm, less the drift), and the variance of that;
    *shared* is what the drift has in it, which stays the same from one block to the next.
    """

    at: float
    variance: float
    seconds: float
    until_s: float
    shared: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What all blocks so far have said: sums for good and bad ratios, for the limit of what passes, and for the very slow requests."""

    drift: Drift = field(default_factory=Drift)
    good: _Sums = ()
    bad: _Sums = ()
    limit: _Sums = ()
    tailed: _Sums = ()
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True)
class Weighed:
    """
    Logarithms: *slower* and *tail* are e-values for a bad release, *fine* speaks against the ratio that would be bad; *now* is its level
    lately, and *curve* the index of that which fits best if it is good.
    """

    slower: float = 0.0
    tail: float = 0.0
    fine: float = 0.0
    now: float = math.inf
    curve: int = 0
    decays: bool = False


def hear(setting: Setting, heard: Heard, block: Block) -> Heard:
    """Take in one more block."""
    seen = None
    if setting.pool is not None and block.pool is not None and _requests(setting.pool, block.pool) > 0:
        seen = _peak(setting.pool, block.pool)
    drift = heard.drift.follow(seen, block.seconds)
    if block.own is None or _requests(setting.shape, block.own) <= 0:
        return replace(heard, drift=drift)
    if isinstance(setting.shape, Mean):
        plain = tailed = _Likelihood(_peak(setting.shape, block.own), drift, None)
    else:
        plain = _likelihood(setting.shape.plain, block.own, drift)
        tailed = _likelihood(setting.shape.tailed, block.own, drift)
    at = levels(block.middle_s)
    variance = plain.peak.variance + drift.variance + WAVERS**2
    level = Level(plain.peak.at - drift.at, variance, block.seconds, block.middle_s + block.seconds / 2, drift.variance)
    good = setting.good_ones
    return Heard(
        drift,
        _added(heard.good, plain, good, at),
        _added(heard.bad, plain, setting.bad, at),
        _added(heard.limit, plain, (math.log(setting.bad_ratio),), at),
        # Where there is no histogram nothing shows a few very slow ones.
        _added(heard.tailed, tailed, good, at) if tailed is not plain else (),
        (*heard.levels, level),
    )


def _requests(basis: Basis, own: tuple[float, ...]) -> float:
    return own[1] if isinstance(basis, Mean) else sum(own)


def _peak(basis: Basis, own: tuple[float, ...]) -> Peak:
    if not isinstance(basis, Mean):
        return shift.peak_of(basis.plain, own)
    mean, requests = own
    # A mean of log-normal costs is itself nearly log-normal.
    return Peak(math.log(max(mean, 1e-9 * basis.mean) / basis.mean), math.log1p(math.expm1(shift.SPREAD**2) / requests), 0.0)


class _Likelihood(NamedTuple):
    """Of one block, by how much requests take longer: a parabola, or the whole line where they are few."""

    peak: Peak
    drift: Drift
    line: list[float] | None


def _likelihood(table: shift.Table, counts: tuple[float, ...], drift: Drift) -> _Likelihood:
    if sum(counts) >= _PARABOLA_MIN:
        return _Likelihood(shift.peak_of(table, counts), drift, None)
    line = shift.log_likelihood(table, counts)
    deviation = math.sqrt(drift.variance + WAVERS**2)
    # What is known badly anyway gets no worse by a little more doubt.
    return _Likelihood(shift.peak_of(table, counts), drift, shift.blurred(line, deviation) if deviation > _BLUR_MIN else line)


def _added(sums: _Sums, one: _Likelihood, ratios: Sequence[float], at: tuple[float, ...]) -> _Sums:
    rows = _by_line(one.line, one.drift, ratios, at) if one.line is not None else _by_parabola(one, ratios, at)
    return rows if not sums else tuple(list(map(add, old, new)) for old, new in zip(sums, rows, strict=True))


def _by_parabola(one: _Likelihood, ratios: Sequence[float], at: tuple[float, ...]) -> _Sums:
    off = one.peak.at - one.drift.at
    # The same for all hypotheses: what is only nearly right must not be outdone by what claims to be exact.
    variance = one.drift.variance + WAVERS**2 + one.peak.variance + (_CURVE_DOUBT * max(0.0, off)) ** 2
    top, factor = one.peak.height + 0.5 * math.log(one.peak.variance / variance), 0.5 / variance
    # Written out: this is where nearly all of the time goes.
    return tuple([top - (gap := off - ratio - level) * gap * factor for level in at] for ratio in ratios)


def _by_line(line: list[float], drift: Drift, ratios: Sequence[float], at: tuple[float, ...]) -> _Sums:
    """Look each hypothesis up at the nearest shift: with so few requests a line changes little from one to the next."""
    # With the ends repeated, every hypothesis has its place.
    padded = [line[0]] * _PADDING + line + [line[-1]] * _PADDING
    steps = [level / shift.STEP for level in at]
    # A playbook may call a hundred times bad: beyond the last shift all are alike.
    last = len(padded) - 1 - max(steps)
    places = [min(last, _PADDING + 0.5 + (ratio + drift.at - shift.LOWEST) / shift.STEP) for ratio in ratios]
    return tuple([padded[int(place + step)] for step in steps] for place in places)


def _lately(levels: Sequence[Level]) -> Level:
    """Average the last ones, over as long as a level may be called present."""
    seconds, last = 0.0, 0
    for last in range(len(levels) - 1, -1, -1):
        seconds += levels[last].seconds
        if seconds >= _RECENT_S:
            break
    return mean_of(levels[last:])


def mean_of(levels: Sequence[Level]) -> Level:
    """Average levels by how well each is known."""
    weights = [1 / level.variance for level in levels]
    total = sum(weights)
    at = sum(weight * level.at for weight, level in zip(weights, levels, strict=True)) / total
    seconds = sum(level.seconds for level in levels)
    # What is wrong about the drift stays the same for about two minutes.
    shared = sum(level.shared for level in levels) / len(levels) * min(1.0, DRIFT_LASTS_S / max(seconds, 1.0))
    return Level(at, 1 / total, seconds, levels[-1].until_s, shared)


def weigh(setting: Setting, heard: Heard) -> Weighed:
    """Weigh everything that was heard. Nothing speaks for anything before there was a request."""
    if not heard.good:
        return Weighed()
    allowed, shares = setting.expected.allowed, setting.expected.shares
    best, curve = max((value, index) for row in heard.good for index, value in enumerate(row))
    # Who recovers in an unusual way is excused for that, not for being slower for good besides.
    twice = tuple(map(add, allowed, allowed))
    ratios = setting.good_ones
    excused = max(max(map(add, row, allowed if ratio == 0 else twice)) for ratio, row in zip(ratios, heard.good, strict=True))
    slower = _mean(heard.bad, shares) - excused
    tail = _mean(heard.tailed, shares) - excused if heard.tailed else -math.inf
    # Those with a ratio that would be bad get every curve as well: a release is not excused for how its worker began.
    worst = max(max(map(add, row, allowed)) for row in (*heard.limit, *heard.bad))
    now = _lately(heard.levels).at
    return Weighed(slower, tail, best - worst, now, curve, decays=excused - max(row[0] for row in heard.good) > 1.0)


def _mean(rows: _Sums, shares: tuple[float, ...]) -> float:
    """Average over ratios and curves; the result is a logarithm."""
    top = max(map(max, rows))
    total = sum(share * math.exp(value - top) for row in rows for share, value in zip(shares, row, strict=True) if value > top - 30)
    return top + math.log(max(total / len(rows), 1e-300))
