"""
How likely something is by chance alone: exact where samples are few, since that is where normal approximations mislead.

Source: the binomial distribution's tail, as Clopper and Pearson (1934) use it; a mean of log-normal costs is taken for log-normal, with its
first two moments (Fenton, 1960). ALPHA is our own, and measured (tests/gating/test_chance.py).
"""

import math

# A FAIL must be less likely than this by chance, at each look. Looks come every few seconds for minutes, so it is well below the 1 % that a
# whole gate may be wrong by; looks at a growing tally are nearly the same look (measured in tests/gating/test_chance.py).
ALPHA = 0.001
# The standard normal quantile of 1 − ALPHA.
Z = 3.09
# Beyond this variance the normal approximation is as good, and the sum would be long.
_VARIANCE_MAX = 10_000.0
# What one request costs varies by about a factor of e^.9 (facts of measured workers: log-sd .9), which is this coefficient of variation.
COST_VARIATION = math.sqrt(math.exp(0.9**2) - 1)


def at_least(hits: float, trials: float, share: float) -> float:
    """
    Return the chance of *hits* or more in *trials* when each hits with probability *share*: exact, or 1 when that many are expected.

    Fractions of a hit are dropped and fractions of a trial counted whole, so that the chance is never understated.
    """
    hits, trials = math.floor(hits), math.ceil(trials)
    if hits <= trials * share:
        return 1.0
    if share <= 0 or hits > trials:
        return 0.0
    variance = trials * share * (1 - share)
    if variance > _VARIANCE_MAX:
        return 0.5 * math.erfc((hits - trials * share) / math.sqrt(2 * variance))
    log_ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    term = math.exp(log_ways + hits * math.log(share) + (trials - hits) * math.log1p(-share))
    total, odds = term, share / (1 - share)
    for reached in range(hits, trials):
        term *= (trials - reached) / (reached + 1) * odds
        total += term
        if term < total * 1e-12:
            break
    return min(1.0, total)


def at_most(hits: float, trials: float, share: float) -> float:
    """Return the chance of *hits* or fewer in *trials* when each hits with probability *share*; 1 when that few are expected."""
    return at_least(math.ceil(trials) - math.ceil(hits), math.ceil(trials), 1 - share)


def mean_factor(samples: float, deviations: float = Z) -> float:
    """Return by what factor a mean of *samples* costs may lie above the truth by chance; costs are skewed, so it is log-normal."""
    return math.exp(deviations * math.sqrt(math.log1p(COST_VARIATION**2 / samples)))
