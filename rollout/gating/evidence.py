"""What a metric is worth in a tally: a value in the metric's unit, and how many samples it rests on."""

from dataclasses import dataclass

from rollout.model.gate import LATENCY_EDGES_S, Metric, Tally


@dataclass(frozen=True, slots=True)
class Value:
    """*value* is None without samples."""

    value: float | None
    samples: float


def value_of(metric: Metric, tally: Tally) -> Value:
    """Read *metric* out of a tally; never raises."""
    match metric:
        case Metric.LATENCY_P95:
            return _quantile(tally.latency, 0.95)
        case Metric.CANARY_P95:
            return _quantile(tally.canary_latency, 0.95)
        case Metric.ERRORS:
            return _per(tally.errors, tally.requests + tally.polls)
        case Metric.CANARY_FAILURES:
            return _per(tally.canary_failures, tally.canaries)
        case Metric.POLL_CPU:
            return _per(tally.poll_cpu_s, tally.polls)
        case Metric.POLL_DB:
            return _per(tally.poll_db_s, tally.polls)
        case Metric.POLL_SCHEDULING:
            return _per(tally.poll_scheduling_s, tally.polls)
        case Metric.WORK:
            seconds = tally.until_s - tally.since_s
            return Value(None if seconds <= 0 else tally.work / seconds, tally.work)
        case Metric.BACKLOG:
            # A level: one look is one sample, but it means something only beside work that was done.
            return Value(tally.backlog, tally.work)


def _per(sum_: float, count: float) -> Value:
    return Value(None if count <= 0 else sum_ / count, count)


def _quantile(counts: tuple[float, ...], share: float) -> Value:
    """
    Interpolate within the bucket, as Prometheus' histogram_quantile does.

    The buckets are up to 2.5 times as wide as their lower edge, so a quantile is known to no better than that; above the last edge it is
    the last edge.
    """
    total = sum(counts)
    if total <= 0:
        return Value(None, 0.0)
    rank, reached = share * total, 0.0
    for index, edge in enumerate(LATENCY_EDGES_S):
        if reached + counts[index] >= rank and counts[index] > 0:
            lower = LATENCY_EDGES_S[index - 1] if index else 0.0
            return Value(lower + (edge - lower) * (rank - reached) / counts[index], total)
        reached += counts[index]
    return Value(LATENCY_EDGES_S[-1], total)
