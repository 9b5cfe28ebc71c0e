"""What no tally, gate or moment can make the rule do."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rollout.gating.evidence import measured
from rollout.gating.threshold import fails, pick_baseline, rule
from rollout.model.gate import Gate, Metric, Ruling, Tally, Verdict
from rollout.model.ids import GateId
from tests.gating.evidence_at_hand import BUCKETS

_ANY = some.floats(allow_nan=True, allow_infinity=True)
_COUNT = some.integers(0, 400).map(float)
_SECONDS = some.floats(0, 50, allow_nan=False)
_TIME = some.floats(0, 2000, allow_nan=False)


def _tallies(
    number: some.SearchStrategy[float], seconds: some.SearchStrategy[float], time: some.SearchStrategy[float]
) -> some.SearchStrategy[Tally]:
    buckets = some.lists(number, min_size=BUCKETS, max_size=BUCKETS).map(tuple)
    return some.builds(
        Tally,
        since_s=time,
        until_s=time,
        requests=number,
        errors=number,
        latency=buckets,
        polls=number,
        poll_cpu_s=seconds,
        poll_db_s=seconds,
        poll_scheduling_s=seconds,
        canaries=some.integers(-1, 100),
        canary_failures=some.integers(-1, 100),
        canary_latency=buckets,
        work=number,
        backlog=some.none() | number,
    )


ABSURD = _tallies(_ANY, _ANY, _ANY)
PLAUSIBLE = _tallies(_COUNT, _SECONDS, _TIME).map(
    lambda tally: replace(
        tally,
        since_s=min(tally.since_s, tally.until_s),
        until_s=max(tally.since_s, tally.until_s),
        errors=min(tally.errors, tally.requests + tally.polls),
        canaries=max(0, tally.canaries),
        canary_failures=max(0, min(tally.canaries, tally.canary_failures)),
    )
)
GATES = some.builds(
    Gate,
    id=some.just(GateId("gate")),
    metric=some.sampled_from(Metric),
    ratio_max=some.none() | some.floats(0.5, 5),
    slack=some.sampled_from([0.0, 0.05, 10.0]),
    max=some.none() | some.floats(0, 5),
    samples_min=some.integers(1, 200),
    soak_s=some.floats(0, 100),
    fresh_s=some.floats(1, 60),
    deadline_s=some.floats(1, 1000),
    on_inconclusive=some.just("pause"),
    on_unmeasurable=some.just("pause"),
)


def _rule(on: Gate, after: Tally | None, baseline: Tally | None, controls: Tally | None, now_s: float) -> Verdict:
    return rule(on, after=after, baseline=baseline, controls=controls, unmeasured=None, admitted_at_s=0.0, now_s=now_s)


@given(GATES, some.none() | ABSURD | PLAUSIBLE, some.none() | ABSURD | PLAUSIBLE, some.none() | ABSURD | PLAUSIBLE, _ANY)
@settings(max_examples=200, deadline=None)
def test_never_raises(on: Gate, after: Tally | None, baseline: Tally | None, controls: Tally | None, now_s: float) -> None:
    verdict = _rule(on, after, baseline, controls, now_s)
    assert verdict.because
    assert "\n" not in verdict.because
    picked, why = pick_baseline(baseline, controls, on)
    assert why
    assert any(picked is one for one in (None, baseline, controls))


@given(GATES, PLAUSIBLE, some.none() | PLAUSIBLE, some.none() | PLAUSIBLE, _TIME)
@settings(max_examples=250, deadline=None)
def test_pass_needs_samples_freshness_and_the_soak(
    on: Gate, after: Tally, baseline: Tally | None, controls: Tally | None, now_s: float
) -> None:
    """About one example in seven passes."""
    if _rule(on, after, baseline, controls, now_s).ruling is Ruling.PASS:
        assert measured(on.metric, after)[1] >= on.samples_min
        assert now_s - after.until_s <= on.fresh_s
        assert now_s >= on.soak_s


@given(GATES, PLAUSIBLE, PLAUSIBLE, some.none() | PLAUSIBLE, some.integers(1, 100))
@settings(max_examples=250, deadline=None)
@pytest.mark.parametrize("metric", [Metric.ERRORS, Metric.CANARY_FAILURES])
def test_more_errors_never_better_a_ruling(
    metric: Metric, on: Gate, after: Tally, baseline: Tally, controls: Tally | None, more: int
) -> None:
    """FAIL stays FAIL, and what is not a PASS doesn't become one."""
    on = replace(on, metric=metric, deadline_s=5000.0, fresh_s=5000.0)
    if metric is Metric.ERRORS:
        worse = replace(after, errors=min(after.errors + more, after.requests + after.polls))
    else:
        worse = replace(after, canary_failures=min(after.canary_failures + more, after.canaries))
    badness = [Ruling.PASS, Ruling.PENDING, Ruling.FAIL]
    before, now = (_rule(on, tally, baseline, controls, 2000.0).ruling for tally in (after, worse))
    assert badness.index(now) >= badness.index(before)


@given(GATES, PLAUSIBLE, PLAUSIBLE, some.none() | PLAUSIBLE, some.integers(0, BUCKETS - 2), some.integers(1, 14))
@settings(max_examples=250, deadline=None)
def test_slower_requests_never_turn_fail_into_pass(
    on: Gate, after: Tally, baseline: Tally, controls: Tally | None, bucket: int, by: int
) -> None:
    on = replace(on, metric=Metric.LATENCY_P95, fresh_s=5000.0)
    counts = list(after.latency)
    moved, counts[bucket] = counts[bucket], 0.0
    counts[min(bucket + by, BUCKETS - 1)] += moved
    before, now = (_rule(on, tally, baseline, controls, 2000.0).ruling for tally in (after, replace(after, latency=tuple(counts))))
    assert not (before is Ruling.FAIL and now is Ruling.PASS)


@given(GATES, PLAUSIBLE, PLAUSIBLE, _TIME)
@settings(max_examples=200, deadline=None)
def test_a_failed_measurement_is_never_a_ruling_on_the_worker(on: Gate, after: Tally, baseline: Tally, now_s: float) -> None:
    verdict = rule(on, after=after, baseline=baseline, controls=None, unmeasured="timed out", admitted_at_s=0.0, now_s=now_s)
    assert verdict.ruling is Ruling.UNMEASURABLE


@given(GATES, PLAUSIBLE | ABSURD, some.none() | PLAUSIBLE | ABSURD, some.none() | PLAUSIBLE)
@settings(max_examples=400, deadline=None)
def test_failing_is_what_a_ruling_says_it_is(on: Gate, after: Tally, baseline: Tally | None, controls: Tally | None) -> None:
    """The quick question has the answer of the long one, asked as the tally was taken."""
    on = replace(on, deadline_s=math.inf)
    failed = _rule(on, after, baseline, controls, after.until_s).ruling is Ruling.FAIL
    assert fails(on, after=after, baseline=baseline, controls=controls) is failed
