"""
How a restarted worker recovers: its caches are cold, so it is slow at first, and then less and less.

Three kinds of curves are told apart: those that decay exponentially, those that stay where they are for a while first (a plateau), and
those with a long tail (a power law). Each says by which factor requests take longer, so long after admission: 1 + amount × decay.

How likely each curve is, is learned from the role's earlier restarts, of which the journal keeps the curve that fitted best. One that looks
like nothing seen before is not impossible, only unlikely; before anything was seen all are as likely as one another.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache


class Kind(StrEnum):
    """How the slowness goes away."""

    NONE = "none"
    EXPONENTIAL = "exponential"
    PLATEAU = "plateau"
    POWER_LAW = "power law"


@dataclass(frozen=True, slots=True)
class Curve:
    """*amount* is what is added at first (1.0 is twice as slow), *scale_s* how long it lasts (seconds; see the kinds)."""

    kind: Kind
    amount: float
    scale_s: float

    def level(self, seconds: float) -> float:
        """Return the logarithm of the factor, *seconds* after admission."""
        return math.log1p(self.amount * self.decay(seconds))

    def decay(self, seconds: float) -> float:
        """Return which part of the amount is left, *seconds* after admission."""
        match self.kind:
            case Kind.NONE:
                return 0.0
            case Kind.EXPONENTIAL:
                return math.exp(-seconds / self.scale_s)
            case Kind.PLATEAU:
                return math.exp(-max(0.0, seconds - self.scale_s) / (0.4 * self.scale_s))
            case Kind.POWER_LAW:
                return (1 + seconds / self.scale_s) ** -1.5  # type: ignore[no-any-return]


_AMOUNTS = (0.4, 0.9, 1.8, 3.2)
_SCALES_S = {Kind.EXPONENTIAL: (15.0, 30.0, 60.0, 120.0), Kind.PLATEAU: (30.0, 75.0), Kind.POWER_LAW: (20.0, 60.0)}
# What takes ten minutes or more. A cache that is cold for so long is very cold at first; what is only somewhat slow for ten minutes is
# rather a bad release.
_SLOW_SCALES_S = {Kind.EXPONENTIAL: (200.0, 260.0, 340.0), Kind.PLATEAU: (150.0, 225.0, 310.0), Kind.POWER_LAW: (85.0, 125.0)}
_COLD_AMOUNTS = (2.5, 3.1, 3.8, 4.7)
_MILD_AMOUNTS = (0.4, 0.9, 1.6)
_QUICK = tuple(Curve(kind, amount, scale_s) for kind, scales in _SCALES_S.items() for scale_s in scales for amount in _AMOUNTS)
_COLD = tuple(Curve(kind, amount, scale_s) for kind, scales in _SLOW_SCALES_S.items() for scale_s in scales for amount in _COLD_AMOUNTS)
_MILD = tuple(Curve(kind, amount, scales[1]) for kind, scales in _SLOW_SCALES_S.items() for amount in _MILD_AMOUNTS)
CURVES: tuple[Curve, ...] = (Curve(Kind.NONE, 0.0, 1.0), *_QUICK, *_COLD, *_MILD)
# How unlike an earlier restart a curve may be and still count as like it: the mean distance of their logarithms.
_NEAR = 0.15
# What looks like no earlier restart has this much of the likelihood of what looks like all of them.
UNSEEN = 0.01
# Likewise what is somewhat slow for long.
MILD = 0.0001
# Curves are compared over the first minutes, where they differ.
_COMPARED_AT_S = tuple(15.0 * (index + 0.5) for index in range(24))


@lru_cache(maxsize=4096)
def levels(seconds: float) -> tuple[float, ...]:
    """Return the level of each of CURVES so long after admission."""
    # Many have the same decay, by different amounts.
    decays = [curve.decay(seconds) for curve in _DECAYS]
    return tuple([math.log1p(amount * decays[index]) for amount, index in _AMOUNTS_OF])


def _same_decay(curve: Curve) -> tuple[Kind, float]:
    return curve.kind, curve.scale_s


_DECAYS = tuple({_same_decay(curve): curve for curve in CURVES}.values())
_DECAY_AT = {_same_decay(curve): index for index, curve in enumerate(_DECAYS)}
_AMOUNTS_OF = tuple((curve.amount, _DECAY_AT[_same_decay(curve)]) for curve in CURVES)


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What is known of a role's recovery, for each of CURVES: *allowed*, from UNSEEN to 1 for what is as likely as the likeliest, by which the
    hypothesis that all is well is weighed (its logarithm); and *shares*, which add up to 1, for what a bad release looks like besides.
    """

    allowed: tuple[float, ...]
    shares: tuple[float, ...]
    learned_from: int

    @property
    def log_share(self) -> float:
        """The logarithm of the share of what is allowed in full: that of each of CURVES is this and what it is allowed."""
        return math.log(self.shares[0]) - self.allowed[0]


@lru_cache(maxsize=256)
def expected(earlier: tuple[int, ...]) -> Expected:
    """Learn from earlier restarts, each by the index of its curve; nothing is known from fewer than three."""
    count = len(CURVES)
    if len(earlier) < _LEARN_MIN:
        return Expected((0.0,) * count, (1 / count,) * count, len(earlier))
    likeness = _likeness()
    weights = [sum(likeness[index][seen] for seen in earlier) / len(earlier) for index in range(count)]
    most = max(weights)
    floors = [MILD if curve in _MILD else UNSEEN for curve in CURVES]
    weights = [floor + (1 - floor) * weight / most for floor, weight in zip(floors, weights, strict=True)]
    total = sum(weights)
    return Expected(tuple(map(math.log, weights)), tuple(weight / total for weight in weights), len(earlier))


# Two restarts may be alike by chance.
_LEARN_MIN = 3


def name_of(index: int) -> str:
    """Name one of CURVES, for a journal."""
    curve = CURVES[index]
    return f"{curve.kind} {curve.amount:g} {curve.scale_s:g}"


_BY_NAME = {name_of(index): index for index in range(len(CURVES))}


def named(names: Iterable[str]) -> tuple[int, ...]:
    """Return the indices of those that are known: another version may have known others."""
    return tuple(_BY_NAME[name] for name in names if name in _BY_NAME)


@lru_cache(maxsize=1)
def _likeness() -> list[list[float]]:
    rows = [[curve.level(at_s) for at_s in _COMPARED_AT_S] for curve in CURVES]
    return [[_like(one, other) for other in rows] for one in rows]


def _like(one: Sequence[float], other: Sequence[float]) -> float:
    apart = sum(abs(left - right) for left, right in zip(one, other, strict=True)) / len(one)
    return math.exp(-0.5 * (apart / _NEAR) ** 2)
