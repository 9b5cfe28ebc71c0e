"""
Whether a restarted worker is slower than it was, and whether it surely is not: two tests over all its requests since its admission.

Hypotheses say by which *ratio* requests take longer for good, and by which *curve* (curves.py) they do besides while caches fill. How
likely each of them makes what was seen, block by block, is added up (hypotheses.py). A worker is bad if it is slower for good, or if it
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
from dataclasses import dataclass, replace
from functools import cached_property
from operator import add
from typing import NamedTuple

from rollout.gating import hypotheses, shift
from rollout.gating.curves import Expected, levels
from rollout.gating.drift import STRAYS, Drift
from rollout.gating.hypotheses import Line, Parabola, Sums, mean
from rollout.gating.shift import Peak, Shape
from rollout.gating.strata import Apart

# A ratio up to which a worker is as good as before. Synapse's own releases differ by less.
GOOD_RATIO = 1.10
# Without anybody to compare with: what a shared database does in a bad minute must not condemn a worker.
GOOD_RATIO_ALONE = 1.35
_MORE_ALONE = math.log(GOOD_RATIO_ALONE / GOOD_RATIO)
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


@dataclass(frozen=True)
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

    @cached_property
    def good(self) -> float:
        """The greatest ratio (its logarithm) that is as good as before, with what a short baseline leaves unknown."""
        ratio = GOOD_RATIO if self.pool is not None else GOOD_RATIO_ALONE
        return max(math.log(ratio) + shift.SPREAD / math.sqrt(max(1.0, self.shape.requests)), math.log(self.accepted))

    @cached_property
    def bad(self) -> tuple[float, ...]:
        """The ratios (logarithms) of bad releases."""
        return tuple(log for log in map(math.log, _BAD_RATIOS) if log > self.good + APART) or (self.good + math.log(2),)

    @cached_property
    def good_ones(self) -> tuple[float, ...]:
        """The ratios (logarithms) of good releases."""
        # Those between are good as well; a step of a fifth is narrower than what a night's requests tell apart.
        between = math.ceil(self.good / _STEP_MAX)
        return (*_BETTER, *(self.good * step / between for step in range(1, between + 1)))

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        """All that are asked about: the good ones, the bad ones, and the limit of what passes (a logarithm)."""
        return (*self.good_ones, *self.bad, math.log(self.bad_ratio))


class Block(NamedTuple):
    """
    *seconds* of a worker and its pool's others, with their middle so long after admission: requests per bucket, or (mean, requests) where
    the basis is a Mean. None: no request, or nobody.
    """

    own: tuple[float, ...] | None
    pool: tuple[float, ...] | None
    seconds: float
    middle_s: float


class Excused(NamedTuple):
    """
    How likely the likeliest good hypothesis is, its ratio and curve, and by how much everybody is slower since nobody was left to compare
    with (*more*); and how likely the likeliest is that knows no curve (*flat*).
    """

    likely: float
    ratio: float
    curve: int
    more: float
    flat: float


class Level(NamedTuple):
    """
    How slow a worker was for some *seconds*, until so long after admission (a logarithm, less the *drift*), and the variance of that;
    *shared* is what the drift has in it, which stays the same from one block to the next. *alone* is the share of it for which there was
    nobody to compare with.
    """

    at: float
    variance: float
    seconds: float
    until_s: float
    shared: float
    drift: float = 0.0
    alone: float = 0.0


@dataclass(frozen=True)
class Heard:
    """
    What some blocks have said: of all ratios, of the good ones with very slow requests besides (None: there is no histogram in which
    these would show), and those of them in which nobody was left to compare with, *alone*.
    """

    setting: Setting
    drift: Drift
    plain: Sums
    tailed: Sums | None
    alone: Sums
    levels: tuple[Level, ...] = ()

    @cached_property
    def usual(self) -> list[float]:
        """What each curve is allowed, and what is the same for all ratios."""
        return list(map(add, self.plain.second, self.setting.expected.allowed))

    @cached_property
    def good(self) -> list[list[float]]:
        """Good ratios, each curve as likely as any."""
        return [self.plain.row(index, self.plain.second) for index in range(len(self.setting.good_ones))]

    @cached_property
    def bad(self) -> list[list[float]]:
        """Bad ratios, each curve as likely as it is allowed, and without those that are negligible."""
        good = len(self.setting.good_ones)
        return self.plain.likeliest(range(good, good + len(self.setting.bad)), self.usual)

    @cached_property
    def slower(self) -> float:
        """How likely they are together, whatever the drift has become since nobody was left to compare with."""
        rows = self.bad
        if self.alone.weight:
            good, bad = len(self.setting.good_ones), len(self.setting.bad)
            rows = [list(map(add, self.plain.row(index, self.usual), self._drifted(index))) for index in range(good, good + bad)]
        return mean(rows) + self.setting.expected.log_share

    def _drifted(self, index: int) -> list[float]:
        """How much likelier a ratio becomes with each curve on average over all drifts, as likely as they are."""
        weight, ratio = self.alone.weight, self.setting.ratios[index]
        prior = 0.5 / STRAYS**2
        doubt = -0.5 * math.log1p(weight / prior)
        return [doubt + (first - weight * ratio) ** 2 / (weight + prior) for first in self.alone.first]

    @cached_property
    def tail(self) -> float:
        """Likewise good ones with very slow requests besides."""
        if self.tailed is None:
            return -math.inf
        usual = list(map(add, self.tailed.second, self.setting.expected.allowed))
        most = mean(self.tailed.likeliest(range(len(self.tailed.ratios)), usual))
        return most + self.tailed.height - self.plain.height + self.setting.expected.log_share

    @cached_property
    def excused(self) -> Excused:
        """The likeliest of the good ones, as each curve is allowed."""
        allowed = self.setting.expected.allowed
        # Who recovers in an unusual way is excused for that, not for being slower for good besides.
        twice = list(map(add, allowed, allowed))
        good = [list(map(add, row, self._alone(ratio))) for ratio, row in zip(self.setting.good_ones, self.good, strict=True)]
        rows = [list(map(add, row, allowed if ratio == 0 else twice)) for ratio, row in zip(self.setting.good_ones, good, strict=True)]
        best, index = max((max(row), index) for index, row in enumerate(rows))
        ratio, curve = self.setting.good_ones[index], rows[index].index(best)
        more = self._more(self.alone.first[curve] - self.alone.weight * ratio)
        return Excused(best, ratio, curve, more, max(row[0] for row in good))

    def _alone(self, ratio: float) -> list[float]:
        """How much likelier a good ratio becomes with each curve by what the drift may be since nobody was left to compare with."""
        weight = self.alone.weight
        if not weight:
            return [0.0] * len(self.alone.first)
        gaps = [first - weight * ratio for first in self.alone.first]
        return [(2 * gap - weight * more) * more for gap, more in zip(gaps, map(self._more, gaps), strict=True)]

    def _more(self, gap: float) -> float:
        """By how much everybody is slower since then, at its likeliest: 2 gap δ − weight δ² has its maximum there."""
        return min(gap / self.alone.weight, _MORE_ALONE) if self.alone.weight else 0.0


class Said(NamedTuple):
    """What one block says; None of a worker without a request. *tailed* is that with very slow requests besides; *alone*: see Heard."""

    drift: Drift
    plain: hypotheses.Block | None = None
    tailed: hypotheses.Block | None = None
    level: Level | None = None
    alone: bool = False


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


def silence(setting: Setting) -> Heard:
    """Return what is known before the first block."""
    tailed = None if isinstance(setting.shape, Mean) else Sums(setting.good_ones)
    return Heard(setting, Drift(), Sums(setting.ratios), tailed, Sums(()))


def hear(heard: Heard, said: Said) -> Heard:
    """Take in what one more block says."""
    if said.plain is None or said.level is None:
        return replace(heard, drift=said.drift)
    tailed = heard.tailed if heard.tailed is None or said.tailed is None else heard.tailed.add(said.tailed)
    # A block of few requests says too little of that to be asked.
    alone = heard.alone.add(said.plain) if said.alone and isinstance(said.plain, Parabola) else heard.alone
    return Heard(heard.setting, said.drift, heard.plain.add(said.plain), tailed, alone, (*heard.levels, said.level))


def listen(heard: Heard, block: Block) -> Said:
    """Return what a block says after those that were *heard*."""
    setting = heard.setting
    seen = compared_with(setting, block.pool)
    # Without a pool nothing was ever seen of the drift.
    drift = heard.drift if setting.pool is None else heard.drift.follow(seen, block.seconds)
    if block.own is None or _requests(setting.shape, block.own) <= 0:
        return Said(drift)
    at = levels(block.middle_s)
    plain: hypotheses.Block
    tailed: hypotheses.Block | None = None
    if isinstance(setting.shape, Mean):
        peak = _peak(setting.shape, block.own)
        plain = _parabola(peak, drift, at)
    elif sum(block.own) >= _PARABOLA_MIN:
        peak = shift.peak_of(setting.shape.plain, block.own)
        plain = _parabola(peak, drift, at)
        tailed = _parabola(shift.peak_of(setting.shape.tailed, block.own), drift, at)
    else:
        line = shift.log_likelihood(setting.shape.plain, block.own)
        peak = shift.peak_on(line)
        # Of few requests the drift isn't asked: how far it strays is chance in each of these blocks.
        doubt = drift if seen is not None or setting.pool is None else replace(drift, variance=drift.variance + STRAYS**2)
        deviation = _deviation(doubt)
        plain = Line(line, deviation, drift.at, at)
        tailed = Line(shift.log_likelihood(setting.shape.tailed, block.own), deviation, drift.at, at)
    variance = peak.variance + drift.variance + WAVERS**2
    until_s = block.middle_s + block.seconds / 2
    level = Level(peak.at - drift.at, variance, block.seconds, until_s, drift.variance, drift.at, float(seen is None))
    return Said(drift, plain, tailed, level, alone=setting.pool is not None and seen is None)


def compared_with(setting: Setting, pool: tuple[float, ...] | None) -> Peak | None:
    """Say how slow its pool's others were in a block, by what was heard of them; None where that is nobody, or says next to nothing."""
    if setting.pool is None or pool is None or _requests(setting.pool, pool) <= 0:
        return None
    peak = _peak(setting.pool, pool)
    return peak if peak.variance < STRAYS**2 else None


def _requests(basis: Basis, own: tuple[float, ...]) -> float:
    return own[1] if isinstance(basis, Mean) else sum(own)


def _peak(basis: Basis, own: tuple[float, ...]) -> Peak:
    if not isinstance(basis, Mean):
        return shift.peak_of(basis.plain, own)
    mean, requests = own
    # A mean of log-normal costs is itself nearly log-normal.
    return Peak(math.log(max(mean, 1e-9 * basis.mean) / basis.mean), math.log1p(math.expm1(shift.SPREAD**2) / requests), 0.0)


def _parabola(peak: Peak, drift: Drift, at: tuple[float, ...]) -> Parabola:
    off = peak.at - drift.at
    # The same for all hypotheses: what is only nearly right must not be outdone by what claims to be exact.
    variance = drift.variance + WAVERS**2 + peak.variance + (_CURVE_DOUBT * max(0.0, off)) ** 2
    return Parabola(peak.height + 0.5 * math.log(peak.variance / variance), off, 0.5 / variance, at)


def _deviation(drift: Drift) -> float:
    deviation = math.sqrt(drift.variance + WAVERS**2)
    # What is known badly anyway gets no worse by a little more doubt.
    return deviation if deviation > _BLUR_MIN else 0.0


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
    alone = sum(weight * level.alone for weight, level in zip(weights, levels, strict=True)) / total
    return Level(at, 1 / total, seconds, levels[-1].until_s, shared, alone=alone)


def weigh(heard: Heard) -> Weighed:
    """Weigh everything that was heard. Nothing speaks for anything before there was a request."""
    if not heard.levels:
        return Weighed()
    good, excused = heard.good, heard.excused
    tops = list(map(max, good))
    best = max(tops)
    curve = max(len(row) - 1 - row[::-1].index(best) for row, top in zip(good, tops, strict=True) if top == best)
    # Those with a ratio that would be bad get every curve as well: a release is not excused for how its worker began.
    limit = heard.plain.row(len(heard.setting.ratios) - 1, heard.usual)
    worst = max([*map(max, heard.bad), max(limit)])
    now = _lately(heard.levels).at
    decays = excused.likely - excused.flat > 1.0
    return Weighed(heard.slower - excused.likely, heard.tail - excused.likely, best - worst, now, curve, decays)


def at_most(heard: Heard, said: Said) -> tuple[float, float]:
    """
    Return how much `weigh` can say at most of *slower* and *tail* with one more block: quickly, since it is asked about those who have
    passed, at each measurement.

    The block makes no hypothesis likelier than the one that it fits best, and the good one that was the likeliest still excuses as much as
    the block leaves of it.
    """
    excused, ratio, curve, more, _ = heard.excused
    slower, tail = heard.slower, heard.tail
    if isinstance(said.plain, Parabola):
        excused += said.plain.at(ratio + (more if said.alone else 0.0), curve)
        if isinstance(said.tailed, Parabola):
            tail += said.tailed.height - said.plain.height
    elif said.plain is not None:
        excused += said.plain.at(ratio, curve)
        slower += said.plain.most
        tail += said.tailed.most if isinstance(said.tailed, Line) else 0.0
    return slower - excused, tail - excused
