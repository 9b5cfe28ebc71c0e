"""What no tally, gate or moment can make the rule do."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from rollout.gating import sequential, threshold
from rollout.gating.evidence import measured, sound
from rollout.gating.sequential import METRICS, Seen, weigh
from rollout.gating.threshold import fails
from rollout.gating.windows import Window
from rollout.model.gate import Gate, Metric, Ruling, Stratum, Tally, Verdict
from rollout.model.ids import GateId
from tests.gating.evidence_at_hand import BUCKETS
from tests.gating.lognormal import expected

_Numbers = some.SearchStrategy[float]
_ANY = some.floats(allow_nan=True, allow_infinity=True)
_COUNT = some.integers(0, 400).map(float)
# No clock counts less than nanoseconds.
_SECONDS = some.floats(0, 50, allow_nan=False).map(lambda seconds: round(seconds, 9))
_TIME = some.floats(0, 2000, allow_nan=False)


def _buckets(number: _Numbers) -> some.SearchStrategy[tuple[float, ...]]:
    return some.lists(number, min_size=BUCKETS, max_size=BUCKETS).map(tuple)


def _strata(number: _Numbers, seconds: _Numbers) -> some.SearchStrategy[tuple[Stratum, ...]]:
    one = some.builds(
        Stratum, some.sampled_from("abc"), number, number, seconds, seconds, seconds, some.lists(number, max_size=BUCKETS + 1).map(tuple)
    )
    return some.just(()) | some.lists(one, max_size=2).map(tuple)


def _fields(number: _Numbers, seconds: _Numbers, time: _Numbers) -> dict[str, some.SearchStrategy[object]]:
    """Return how each field of a tally is drawn."""
    return {
        "since_s": time,
        "until_s": time,
        "requests": number,
        "errors": number,
        "latency": _buckets(number),
        "request_cpu_s": seconds,
        "polls": number,
        "poll_cpu_s": seconds,
        "poll_db_s": seconds,
        "poll_scheduling_s": seconds,
        "canaries": some.integers(-1, 100),
        "canary_failures": some.integers(-1, 100),
        "canary_latency": _buckets(number),
        "work": number,
        "cpu_s": seconds,
        "replication_failures": number,
        "backlog": some.none() | number,
        "proxied": number,
        "proxy_failures": number,
        "pushes": number,
        "push_failures": number,
        "bought": some.integers(-1, 100),
        "strata": _strata(number, seconds),
    }


def _tallies(number: _Numbers, seconds: _Numbers, time: _Numbers) -> some.SearchStrategy[Tally]:
    return some.builds(Tally, **_fields(number, seconds, time))


def _plausible(tally: Tally, share: float) -> Tally:
    """Put it in order, and let as many of its requests be told apart."""
    canaries = max(0, tally.canaries)
    kind = Stratum(
        "kind",
        share * tally.requests,
        share * tally.polls,
        share * (tally.request_cpu_s + tally.poll_cpu_s),
        share * tally.poll_db_s,
        share * tally.poll_scheduling_s,
        tuple(share * count for count in tally.latency),
    )
    return replace(
        tally,
        since_s=min(tally.since_s, tally.until_s),
        until_s=max(tally.since_s, tally.until_s),
        errors=min(tally.errors, tally.requests + tally.polls),
        canaries=canaries,
        canary_failures=max(0, min(canaries, tally.canary_failures)),
        proxy_failures=min(tally.proxied, tally.proxy_failures),
        push_failures=min(tally.pushes, tally.push_failures),
        bought=max(0, min(canaries, tally.bought)),
        strata=(kind,) if share else (),
    )


ABSURD = _tallies(_ANY, _ANY, _ANY)
PLAUSIBLE = some.builds(_plausible, _tallies(_COUNT, _SECONDS, _TIME), some.sampled_from([0.0, 0.5, 0.95]))
_THRESHOLDS = some.builds(
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
_SEQUENTIAL = some.builds(
    lambda gate, metric, odds: replace(gate, metric=metric, odds=odds),
    _THRESHOLDS.map(lambda gate: replace(gate, ratio_max=gate.ratio_max and gate.ratio_max + 0.61, max=gate.max and min(1.0, gate.max))),
    some.sampled_from(sorted(METRICS)),
    some.floats(20, 1e6),
)
GATES = _THRESHOLDS | _SEQUENTIAL


def _rule(
    on: Gate, after: Tally | None, baseline: Tally | None, controls: Tally | None, now_s: float, unmeasured: str | None = None
) -> Verdict:
    """Rule by what test the gate has; *controls* are what its pool did before and meanwhile."""
    if on.odds is None:
        its = {"after": after, "baseline": baseline, "controls": controls, "pool": controls}
        return threshold.rule(on, **its, unmeasured=unmeasured, admitted_at_s=0.0, now_s=now_s)
    # What can't be true of the worker itself is left out by whoever asks (engine/judging.py, deciding/noticing.py).
    blocks = (Window(after, (), controls),) if after is not None and sound(after) else ()
    seen = Seen(blocks, baseline, controls, (), 0.0)
    return sequential.rule(on, seen, weigh(on, seen)[0], unmeasured=unmeasured, now_s=now_s)


def test_whatever_a_tally_holds_is_drawn() -> None:
    """A metric without data could do nothing here."""
    assert set(_fields(_COUNT, _SECONDS, _TIME)) == {field.name for field in fields(Tally)}


@given(PLAUSIBLE)
@settings(max_examples=50, deadline=None)
def test_what_is_plausible_is_sound(tally: Tally) -> None:
    """Or the tests below would be of nothing."""
    assert sound(tally)


@given(GATES, some.none() | ABSURD | PLAUSIBLE, some.none() | ABSURD | PLAUSIBLE, some.none() | ABSURD | PLAUSIBLE, _ANY)
@settings(max_examples=200, deadline=None)
def test_never_raises(on: Gate, after: Tally | None, baseline: Tally | None, controls: Tally | None, now_s: float) -> None:
    verdict = _rule(on, after, baseline, controls, now_s)
    assert verdict.because
    assert "\n" not in verdict.because


@given(GATES, PLAUSIBLE, some.none() | PLAUSIBLE, some.none() | PLAUSIBLE, _TIME)
@settings(max_examples=250, deadline=None)
def test_pass_needs_samples_freshness_and_the_soak(
    on: Gate, after: Tally, baseline: Tally | None, controls: Tally | None, now_s: float
) -> None:
    """About one example in ten passes."""
    if _rule(on, after, baseline, controls, now_s).ruling is Ruling.PASS:
        assert measured(on.metric, after)[1] >= on.samples_min
        assert now_s - after.until_s <= on.fresh_s
        assert now_s >= on.soak_s


def _of(metric: Metric, on: Gate) -> Gate:
    """Let a gate look at this metric, by a threshold if there is no other test of it."""
    return replace(on, metric=metric, odds=on.odds if metric in METRICS else None, deadline_s=5000.0, fresh_s=5000.0)


# What nothing may get worse in, by how it does.
_FAILURES = {
    Metric.ERRORS: "errors",
    Metric.CANARY_FAILURES: "canary_failures",
    Metric.PROXY_FAILURES: "proxy_failures",
    Metric.PUSH_FAILURES: "push_failures",
}
_TIMES = {Metric.LATENCY_P95: "latency", Metric.CANARY_P95: "canary_latency"}
_AMOUNTS = {
    Metric.REQUEST_CPU: "request_cpu_s",
    Metric.POLL_CPU: "poll_cpu_s",
    Metric.POLL_DB: "poll_db_s",
    Metric.POLL_SCHEDULING: "poll_scheduling_s",
    Metric.BACKLOG: "backlog",
    Metric.WORK: "work",
}


def test_these_are_all_metrics() -> None:
    assert _FAILURES.keys() | _TIMES.keys() | _AMOUNTS.keys() == set(Metric)


def _with_failures(metric: Metric, tally: Tally, more: int) -> Tally:
    """Let *more* requests fail, or all that there are."""
    return _changed(tally, _FAILURES[metric], min(getattr(tally, _FAILURES[metric]) + more, _asked(metric, tally)))


def _asked(metric: Metric, tally: Tally) -> float:
    asked = {
        Metric.ERRORS: tally.requests + tally.polls,
        Metric.CANARY_FAILURES: tally.canaries,
        Metric.PROXY_FAILURES: tally.proxied,
        Metric.PUSH_FAILURES: tally.pushes,
    }
    return asked[metric]


def _changed(tally: Tally, name: str, value: Any) -> Tally:  # noqa: ANN401  (whatever the field holds)
    return replace(tally, **{name: value})


@given(GATES, PLAUSIBLE, PLAUSIBLE, some.none() | PLAUSIBLE, some.integers(1, 100))
@settings(max_examples=250, deadline=None)
@pytest.mark.parametrize("metric", list(_FAILURES))
def test_more_failures_never_better_a_ruling(
    metric: Metric, on: Gate, after: Tally, baseline: Tally, controls: Tally | None, more: int
) -> None:
    """FAIL stays FAIL, and what is not a PASS doesn't become one."""
    on = _of(metric, on)
    badness = [Ruling.PASS, Ruling.PENDING, Ruling.FAIL]
    before, now = (_rule(on, tally, baseline, controls, 2000.0).ruling for tally in (after, _with_failures(metric, after, more)))
    assert badness.index(now) >= badness.index(before)


def _with_slower_ones(tally: Tally, name: str, bucket: int, by: int) -> Tally:
    """Let the requests of a *bucket* be so many buckets slower."""
    counts = list(getattr(tally, name))
    moved, counts[bucket] = counts[bucket], 0.0
    counts[min(bucket + by, BUCKETS - 1)] += moved
    return _changed(tally, name, tuple(counts))


@given(_THRESHOLDS, PLAUSIBLE, PLAUSIBLE, some.none() | PLAUSIBLE, some.integers(0, BUCKETS - 2), some.integers(1, 14))
@settings(max_examples=250, deadline=None)
@pytest.mark.parametrize("metric", list(_TIMES))
def test_slower_requests_never_turn_fail_into_pass(
    metric: Metric, on: Gate, after: Tally, baseline: Tally, controls: Tally | None, bucket: int, by: int
) -> None:
    on = _of(metric, on)
    slower = _with_slower_ones(after, _TIMES[metric], bucket, by)
    before, now = (_rule(on, tally, baseline, controls, 2000.0).ruling for tally in (after, slower))
    assert not (before is Ruling.FAIL and now is Ruling.PASS)


@given(_SEQUENTIAL, some.integers(30, 2000), some.floats(-0.5, 1.5), some.booleans(), some.integers(0, BUCKETS - 2), some.integers(1, 14))
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("metric", list(_TIMES))
def test_slower_requests_never_turn_a_sequential_fail_into_pass(
    metric: Metric,
    on: Gate,
    requests: int,
    shift: float,
    alone: bool,  # noqa: FBT001  (drawn)
    bucket: int,
    by: int,
) -> None:
    """Of times such as workers have: a whole curve is looked for, and in any heap of requests another one may fit better."""
    on = _of(metric, on)
    baseline, pool, after = (
        _changed(Tally(0.0, 1800.0, requests=sum(counts)), _TIMES[metric], counts)
        for counts in (expected(9000.0), expected(36_000.0), expected(float(requests), shift))
    )
    slower = _with_slower_ones(after, _TIMES[metric], bucket, by)
    before, now = (_rule(on, tally, baseline, None if alone else pool, 2000.0).ruling for tally in (after, slower))
    assert not (before is Ruling.FAIL and now is Ruling.PASS)


_COUNTS, _AMOUNT = some.integers(50, 400), some.floats(1, 1000)


@given(GATES, _COUNTS, _AMOUNT, _COUNTS, _AMOUNT, _AMOUNT)
@settings(max_examples=250, deadline=None)
@pytest.mark.parametrize("metric", list(_AMOUNTS))
def test_what_costs_more_or_gets_less_done_never_turns_fail_into_pass(
    metric: Metric, on: Gate, count_before: int, amount_before: float, count: int, amount: float, more: float
) -> None:
    """Seconds of requests, what waits, or work."""
    # A backlog is failed when time is over.
    on = replace(_of(metric, on), deadline_s=1000.0)
    name = _AMOUNTS[metric]
    baseline, after, worse = (
        _changed(Tally(0.0, 60.0, requests=requests, polls=requests, work=requests), name, value)
        for requests, value in (
            (count_before, amount_before),
            (count, amount),
            (count, max(0.0, amount - more) if metric is Metric.WORK else amount + more),
        )
    )
    before, now = (_rule(on, tally, baseline, None, 2000.0).ruling for tally in (after, worse))
    assert not (before is Ruling.FAIL and now is Ruling.PASS)


@given(GATES, PLAUSIBLE, PLAUSIBLE, _TIME)
@settings(max_examples=200, deadline=None)
def test_a_failed_measurement_is_never_a_ruling_on_the_worker(on: Gate, after: Tally, baseline: Tally, now_s: float) -> None:
    assert _rule(on, after, baseline, None, now_s, unmeasured="timed out").ruling is Ruling.UNMEASURABLE


@given(_THRESHOLDS, PLAUSIBLE | ABSURD, some.none() | PLAUSIBLE | ABSURD, some.none() | PLAUSIBLE)
@settings(max_examples=400, deadline=None)
def test_failing_is_what_a_ruling_says_it_is(on: Gate, after: Tally, baseline: Tally | None, controls: Tally | None) -> None:
    """The quick question has the answer of the long one, asked as the tally was taken; for the other test see test_metamorphic.py."""
    on = replace(on, deadline_s=math.inf)
    failed = _rule(on, after, baseline, controls, after.until_s).ruling is Ruling.FAIL
    assert fails(on, after=after, baseline=baseline, controls=controls, pool=controls) is failed
