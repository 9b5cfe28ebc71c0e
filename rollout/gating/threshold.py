"""
The gate: one metric of one worker, against a threshold that comes from its own past and from its peers' present.

PASS and FAIL are asked apart. FAIL needs the metric to be beyond the threshold by more than chance explains at this many samples, so that
a handful of requests near the threshold doesn't take a release back. PASS needs it at or below the threshold, with enough samples, fresh
ones, after the soak. Between the two the ruling is PENDING with its reason, and INCONCLUSIVE once the deadline has passed. What could not
be measured is UNMEASURABLE: it neither passes nor fails.

The threshold is `ratio_max` times the worse of the worker's own baseline and what those of its pool that were not restarted show in the
same minutes, plus `slack`: load that hits everybody condemns nobody. Where none of them is left the baseline stands alone. A baseline with
too few samples says nothing; what the others of its pool did in the same time before stands for it then. `max` is
absolute and must be met besides. Of WORK less is worse: there the threshold is the better excuse of the two divided by `ratio_max`, less
`slack`, and `max` is the least that is accepted.

A baseline is a sample too. FAIL compares with the worst that it may really have been (one-sided, 90 %), PASS with what it was.

Source: our own; what is chance, chance.py says.
"""

import math
from dataclasses import replace
from typing import NamedTuple

from rollout.gating.chance import ALPHA, Z, at_least, mean_factor
from rollout.gating.evidence import COUNTED, P95, SAMPLES, counted, measured, quantile, sound, surely_above
from rollout.model.gate import PUSHES_FROM_S, Evidence, Gate, Metric, Ruling, Tally, Verdict

# A comparison with fewer samples than this says nothing; a gate that asks for fewer of the worker itself asks for no more of the baseline.
COMPARABLE_MIN = 20
# The standard normal quantile of .9, for the worst that a baseline may really have been.
_CAUTION = 1.28
# Work comes in bursts (a join is dozens of events), so its variance is taken for this many times that of independent units. Not measured.
_BURST = 5.0

_TIMES = {
    Metric.LATENCY_P95: "p95 latency",
    Metric.CANARY_P95: "p95 latency of canary requests",
    Metric.REQUEST_CPU: "CPU time per request",
    Metric.POLL_CPU: "CPU time per long-poll",
    Metric.POLL_DB: "database time per long-poll",
    Metric.POLL_SCHEDULING: "wait for a database connection per long-poll",
}
NAMES = {
    **_TIMES,
    Metric.ERRORS: "share of 5xx",
    Metric.CANARY_FAILURES: "share of failed canary requests",
    Metric.PROXY_FAILURES: "share of requests that fail at the proxy",
    Metric.PUSH_FAILURES: "share of pushes that fail",
    Metric.WORK: "work done",
    Metric.BACKLOG: "backlog",
}


def rule(
    gate: Gate,
    *,
    after: Tally | None,
    baseline: Tally | None,
    controls: Tally | None,
    unmeasured: str | None,
    admitted_at_s: float,
    now_s: float,
    pool: Tally | None,
) -> Verdict:
    """
    Rule on one worker, never raising.

    *after* is its tally since it was admitted in full (at *admitted_at_s*), *baseline* what it did before, and *pool* what the others of
    its pool did then; *controls* is the tally of those of them that were not restarted, over the same time as *after*. *unmeasured* says
    why the last look at it failed.
    """
    compared = None if after is None else compare(gate, after, baseline, controls, pool)
    return rule_on(gate, compared, unmeasured=unmeasured, admitted_at_s=admitted_at_s, now_s=now_s)


def compare(gate: Gate, after: Tally, baseline: Tally | None, controls: Tally | None, pool: Tally | None) -> "Compared":
    """Do that part of `rule` which time doesn't change."""
    if not sound(after):
        unsound = _without(gate, Ruling.UNMEASURABLE, "what was measured of it can't be true")
        return Compared(after, baseline, controls, unsound, is_sound=False)
    return Compared(after, baseline, controls, _judge(gate, after, _limit(gate, baseline, controls, pool)))


def rule_on(gate: Gate, compared: "Compared | None", *, unmeasured: str | None, admitted_at_s: float, now_s: float) -> Verdict:
    """See `rule`; *compared* is None while nothing has been measured."""
    age_s = now_s - (admitted_at_s if compared is None else compared.after.until_s)
    if unmeasured is not None:
        return _without(gate, Ruling.UNMEASURABLE, f"it could not be measured: {unmeasured}")
    if compared is not None and not compared.is_sound:
        return compared.verdict
    if not age_s <= gate.fresh_s:
        return _without(gate, Ruling.UNMEASURABLE, f"the newest measurement is {age_s:.0f} s old, and {gate.fresh_s:g} s are allowed")
    soaked_s = now_s - admitted_at_s
    undecided = Ruling.INCONCLUSIVE if soaked_s >= gate.deadline_s else Ruling.PENDING
    if compared is None:
        return _without(gate, undecided, "nothing has been measured since it took its full share")
    verdict = compared.verdict
    if verdict.ruling is Ruling.PENDING:
        return verdict if undecided is Ruling.PENDING else replace(verdict, ruling=undecided)
    if verdict.ruling is Ruling.FAIL and gate.metric is Metric.BACKLOG and undecided is Ruling.PENDING:
        why = f"{verdict.because}; what piled up while it was out may still be going down"
        return replace(verdict, ruling=Ruling.PENDING, because=why)
    if verdict.ruling is Ruling.PASS and soaked_s < gate.soak_s:
        why = f"{verdict.because}; it has been watched for {soaked_s:.0f} of {gate.soak_s:g} s"
        return replace(verdict, ruling=undecided, because=why)
    return verdict


def fails(gate: Gate, *, after: Tally, baseline: Tally | None, controls: Tally | None, pool: Tally | None) -> bool:
    """Tell whether `rule` would say FAIL right after *after* was measured, before the gate's deadline; quicker, for want of a sentence."""
    if gate.metric in COUNTED and not counted(gate.metric, after)[0]:
        return False
    if gate.metric is Metric.BACKLOG or not sound(after):
        return False
    limit = _limit(gate, baseline, controls, pool)
    value, samples = measured(gate.metric, after)
    return value is not None and not isinstance(limit, str) and _is_beyond(gate, after, limit, value, samples)


def needs_pool(gate: Gate, baseline: Tally | None) -> bool:
    """
    Tell whether a worker's own *baseline* says too little, so that what its pool did before has to stand for it.

    Not of what each does by itself: several of them do several times as much.
    """
    if gate.ratio_max is None or gate.metric in {Metric.WORK, Metric.BACKLOG}:
        return False
    return baseline is None or not _comparable(gate, baseline)


class _Limit(NamedTuple):
    """Where PASS ends (*threshold*) and FAIL may begin (*cautious*), the value it was made of, and whether the gate's own is tighter."""

    threshold: float
    cautious: float
    baseline: float | None
    compared_with: str
    absolute: bool


class Compared(NamedTuple):
    """One worker's tallies (see rule), and the *verdict* on them but for the time: PENDING where more has to be measured first."""

    after: Tally
    baseline: Tally | None
    controls: Tally | None
    verdict: Verdict
    is_sound: bool = True

    def is_of(self, after: Tally, baseline: Tally | None, controls: Tally | None) -> bool:
        """Tell whether it was made of these very tallies; what a pool did before changes no more once there is something to compare."""
        return self.after is after and self.baseline is baseline and self.controls is controls


def _limit(gate: Gate, baseline: Tally | None, controls: Tally | None, pool: Tally | None) -> _Limit | str:
    """Work the threshold out; a sentence when there is nothing to compare with."""
    less_is_worse = gate.metric is Metric.WORK
    if gate.ratio_max is None:
        if gate.max is None:
            return "the gate has no threshold"
        return _Limit(gate.max, gate.max, None, "an absolute limit", absolute=True)
    # The worse of the two counts, whichever past it is.
    past = (pool, "its pool's baseline") if needs_pool(gate, baseline) else (baseline, "its baseline")
    named = (past, (controls, "its pool now"))
    known = [(tally, name) for tally, name in named if tally is not None and _comparable(gate, tally)]
    if not known:
        return f"neither its baseline nor its pool has the {_needed(gate)} {SAMPLES[gate.metric]} that a comparison needs"
    choose = min if less_is_worse else max
    value, name = choose((measured(gate.metric, tally)[0] or 0.0, name) for tally, name in known)
    worst = choose(_worst(gate.metric, tally) for tally, _ in known)
    if less_is_worse:
        threshold, cautious = [max(0.0, level / gate.ratio_max - gate.slack) for level in (value, worst)]
    else:
        threshold, cautious = [gate.ratio_max * level + gate.slack for level in (value, worst)]
    absolute = False
    if gate.max is not None:
        tighten = max if less_is_worse else min
        absolute = tighten(threshold, gate.max) != threshold
        threshold, cautious = tighten(threshold, gate.max), tighten(cautious, gate.max)
    return _Limit(threshold, cautious, value, name, absolute)


def _how(gate: Gate, limit: _Limit) -> str:
    """Say how a limit was made."""
    if limit.absolute or limit.baseline is None:
        return "absolute"
    value = say(gate.metric, limit.baseline)
    if gate.metric is Metric.WORK:
        how, sign = f"{limit.compared_with} of {value} ÷ {gate.ratio_max:g}", "-"
    else:
        how, sign = f"{gate.ratio_max:g} × {limit.compared_with} of {value}", "+"
    return f"{how} {sign} {say(gate.metric, gate.slack)}" if gate.slack else how


def _needed(gate: Gate) -> int:
    return max(1, min(gate.samples_min, COMPARABLE_MIN))


def _comparable(gate: Gate, tally: Tally) -> bool:
    if not sound(tally):
        return False
    value, samples = measured(gate.metric, tally)
    return value is not None and (gate.metric is Metric.BACKLOG or samples >= _needed(gate))


def _worst(metric: Metric, tally: Tally) -> float:
    """Return the worst that a comparison may really have been, given that it is a sample."""
    value, samples = measured(metric, tally)
    value = value or 0.0
    if metric in COUNTED:
        hits, trials = counted(metric, tally)
        return min(1.0, (hits + 1 + _CAUTION * math.sqrt(hits + 1)) / trials)
    if metric is Metric.WORK:
        return max(0.0, value * (1 - _CAUTION * math.sqrt(_BURST / samples)))
    if metric is Metric.BACKLOG:
        return value
    if (counts := _counts(metric, tally)) is not None:
        return quantile(counts, min(1.0, P95 + _CAUTION * math.sqrt(P95 * (1 - P95) / samples))) or value
    return value * mean_factor(samples, _CAUTION)


def _counts(metric: Metric, tally: Tally) -> tuple[float, ...] | None:
    if metric is Metric.LATENCY_P95:
        return tally.latency
    return tally.canary_latency if metric is Metric.CANARY_P95 else None


def _judge(gate: Gate, after: Tally, limit: _Limit | str) -> Verdict:
    """Compare: FAIL first, since it may come early; then everything that PASS needs but time."""
    value, samples = measured(gate.metric, after)
    lacking = f"it has {samples:.0f} of the {gate.samples_min} {SAMPLES[gate.metric]} needed"
    if gate.metric is Metric.PUSH_FAILURES:
        lacking = f"{lacking}; those of a process's first {PUSHES_FROM_S / 60:g} min don't count"
    if isinstance(limit, str):
        return _verdict(gate, Ruling.PENDING, lacking if samples < gate.samples_min else limit, value, samples, None)
    if value is not None and _is_beyond(gate, after, limit, value, samples):
        return _verdict(gate, Ruling.FAIL, _compare(gate, value, samples, limit), value, samples, limit)
    if samples < gate.samples_min:
        return _verdict(gate, Ruling.PENDING, lacking, value, samples, limit)
    if value is None:
        return _verdict(gate, Ruling.UNMEASURABLE, f"its metrics page shows no {NAMES[gate.metric]}", value, samples, limit)
    if not _within(gate.metric, value, limit.threshold):
        why = f"{_compare(gate, value, samples, limit)}; that may still be chance"
        return _verdict(gate, Ruling.PENDING, why, value, samples, limit)
    return _verdict(gate, Ruling.PASS, _compare(gate, value, samples, limit), value, samples, limit)


def _is_beyond(gate: Gate, after: Tally, limit: _Limit, value: float, samples: float) -> bool:
    """Tell whether there are enough samples, and more beyond the limit than chance explains."""
    enough = samples >= max(1, gate.samples_min)
    if gate.metric is Metric.WORK:
        # Work that isn't done leaves no samples: what counts is how much there should have been.
        enough = (limit.baseline or limit.threshold) * (after.until_s - after.since_s) >= gate.samples_min
    return enough and _beyond_chance(gate.metric, after, value, limit.cautious)


def _within(metric: Metric, value: float, threshold: float) -> bool:
    return value >= threshold if metric is Metric.WORK else value <= threshold


def _beyond_chance(metric: Metric, after: Tally, value: float, threshold: float) -> bool:
    """Tell whether chance alone, at a truth that is exactly at *threshold*, would show this much or more less often than ALPHA."""
    if metric in COUNTED:
        hits, trials = counted(metric, after)
        # With a threshold of 0 a single stray failure would be proof; half an expected one is allowed.
        return at_least(hits, trials, min(1.0, max(threshold, 0.5 / trials))) < ALPHA
    if (counts := _counts(metric, after)) is not None:
        # If the p95 is at the threshold, one request in twenty takes longer.
        return at_least(surely_above(counts, threshold), sum(counts), 1 - P95) < ALPHA
    if metric is Metric.WORK:
        expected = threshold * (after.until_s - after.since_s)
        return expected - after.work > Z * math.sqrt(_BURST * expected)
    if metric is Metric.BACKLOG:
        return value - threshold > Z * math.sqrt(max(threshold, 1.0))
    return value > threshold * mean_factor(measured(metric, after)[1])


def _compare(gate: Gate, value: float, samples: float, limit: _Limit) -> str:
    bound = "at least" if gate.metric is Metric.WORK else "at most"
    allowed = f"{say(gate.metric, limit.threshold)} allowed ({_how(gate, limit)})"
    return f"{NAMES[gate.metric]} is {say(gate.metric, value)} over {samples:.0f} {SAMPLES[gate.metric]}, {bound} {allowed}"


def say(metric: Metric, value: float) -> str:
    """Write a value of *metric* with its unit."""
    if metric in COUNTED:
        return f"{value * 100:.3g} %"
    if metric is Metric.WORK:
        return f"{value:.3g} per s"
    if metric is Metric.BACKLOG:
        return f"{value:.0f} waiting"
    return f"{value:.3g} s" if value >= 1 else f"{value * 1000:.3g} ms"


def _without(gate: Gate, ruling: Ruling, because: str) -> Verdict:
    return _verdict(gate, ruling, because, None, 0.0, None)


def _verdict(gate: Gate, ruling: Ruling, because: str, value: float | None, samples: float, limit: _Limit | None) -> Verdict:
    evidence = Evidence(
        samples=samples,
        observed=value,
        baseline=None if limit is None else limit.baseline,
        threshold=None if limit is None else limit.threshold,
        compared_with="" if limit is None else limit.compared_with,
    )
    return Verdict(gate.id, ruling, because, evidence)
