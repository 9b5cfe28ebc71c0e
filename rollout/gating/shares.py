"""
Whether more requests fail than before: a Bernoulli mixture, which may be looked at as often as one likes.

Under the hypothesis that nothing has changed, each request fails with a probability that the baseline tells, as well as its size allows: a
Beta distribution, by which the chance of what was seen is exact. Under the others it fails with one of a few greater probabilities. The
ratio of the two is an e-value: whatever the moment at which it is looked at, it is above 1/p with a probability of at most p.

What fails at everybody is not the worker's: where its pool fails more than before as well, that is a second hypothesis under which all is
well, and the likelier of the two counts.

Source: docs/decisions/0016-sequential-gates.md; Robbins and Lai on mixtures, Howard and Ramdas (2021) on confidence sequences.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

# Shares of failures that a bad release may have, and how many times the usual share it must be at least.
BAD_SHARES = (0.003, 0.005, 0.008, 0.012, 0.02, 0.035, 0.06, 0.12, 0.25, 0.5, 0.9)
TIMES_MIN = 2.0
# Nothing fails more surely than this, or a single success would be impossible: also of a worker of which everything failed before.
SHARE_MAX = 0.99
# Before anything is known: half a failure among a thousand requests.
_PRIOR_HITS = 0.5
_PRIOR_TRIALS = 500.0
# The pool must show so much for the hypothesis that everybody fails more than before.
_SHARED = math.log(20.0)
# A baseline must show so much, in so many trials, to be unlike what is known before anything is.
_UNLIKE = math.log(1000.0)
_UNLIKE_TRIALS_MIN = 20.0


class Count(NamedTuple):
    """So many *hits* in so many *trials*."""

    hits: float
    trials: float

    def add(self, hits: float, trials: float) -> "Count":
        """Return that with so many more."""
        return Count(self.hits + hits, self.trials + trials)


NOTHING = Count(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Weighed:
    """*more*: how much speaks for more failures than before; *fewer*: how much against the share *bad* (both logarithms of e-values)."""

    more: float
    fewer: float
    bad: float
    usual: float


def weigh(seen: Count, before: Count, pool: Count | None, pool_before: Count | None, bad: float, accepted: float = 0.0) -> Weighed:
    """
    Weigh what was *seen* of a worker since its admission against what its own and its pool's baselines had.

    *pool* is what its pool's others did meanwhile; *bad* the share that it must be shown to be below, raised to twice the usual one, and
    never more than can be told from "always". Up to the share *accepted* it is as good as before, whatever that was.
    """
    hits, trials = before.hits, before.trials
    if pool_before is not None:
        hits, trials = hits + pool_before.hits, trials + pool_before.trials
    well = _known(Count(hits, max(hits, trials)))
    usual = well[0] / sum(well)
    null = fine = max(_predicted(seen, well), _accepted(seen, accepted))
    if pool is not None and _more(pool, usual) - _predicted(pool, well) >= _SHARED:
        null = max(null, _predicted(seen, (pool.hits + 1.0, pool.trials - pool.hits + 1.0)))
        if seen.hits * pool.trials < pool.hits * seen.trials:
            # Who fails less than the others do now is no worse than they are.
            null = max(null, _at_most(seen, pool.hits / pool.trials))
    if TIMES_MIN * usual > BAD_SHARES[-1]:
        # None is twice as much, and "nearly always" may be less than usual: who fails less than before is no worse.
        null = max(null, _at_most(seen, usual))
    bad = min(SHARE_MAX, max(bad, TIMES_MIN * usual))
    return Weighed(_more(seen, usual) - null, fine - _fixed(seen, bad), bad, usual)


def _accepted(seen: Count, accepted: float) -> float:
    """Return how likely this is with the share that fits best among those that somebody has said are fine."""
    share = min(accepted, seen.hits / seen.trials) if seen.trials > 0 else 0.0
    return _fixed(seen, share) if share > 0 else -math.inf


def _at_most(seen: Count, usual: float) -> float:
    """Return how likely this is with the share that fits best among those up to the usual one."""
    share = min(usual, SHARE_MAX, seen.hits / seen.trials) if seen.trials > 0 else 0.0
    return _fixed(seen, share) if share > 0 else 0.0


@lru_cache(maxsize=1024)
def _known(before: Count) -> tuple[float, float]:
    """Return what is known of the share of failures, as a Beta distribution's hits and misses."""
    prior = (_PRIOR_HITS, _PRIOR_TRIALS)
    hits, misses = before.hits, before.trials - before.hits
    if before.trials >= _UNLIKE_TRIALS_MIN and _more(before, prior[0] / sum(prior)) - _predicted(before, prior) >= _UNLIKE:
        # What fails nearly always, such as a canary request whose user is gone, is no usual homeserver: only itself tells of it.
        return hits + _PRIOR_HITS, misses + _PRIOR_HITS
    return hits + prior[0], misses + prior[1]


def _more(seen: Count, usual: float) -> float:
    hits, misses = seen.hits, seen.trials - seen.hits
    return _mean_of([hits * hit + misses * miss for hit, miss in _bad_ones(usual)])


@lru_cache(maxsize=1024)
def _bad_ones(usual: float) -> tuple[tuple[float, float], ...]:
    """Return what a failure and what a success says of each share that is bad (logarithms)."""
    shares = [share for share in BAD_SHARES if share >= TIMES_MIN * usual] or [SHARE_MAX]
    return tuple((math.log(share), math.log1p(-share)) for share in shares)


def _fixed(seen: Count, share: float) -> float:
    return seen.hits * math.log(share) + (seen.trials - seen.hits) * math.log1p(-share)


def _predicted(seen: Count, well: tuple[float, float]) -> float:
    """Return the logarithm of the chance of this very sequence when the share is Beta-distributed."""
    hits, misses = well
    return _log_beta(hits + seen.hits, misses + seen.trials - seen.hits) - _log_beta(hits, misses)


def _log_beta(left: float, right: float) -> float:
    return math.lgamma(left) + math.lgamma(right) - math.lgamma(left + right)


def _mean_of(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))
