"""
What all who have passed show at the same moment: an incident, and no fault of the one that has nobody else to compare with.

Late in a rollout nobody is left who runs the old release, and a shared database that has a bad minute makes each worker look like a bad
release by itself. Those who have passed are no controls: they run the new release as well, so that nothing which they have in common speaks
for it. But a release shows from the restart on, and they were restarted one after the other. That all of them are slower at one moment than
they usually are since they passed is of that moment. What was seen then is left out where it would condemn somebody, and nowhere else: it
never helps anybody to pass, and what lasts beyond EXCUSED_MAX_S counts again, since a release may wear a database down.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import compress
from operator import not_
from statistics import median_low
from typing import NamedTuple

from rollout.gating import sequential
from rollout.gating.latency import Level
from rollout.gating.sequential import Kept, Odds, Seen
from rollout.gating.windows import seconds
from rollout.model.gate import Gate

# So many must have passed, and have been seen at that moment and for USUAL_MIN_S at others more than _AWAY_S from it.
OTHERS_MIN = 2
USUAL_MIN_S = 120.0
_AWAY_S = 300.0
# By so much (a logarithm) and so many standard deviations they must be slower together than they usually are.
_SLOWER = math.log(1.25)
_SURELY = 3.0
# An incident, or two that follow one another at once, takes eight minutes at most; what lasts longer counts.
EXCUSED_MAX_S = 480.0
# Of what is kept of a worker, an hour at most; more of that is the release's.
EXCUSED_IN_ALL_S = 600.0


class Passed(NamedTuple):
    """Another worker: its *levels* by the same gate (until so long after its admission), and when (s) it was admitted and passed."""

    levels: Sequence[Level]
    admitted_at_s: float
    passed_at_s: float


def without_common(gate: Gate, seen: Seen, kept: Kept | None, odds: Odds, others: Sequence[Passed]) -> Odds:
    """
    Return the *odds* of one that fails, with *bad* as it is without what all *others* show as well; the same where that is nothing.

    *kept* is what came with these odds (sequential.weigh).
    """
    if kept is None or kept.setting is None:
        return odds
    # It needs no excuse for what was no slower.
    raised = {round(level.until_s, 1) for level in odds.levels if level.at > 0.5 * _SLOWER}
    courses = [_course(other) for other in others]
    common = [
        round(block.own.until_s - seen.admitted_at_s, 1) in raised
        and sequential.is_alone(gate, kept, block)
        and _slower_together(block.own.since_s, block.own.until_s, courses)
        for block in seen.blocks
    ]
    excused = list(compress(seen.blocks, common))
    lasts_s = [seconds(block.own) for block in seen.blocks]
    if not excused or _is_too_much(common, lasts_s):
        return odds
    left = tuple(compress(seen.blocks, map(not_, common)))
    anew, _ = sequential.weigh(gate, seen._replace(blocks=left), Kept(setting=kept.setting, how=kept.how))
    if anew is None or anew.bad >= odds.bad:
        return odds
    return odds._replace(bad=anew.bad, excused_s=sum(compress(lasts_s, common)), excused_until_s=excused[-1].own.until_s)


def calm(those: Sequence[Passed], everybody: Sequence[Passed]) -> list[Passed]:
    """Return *those* without the levels of moments at which all of *everybody* were slower, unless that is more than an incident."""
    courses = [(other, _course(other)) for other in everybody]
    return [_calm(one, [course for other, course in courses if other is not one]) for one in those]


def _calm(one: Passed, others: Sequence["_Course"]) -> Passed:
    common = []
    for level in one.levels:
        until_s = one.admitted_at_s + level.until_s
        common.append(level.at > 0.5 * _SLOWER and _slower_together(until_s - level.seconds, until_s, others))
    if _is_too_much(common, [level.seconds for level in one.levels]):
        return one
    return one._replace(levels=tuple(compress(one.levels, map(not_, common))))


def _is_too_much(common: Sequence[bool], lasts_s: Sequence[float]) -> bool:
    """Tell whether blocks that are *common* to all are more than incidents; one between two of them is part of the same incident."""
    bridged = [it or (before and after) for before, it, after in zip((False, *common), common, (*common[1:], False), strict=False)]
    stretches = [0.0]
    for it, block_s in zip(bridged, lasts_s, strict=True):
        stretches.append(stretches[-1] + block_s if it else 0.0)
    return max(stretches) > EXCUSED_MAX_S or sum(compress(lasts_s, common)) > EXCUSED_IN_ALL_S


class _Course(NamedTuple):
    """How slow another was since it passed, in the order of time: from when to when (s), and how surely that is known."""

    begins_s: list[float]
    ends_s: list[float]
    at: list[float]
    variance: list[float]


def _course(other: Passed) -> _Course:
    """
    Put down what was seen of another.

    That its pool shows the same, which is taken off where it is judged itself, makes it no less slow.
    """
    levels = [level for level in other.levels if other.admitted_at_s + level.until_s - level.seconds >= other.passed_at_s]
    ends_s = [other.admitted_at_s + level.until_s for level in levels]
    begins_s = [until_s - level.seconds for until_s, level in zip(ends_s, levels, strict=True)]
    return _Course(begins_s, ends_s, [level.at + level.drift for level in levels], [level.variance - level.shared for level in levels])


def _slower_together(since_s: float, until_s: float, others: Sequence[_Course]) -> bool:
    found = [one for other in others if (one := _slower(since_s, until_s, other)) is not None]
    if len(found) < OTHERS_MIN:
        return False
    total = sum(1 / variance for _, variance in found)
    by = sum(at / variance for at, variance in found) / total
    # All of them: two that are slow are no incident.
    return by > max(_SLOWER, _SURELY / math.sqrt(total)) and sum(at > 0.5 * by for at, _ in found) > 0.75 * len(found)


def _slower(since_s: float, until_s: float, other: _Course) -> tuple[float, float] | None:
    """Say by how much (a logarithm, and its variance) another is slower than usual within a time; None where that isn't known."""
    begins_s, ends_s = other.begins_s, other.ends_s
    now = []
    for index in range(bisect_right(ends_s, since_s), bisect_left(begins_s, until_s)):
        overlap_s = min(ends_s[index], until_s) - max(begins_s[index], since_s)
        if overlap_s >= 0.5 * min(ends_s[index] - begins_s[index], until_s - since_s):
            now.append(index)
    before, after = bisect_left(ends_s, since_s - _AWAY_S), bisect_right(begins_s, until_s + _AWAY_S)
    usual_s = sum(ends_s[:before]) - sum(begins_s[:before]) + sum(ends_s[after:]) - sum(begins_s[after:])
    if not now or usual_s < USUAL_MIN_S:
        return None
    # Neither is this incident a part of what is usual nor another one, so what is far from it counts, and of that the middle one.
    usual = median_low(other.at[:before] + other.at[after:])
    return sum(other.at[index] for index in now) / len(now) - usual, sum(other.variance[index] for index in now) / len(now) ** 2
