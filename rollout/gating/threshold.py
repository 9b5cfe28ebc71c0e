"""
The gate: one metric of one worker, against a threshold that comes from its own past and from its peers' present.

PASS and FAIL are asked apart. FAIL needs the metric to be above the threshold by more than chance explains at this many samples; PASS
needs it at or below the threshold, with enough samples, fresh ones, after the soak. Between the two the ruling is PENDING with its
reason, and INCONCLUSIVE once the deadline has passed. What could not be measured is UNMEASURABLE: it neither passes nor fails.

The threshold is `ratio_max` times the worse of the worker's own baseline and what its pool's other workers show in the same minutes, plus
`slack`: load that hits everybody condemns nobody. `max` is absolute and is met besides. Looking again and again raises the chance of a
false FAIL; three standard errors are the margin that keeps it small until a sequential test takes this one's place.
"""

import math
from dataclasses import dataclass

from rollout.gating.evidence import Value, value_of
from rollout.model.gate import LATENCY_EDGES_S, Evidence, Gate, Metric, Ruling, Tally, Verdict

MARGIN_SE = 3.0
# Fewer samples than this in a baseline or in the peers say nothing worth a ratio.
COMPARABLE_MIN = 20.0
_RATIOS = frozenset({Metric.ERRORS, Metric.CANARY_FAILURES})
_QUANTILES = frozenset({Metric.LATENCY_P95, Metric.CANARY_P95})


def rule(
    gate: Gate,
    *,
    after: Tally | None,
    baseline: Tally | None,
    controls: Tally | None,
    unmeasured: str | None,
    admitted_at_s: float,
    now_s: float,
) -> Verdict:
    """
    Rule on one worker. *after* is its tally since it was admitted in full, *baseline* its own before, *controls* its pool's other workers
    since then.

    Never raises. UNMEASURABLE when the last sweep had nothing on it, or what there is is older than *gate.fresh_s*.
    """
    if unmeasured is not None:
        return _verdict(gate, Ruling.UNMEASURABLE, f"it could not be measured: {unmeasured}", Value(None, 0.0))
    soaked_s = now_s - admitted_at_s
    newest_s = admitted_at_s if after is None else after.until_s
    if now_s - newest_s > gate.fresh_s:
        return _verdict(gate, Ruling.UNMEASURABLE, f"the newest measurement is {now_s - newest_s:.0f} s old", Value(None, 0.0))
    late = soaked_s >= gate.deadline_s
    observed = Value(None, 0.0) if after is None else value_of(gate.metric, after)
    if observed.value is None or observed.samples < gate.samples_min:
        why = f"it has {observed.samples:.0f} of the {gate.samples_min} samples needed"
        return _verdict(gate, Ruling.INCONCLUSIVE if late else Ruling.PENDING, why, observed)
    limit = _limit(gate, baseline, controls)
    if isinstance(limit, str):
        return _verdict(gate, Ruling.INCONCLUSIVE if late else Ruling.PENDING, limit, observed)
    return _compare(gate, observed, after, limit, soaked_s=soaked_s, late=late)


@dataclass(frozen=True, slots=True)
class _Limit:
    """A threshold and where it comes from."""

    threshold: float
    baseline: float | None
    compared_with: str


def _limit(gate: Gate, baseline: Tally | None, controls: Tally | None) -> _Limit | str:
    if gate.ratio_max is None:
        return "the gate has no threshold" if gate.max is None else _Limit(gate.max, None, "its absolute limit")
    known = [
        (name, seen.value)
        for name, tally in (("its own baseline", baseline), ("its pool now", controls))
        if tally is not None and (seen := value_of(gate.metric, tally)).value is not None and seen.samples >= COMPARABLE_MIN
    ]
    if not known:
        return f"neither its baseline nor its pool has the {COMPARABLE_MIN:.0f} samples that a comparison needs"
    if gate.metric is Metric.WORK:
        name, value = known[0]
        return _Limit(value / gate.ratio_max - gate.slack, value, name)
    name, value = max(known, key=lambda entry: entry[1])
    threshold = gate.ratio_max * value + gate.slack
    return _Limit(threshold if gate.max is None else min(threshold, gate.max), value, name)


def _compare(gate: Gate, observed: Value, after: Tally | None, limit: _Limit, *, soaked_s: float, late: bool) -> Verdict:
    value = observed.value
    if value is None or after is None:
        return _verdict(gate, Ruling.PENDING, "nothing was measured yet", observed, limit)
    # Less work than before is worse; of everything else, more is.
    worse = limit.threshold - value if gate.metric is Metric.WORK else value - limit.threshold
    say = f"{_say(gate.metric, value)} against at {_edge(gate.metric)} {_say(gate.metric, limit.threshold)} ({limit.compared_with})"
    if worse > 0 and _beyond_chance(gate.metric, after, observed, limit.threshold):
        return _verdict(gate, Ruling.FAIL, f"{gate.metric.value} is {say}, over {observed.samples:.0f} samples", observed, limit)
    if worse > 0:
        why = f"{gate.metric.value} is {say}, but {observed.samples:.0f} samples can't tell that from chance"
        return _verdict(gate, Ruling.INCONCLUSIVE if late else Ruling.PENDING, why, observed, limit)
    if soaked_s < gate.soak_s:
        why = f"{gate.metric.value} is {say}; watched for {soaked_s:.0f} of {gate.soak_s:.0f} s"
        return _verdict(gate, Ruling.PENDING, why, observed, limit)
    return _verdict(gate, Ruling.PASS, f"{gate.metric.value} is {say}, over {observed.samples:.0f} samples", observed, limit)


def _beyond_chance(metric: Metric, after: Tally, observed: Value, threshold: float) -> bool:
    """Tell whether *observed* at the threshold's own truth would be off by more than MARGIN_SE standard errors."""
    samples = observed.samples
    if metric in _RATIOS:
        share = min(max(threshold, 0.5 / samples), 1.0)
        return (observed.value or 0.0) - threshold > MARGIN_SE * math.sqrt(share * (1 - share) / samples)
    if metric in _QUANTILES:
        counts = after.latency if metric is Metric.LATENCY_P95 else after.canary_latency
        # At most 5 % are above the p95: count those that are above the threshold.
        above = _above(counts, threshold) / samples
        return above - 0.05 > MARGIN_SE * math.sqrt(0.05 * 0.95 / samples)
    if metric is Metric.WORK:
        expected = threshold * (after.until_s - after.since_s)
        return expected - after.work > MARGIN_SE * math.sqrt(max(expected, 1.0))
    if metric is Metric.BACKLOG:
        return True
    # Means of skewed times: their spread is about their own size (measured log-sd .9), so the relative error is about 1/sqrt(n).
    return (observed.value or 0.0) > threshold * (1 + MARGIN_SE / math.sqrt(samples))


def _above(counts: tuple[float, ...], threshold: float) -> float:
    """Count what is surely above *threshold*: whole buckets only, since nobody knows where within its bucket a request lies."""
    lower_edges = (0.0, *LATENCY_EDGES_S)
    return sum(count for lower, count in zip(lower_edges, counts, strict=True) if lower >= threshold)


def _edge(metric: Metric) -> str:
    return "least" if metric is Metric.WORK else "most"


def _say(metric: Metric, value: float) -> str:
    if metric in _RATIOS:
        return f"{value * 100:.2f} %"
    if metric is Metric.WORK:
        return f"{value:.2f}/s"
    if metric is Metric.BACKLOG:
        return f"{value:.0f}"
    return f"{value * 1000:.1f} ms"


def _verdict(gate: Gate, ruling: Ruling, because: str, observed: Value, limit: _Limit | None = None) -> Verdict:
    evidence = Evidence(
        samples=observed.samples,
        observed=observed.value,
        baseline=None if limit is None else limit.baseline,
        threshold=None if limit is None else limit.threshold,
        compared_with="" if limit is None else limit.compared_with,
    )
    return Verdict(gate.id, ruling, because, evidence)
