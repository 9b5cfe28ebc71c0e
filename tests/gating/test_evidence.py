"""What a metric is worth in a tally."""

from dataclasses import replace

import pytest

from rollout.gating.evidence import SAMPLES, measured, quantile, sound, surely_above
from rollout.model.gate import LATENCY_EDGES_S, Metric, Tally
from tests.gating.evidence_at_hand import BUCKETS, histogram, tally

WATCHED = tally(
    requests=100.0,
    errors=3.0,
    latency=histogram(ms5=90, ms10=10),
    request_cpu_s=0.3,
    polls=50.0,
    poll_cpu_s=0.5,
    poll_db_s=1.0,
    poll_scheduling_s=2.0,
    canaries=10,
    canary_failures=1,
    canary_latency=histogram(ms50=9),
    work=120.0,
    backlog=7.0,
    proxied=160.0,
    proxy_failures=4.0,
    pushes=80.0,
    push_failures=2.0,
)


VALUES = [
    (Metric.LATENCY_P95, 0.0075, 100),
    (Metric.ERRORS, 0.02, 140),
    (Metric.REQUEST_CPU, 0.003, 100),
    (Metric.POLL_CPU, 0.01, 40),
    (Metric.POLL_DB, 0.02, 40),
    (Metric.POLL_SCHEDULING, 0.04, 40),
    (Metric.CANARY_P95, 0.04875, 9),
    (Metric.CANARY_FAILURES, 0.1, 10),
    (Metric.PROXY_FAILURES, 0.025, 160),
    (Metric.PUSH_FAILURES, 0.025, 80),
    (Metric.WORK, 2.0, 120),
    (Metric.BACKLOG, 7.0, 120),
]


@pytest.mark.parametrize(("metric", "value", "samples"), VALUES)
def test_each_metric_reads_its_own_numbers(metric: Metric, value: float, samples: float) -> None:
    assert measured(metric, WATCHED) == pytest.approx((value, samples))


def test_these_are_all_metrics() -> None:
    assert {metric for metric, _, _ in VALUES} == set(Metric)


@pytest.mark.parametrize("metric", list(Metric))
def test_without_samples_there_is_no_value(metric: Metric) -> None:
    """None, which is neither zero nor good."""
    assert measured(metric, Tally(0.0, 0.0)) == (None, 0)


def test_every_metric_names_its_samples() -> None:
    assert set(SAMPLES) == set(Metric)


def test_quantile_lies_within_its_bucket() -> None:
    assert quantile(histogram(ms100=50, ms250=50), 0.5) == pytest.approx(0.1)
    assert quantile(histogram(ms100=50, ms250=50), 0.75) == pytest.approx(0.175)


def test_beyond_the_last_edge_nothing_is_known() -> None:
    beyond = (*[0.0] * (BUCKETS - 1), 10.0)
    assert quantile(beyond, 0.95) == LATENCY_EDGES_S[-1]
    assert surely_above(beyond, 10.0) == 10


@pytest.mark.parametrize(("threshold_s", "above"), [(0.05, 7), (0.1, 5), (0.11, 0), (0.25, 0), (0.0, 10)])
def test_surely_above_leaves_the_bucket_of_the_threshold_out(threshold_s: float, above: float) -> None:
    assert surely_above(histogram(ms50=3, ms100=2, ms250=5), threshold_s) == above


def test_sound_is_what_can_be_true() -> None:
    assert sound(WATCHED)
    assert not sound(replace(WATCHED, until_s=WATCHED.since_s - 1))
    assert not sound(replace(WATCHED, canary_failures=11))
    assert not sound(replace(WATCHED, proxy_failures=161.0))
    assert not sound(replace(WATCHED, push_failures=81.0))
    assert not sound(replace(WATCHED, canary_latency=()))
    assert not sound(replace(WATCHED, backlog=float("nan")))
