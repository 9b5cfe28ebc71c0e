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
from itertools import repeat
from operator import add
from typing import NamedTuple

from rollout.gating import shift
from rollout.gating.curves import CURVES

# Beyond the last of SHIFTS a line goes on as it ended.
_BEYOND_SHIFTS = 120
# What is so much less likely than the likeliest (a logarithm) is lost in rounding.
_NEGLIGIBLE = 40.0


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
    first: Sequence[float] = (0.0,) * len(CURVES)
    second: Sequence[float] = (0.0,) * len(CURVES)
    looked_up: tuple[list[float], ...] = ()

    def with_parabola(self, height: float, off: float, variance: float, levels: tuple[float, ...]) -> "Sums":
        """Add a block that was the likeliest by so much slower (*off*, a logarithm), with each curve at its level."""
        factor = 0.5 / variance
        gaps = [off - level for level in levels]
        first = [before + factor * gap for before, gap in zip(self.first, gaps, strict=True)]
        second = [before - factor * gap * gap for before, gap in zip(self.second, gaps, strict=True)]
        return Sums(self.ratios, self.height + height, self.weight + factor, first, second, self.looked_up)

    def with_line(self, line: list[float], drift: float, levels: tuple[float, ...]) -> "Sums":
        """
        Add a block by the logarithm at each of SHIFTS: each hypothesis looks up the nearest.

        With so few requests a line changes little from one to the next.
        """
        # With the ends repeated, every hypothesis has its place.
        padded = [line[0]] * _BEYOND_SHIFTS + line + [line[-1]] * _BEYOND_SHIFTS
        steps = [level / shift.STEP for level in levels]
        # A playbook may call a hundred times bad: beyond the last shift all are alike.
        last = len(padded) - 1 - max(steps)
        places = [min(last, _BEYOND_SHIFTS + 0.5 + (ratio + drift - shift.LOWEST) / shift.STEP) for ratio in self.ratios]
        before = self.looked_up or repeat(repeat(0.0))
        rows = [[padded[int(place + step)] + old for step, old in zip(steps, olds)] for place, olds in zip(places, before)]  # noqa: B905
        return self._replace(looked_up=tuple(rows))

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
    total = sum(
        sum(map(math.exp, [value - top for value in row if value > least])) for row, its in zip(rows, tops, strict=True) if its > least
    )
    return top + math.log(total / len(rows))
