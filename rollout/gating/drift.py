"""
What slows everybody down alike: the drift of a pool, followed by those of its workers that were not restarted.

Evenings are busier and a shared database has its bad minutes. Each worker is compared with its own past, and what its pool's others show
against theirs is taken off. How well the drift is known counts as well: with few requests, or nobody left to compare with, a worker's own
slowness says less.

A scalar Kalman filter follows it from block to block. It expects a slow walk; where what is seen lies far outside that, it believes what is
seen, since an incident begins at once.

Source: docs/decisions/0016-sequential-gates.md.
"""

import math
from dataclasses import dataclass

from rollout.gating.shift import Peak

# How far a pool's mean walks in half a minute, how far it strays at all, and how far it sways about that from minute to minute (a
# logarithm of seconds).
_WALK = 0.06
STRAYS = 0.15
_SWAYS = 0.1
_BLOCK_S = 30.0
# How long what was seen says something about now.
_LASTS_S = 240.0
# That some of those who are compared with waver by themselves.
_WAVER = 0.03
# Beyond so many standard deviations it is no walk.
_SURPRISE = 3.0


@dataclass(frozen=True, slots=True)
class Drift:
    """By how much everybody is slower than before (a logarithm), and the variance of that."""

    at: float = 0.0
    variance: float = STRAYS**2

    def follow(self, seen: Peak | None, seconds: float) -> "Drift":
        """Return the drift *seconds* later, when the pool's others were *seen* there; None where nobody could be compared with."""
        if seen is None:
            # As likely as this what was seen last is still so; or else, as an incident ends, nothing is left of it.
            keep = math.exp(-seconds / _LASTS_S)
            return Drift(keep * self.at, keep * self.variance + (1 - keep) * (_SWAYS**2 + keep * self.at**2))
        variance = self.variance + _WALK**2 * seconds / _BLOCK_S
        doubt = seen.variance + _WAVER**2
        surprise = seen.at - self.at
        if abs(surprise) > _SURPRISE * math.sqrt(variance + doubt):
            variance += surprise * surprise
        gain = variance / (variance + doubt)
        return Drift(self.at + gain * surprise, (1 - gain) * variance)
