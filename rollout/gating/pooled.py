"""
What all workers of a role that run the new release say together: a little slower each is too little to see at one, and not at ten.

Of each worker counts by how much it is slower since it passed its own gate, when it had recovered, and how well that is known. Workers
also differ from one another by a little, for good, which is why ten of them are not ten times one of them.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from collections.abc import Sequence

from rollout.gating.drift import STRAYS
from rollout.gating.latency import Level, mean_of

# Up to here a release is as good as the one before.
_GOOD = math.log(1.05)
_BAD = tuple(map(math.log, (1.15, 1.2, 1.3, 1.5, 2.0)))
# By how much workers differ for good after any restart (a logarithm).
_DIFFER = 0.06
# One alone has a gate of its own.
WORKERS_MIN = 2


def weigh(since_passed: Sequence[Level]) -> tuple[float, float]:
    """
    Return the logarithm of the odds against a good release, and the ratio that fits best (a factor).

    (-inf, 1.0) with fewer than WORKERS_MIN.
    """
    if len(since_passed) < WORKERS_MIN:
        return -math.inf, 1.0
    weights = [1 / (one.variance + one.shared + _DIFFER**2) for one in since_passed]
    total = sum(weights)
    best = sum(weight * one.at for weight, one in zip(weights, since_passed, strict=True)) / total
    # By how much everybody is slower while nobody is left to compare with is the same for all of them, and more of them tell it no better.
    alone = sum(weight * one.alone for weight, one in zip(weights, since_passed, strict=True)) / total
    total = 1 / (1 / total + (alone * STRAYS) ** 2)
    good = -0.5 * total * (max(0.0, best - _GOOD)) ** 2
    bad = [-0.5 * total * (best - ratio) ** 2 for ratio in _BAD]
    top = max(bad)
    return top + math.log(sum(math.exp(one - top) for one in bad) / len(bad)) - good, math.exp(best)


def since(levels: Sequence[Level], passed_s: float) -> Level | None:
    """Average what was seen of a worker since it passed, so long after its admission; None when that is nothing yet."""
    later = [level for level in levels if level.until_s - level.seconds >= passed_s]
    return mean_of(later) if later else None
