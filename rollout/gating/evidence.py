"""
What a metric is worth in a tally: a value in the metric's own unit, and how many samples it rests on.

A p95 is interpolated within its bucket, as Prometheus does. The bucket's upper edge would be the cautious choice for one worker alone, but
a gate compares two values, and the buckets are up to 2.5 times as wide as their lower edge: with edges, a change of 1 % across one of them
would look like one of 150 %, and most real changes like none. The test for FAIL doesn't use it; it counts whole buckets (threshold.py).

Source: Prometheus' `histogram_quantile` for the p95; the rest is our own.
"""

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter

from rollout.model.gate import LATENCY_EDGES_S, Metric, Tally

# What one sample is called.
SAMPLES = {
    Metric.LATENCY_P95: "requests",
    Metric.ERRORS: "requests",
    Metric.REQUEST_CPU: "requests",
    Metric.POLL_CPU: "long-polls",
    Metric.POLL_DB: "long-polls",
    Metric.POLL_SCHEDULING: "long-polls",
    Metric.CANARY_P95: "canary requests",
    Metric.CANARY_FAILURES: "canary requests",
    Metric.PROXY_FAILURES: "requests at the proxy",
    Metric.PUSH_FAILURES: "pushes",
    Metric.WORK: "units of work",
    Metric.BACKLOG: "units of work",
}
P95 = 0.95
# No worker counts as far, and beyond it arithmetic becomes inexact.
_BEYOND = 1e15
_ROUNDING = 1e-6
_BUCKETS = len(LATENCY_EDGES_S) + 1
# The sums that are plain numbers.
_numbers = attrgetter(
    *(item.name for item in fields(Tally) if item.name not in {"since_s", "until_s", "latency", "canary_latency", "backlog", "strata"})
)


def measured(metric: Metric, tally: Tally) -> tuple[float | None, float]:
    """Return the value of *metric* and the samples behind it; the value is None without samples."""
    return _VALUES[metric](tally), _SAMPLES[metric](tally)


def samples(metric: Metric, tally: Tally) -> float:
    """
    Count the samples behind the value of *metric*.

    Our own canaries to a sync worker are long-polls too; they are in the sums, but are no samples: traffic of our own shows nothing about
    users, but for what was bought because users show too little. A backlog is a level, which means something only while work is done, so
    its samples are units of work.
    """
    return _SAMPLES[metric](tally)


def counted(metric: Metric, tally: Tally) -> tuple[float, float]:
    """Return how many failed, of how many; *metric* is one of COUNTED."""
    return _COUNTED[metric](tally)


def quantile(counts: tuple[float, ...], share: float) -> float | None:
    """Return the time within which *share* of the requests ended; at most the last edge, since nothing is known beyond. None of none."""
    rank, reached, lower = share * sum(counts), 0.0, 0.0
    if rank <= 0:
        return None
    for edge, count in zip(LATENCY_EDGES_S, counts, strict=False):
        if count > 0 and reached + count >= rank:
            return lower + (edge - lower) * (rank - reached) / count
        reached, lower = reached + count, edge
    return LATENCY_EDGES_S[-1]


def surely_above(counts: tuple[float, ...], threshold_s: float) -> float:
    """Count the requests that took longer than *threshold_s* wherever in their bucket they lie."""
    lowers = (0.0, *LATENCY_EDGES_S)
    return sum(count for lower, count in zip(lowers, counts, strict=False) if lower >= threshold_s)


def sound(tally: Tally) -> bool:
    """Tell whether its numbers can be true: not negative, not absurd, in order, and no more failures than requests."""
    return (
        0 <= tally.since_s <= tally.until_s < _BEYOND
        and _are_sound(_numbers(tally))
        and (tally.backlog is None or 0 <= tally.backlog < _BEYOND)
        and len(tally.latency) == len(tally.canary_latency) == _BUCKETS
        and _are_sound(tally.latency)
        and _are_sound(tally.canary_latency)
        and tally.errors <= tally.requests + tally.polls + _ROUNDING
        and tally.canary_failures <= tally.canaries
        and tally.proxy_failures <= tally.proxied + _ROUNDING
        and tally.push_failures <= tally.pushes + _ROUNDING
        and tally.bought <= tally.canaries
        and all(_are_sound((*stratum[1:-1], *stratum.latency)) and len(stratum.latency) <= _BUCKETS for stratum in tally.strata)
    )


def _are_sound(counts: tuple[float, ...]) -> bool:
    # Whatever is compared with a NaN is in no order, so a sum is asked first: it is NaN if one of them is.
    return sum(counts) < _BEYOND * len(counts) and min(counts) >= 0 and max(counts) < _BEYOND


def _polls_of_users(tally: Tally) -> float:
    return max(0.0, tally.polls - (tally.canaries - tally.bought))


def _per(total: float, count: float) -> float | None:
    return total / count if count > 0 else None


# A row each, looked up: every decision asks.
_COUNTED: dict[Metric, Callable[[Tally], tuple[float, float]]] = {
    Metric.ERRORS: lambda tally: (tally.errors, tally.requests + tally.polls),
    Metric.CANARY_FAILURES: lambda tally: (tally.canary_failures, tally.canaries),
    Metric.PROXY_FAILURES: lambda tally: (tally.proxy_failures, tally.proxied),
    Metric.PUSH_FAILURES: lambda tally: (tally.push_failures, tally.pushes),
}
_SAMPLES: dict[Metric, Callable[[Tally], float]] = {
    Metric.LATENCY_P95: lambda tally: sum(tally.latency),
    Metric.ERRORS: lambda tally: tally.requests + _polls_of_users(tally),
    Metric.REQUEST_CPU: lambda tally: tally.requests,
    Metric.POLL_CPU: _polls_of_users,
    Metric.POLL_DB: _polls_of_users,
    Metric.POLL_SCHEDULING: _polls_of_users,
    Metric.CANARY_P95: lambda tally: sum(tally.canary_latency),
    Metric.CANARY_FAILURES: lambda tally: tally.canaries,
    Metric.PROXY_FAILURES: lambda tally: tally.proxied,
    Metric.PUSH_FAILURES: lambda tally: tally.pushes,
    Metric.WORK: lambda tally: tally.work,
    Metric.BACKLOG: lambda tally: tally.work,
}
# Of these a value is a share: so many failed of so many.
COUNTED = frozenset(_COUNTED)
_VALUES: dict[Metric, Callable[[Tally], float | None]] = {
    Metric.LATENCY_P95: lambda tally: quantile(tally.latency, P95),
    Metric.ERRORS: lambda tally: _per(*_COUNTED[Metric.ERRORS](tally)),
    Metric.REQUEST_CPU: lambda tally: _per(tally.request_cpu_s, tally.requests),
    Metric.POLL_CPU: lambda tally: _per(tally.poll_cpu_s, tally.polls),
    Metric.POLL_DB: lambda tally: _per(tally.poll_db_s, tally.polls),
    Metric.POLL_SCHEDULING: lambda tally: _per(tally.poll_scheduling_s, tally.polls),
    Metric.CANARY_P95: lambda tally: quantile(tally.canary_latency, P95),
    Metric.CANARY_FAILURES: lambda tally: _per(*_COUNTED[Metric.CANARY_FAILURES](tally)),
    Metric.PROXY_FAILURES: lambda tally: _per(*_COUNTED[Metric.PROXY_FAILURES](tally)),
    Metric.PUSH_FAILURES: lambda tally: _per(*_COUNTED[Metric.PUSH_FAILURES](tally)),
    Metric.WORK: lambda tally: _per(tally.work, tally.until_s - tally.since_s),
    Metric.BACKLOG: lambda tally: tally.backlog,
}
