"""
How likely every hypothesis about a restarted worker makes what was seen of it: a *ratio* by which requests take longer for good, times one
of CURVES, by which they do besides while caches fill.

A block of many requests is a parabola over how slow the worker was, and for one curve any number of parabolas are together another one.
So two sums for each curve tell of every ratio, and what a block costs doesn't grow with the number of ratios. A block of few requests is no
parabola: there each hypothesis is looked up.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import NamedTuple

from rollout.gating import shift
from rollout.gating.curves import CURVES

# Beyond the last of SHIFTS a line goes on as it ended.
_BEYOND_SHIFTS = 120
# What is so much less likely than the likeliest (a logarithm) is lost in rounding.
_NEGLIGIBLE = 40.0
_ZEROS = (0.0,) * len(CURVES)


class Parabola(NamedTuple):
    """
    A block of many requests: the likeliest is that the worker was slower by *off* (a logarithm), and *factor* is half the inverse variance
    of that. *levels* are those of CURVES meanwhile.
    """

    height: float
    off: float
    factor: float
    levels: Sequence[float]

    def at(self, ratio: float, curve: int) -> float:
        """Return the logarithm of one hypothesis, but for *height*; it is 0 at most."""
        gap = self.off - ratio - self.levels[curve]
        return -self.factor * gap * gap


@dataclass(frozen=True)
class Line:
    """
    A block of few requests: the logarithm at each of SHIFTS (*sharp*), after a *drift* that is known to within *doubt* (a standard
    deviation; 0 where that changes nothing); *levels* as above.
    """

    sharp: Sequence[float]
    doubt: float
    drift: float
    levels: Sequence[float]

    @cached_property
    def line(self) -> list[float]:
        """The same, averaged over what is not known of the drift."""
        return shift.blurred(self.sharp, self.doubt) if self.doubt else list(self.sharp)

    @property
    def most(self) -> float:
        """What no hypothesis surpasses: an average doesn't."""
        return max(self.sharp)

    def at(self, ratio: float, curve: int) -> float:
        """Return the logarithm of one hypothesis."""
        place = int(self._place(ratio) + self.levels[curve] / shift.STEP) - _BEYOND_SHIFTS
        index = min(max(place, 0), len(self.sharp) - 1)
        return shift.blurred_at(self.sharp, self.doubt, index) if self.doubt else self.sharp[index]

    def rows(self, ratios: Sequence[float]) -> list[list[float]]:
        """
        Look all hypotheses up at the nearest shift, a row for each of the ratios.

        With so few requests a line changes little from one to the next.
        """
        # With the ends repeated, every hypothesis has its place.
        padded = [self.line[0]] * _BEYOND_SHIFTS + self.line + [self.line[-1]] * _BEYOND_SHIFTS
        steps = [level / shift.STEP for level in self.levels]
        return [[padded[int(place + step)] for step in steps] for place in map(self._place, ratios)]

    def _place(self, ratio: float) -> float:
        # A playbook may call a hundred times bad: beyond the last shift all are alike.
        last = len(self.sharp) + 2 * _BEYOND_SHIFTS - 1 - max(self.levels) / shift.STEP
        return min(last, _BEYOND_SHIFTS + 0.5 + (ratio + self.drift - shift.LOWEST) / shift.STEP)


Block = Parabola | Line


class Sums(NamedTuple):
    """
    What some blocks said.

    A hypothesis of the ratio r and the curve c has the logarithm

        height − weight r² + 2 r first[c] + second[c] + looked_up[r][c]

    where *weight* is the sum of half the inverse variances, *first* that of these times how much slower than c the worker was, and *second*
    less that of these times its square. *looked_up* has the *ratios* in their order, and is empty until a block of few requests came.
    """

    ratios: tuple[float, ...]
    height: float = 0.0
    weight: float = 0.0
    first: Sequence[float] = _ZEROS
    second: Sequence[float] = _ZEROS
    looked_up: tuple[list[float], ...] = ()

    def add(self, block: Block) -> "Sums":
        """Add one more."""
        if isinstance(block, Line):
            rows = block.rows(self.ratios)
            old = self.looked_up or [_ZEROS] * len(rows)
            return self._replace(looked_up=tuple([list(map(add, row, its)) for row, its in zip(rows, old, strict=True)]))
        factor = block.factor
        gaps = [block.off - level for level in block.levels]
        first = [before + factor * gap for before, gap in zip(self.first, gaps, strict=True)]
        second = [before - factor * gap * gap for before, gap in zip(self.second, gaps, strict=True)]
        return Sums(self.ratios, self.height + block.height, self.weight + factor, first, second, self.looked_up)

    def row(self, index: int, second: Sequence[float]) -> list[float]:
        """Return the logarithms of one of the ratios for each curve, but for *height*, with *second* (and what was added to it)."""
        if not self.weight:
            return list(map(add, second, self.looked_up[index]))
        ratio = self.ratios[index]
        twice, less = 2 * ratio, self.weight * ratio * ratio
        row = [twice * first + its - less for first, its in zip(self.first, second, strict=True)]
        return list(map(add, row, self.looked_up[index])) if self.looked_up else row

    def likeliest(self, indices: range, second: Sequence[float]) -> list[list[float]]:
        """
        Return the same of some ratios (which are in their order), without the curves that are negligible with every one of them.

        Once a few hundred requests were seen, most are.
        """
        if self.looked_up or not self.weight:
            return [self.row(index, second) for index in indices]
        weight, low, high = self.weight, self.ratios[indices[0]], self.ratios[indices[-1]]
        # How well each curve does with that ratio between lowest and highest by which it fits best: with no other it does better.
        low_at, high_at = weight * low, weight * high
        most = [
            its
            + (
                low * (2 * first - low_at)
                if first <= low_at
                else high * (2 * first - high_at)
                if first >= high_at
                else first * first / weight
            )
            for first, its in zip(self.first, second, strict=True)
        ]
        best = most.index(max(most))
        reached = max([self._at(self.ratios[index], self.first[best], second[best]) for index in indices])
        kept = [(first, its) for first, its, bound in zip(self.first, second, most, strict=True) if bound > reached - _NEGLIGIBLE]
        rows = []
        for index in indices:
            ratio = self.ratios[index]
            twice, less = 2 * ratio, weight * ratio * ratio
            rows.append([twice * first + its - less for first, its in kept])
        return rows

    def _at(self, ratio: float, first: float, second: float) -> float:
        return 2 * ratio * first + second - self.weight * ratio * ratio


def mean(rows: Sequence[list[float]]) -> float:
    """Add up over curves, which are weighted already, and average over ratios; the result is a logarithm."""
    tops = list(map(max, rows))
    top = max(tops)
    least = top - _NEGLIGIBLE
    likely = [value - top for row, its in zip(rows, tops, strict=True) if its > least for value in row if value > least]
    return top + math.log(sum(map(math.exp, likely)) / len(rows))
