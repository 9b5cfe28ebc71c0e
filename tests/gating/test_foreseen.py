"""What a plan says of sequential gates, held against made-up restarts on which thresholds may be chosen: neither earlier nor much later."""

import math
import re
from statistics import median
from typing import Any

import pytest

from rollout.gating import foreseen
from rollout.gating.detectable import USUAL, at_traffic
from rollout.gating.foreseen import Facing, Foreseen, foresee, together
from rollout.model.gate import Metric
from tests.benchmarks.gates import contest, draw, ours, traces
from tests.benchmarks.gates.seeds import Purpose
from tests.gating.evidence_at_hand import gate

BASELINE_S = draw.BASELINE_STEPS * draw.STEP_S
# Seen by nothing on which a threshold of the gates was chosen.
RUNS = range(5300, 5309)
# A figure may be so much too late: who waits for it that long has lost little, who trusts one that is too early believes a bad release.
LATE = 1.5
# The middle of so few is known no better.
EARLY = 0.9
ODDS = ours.PER_ROLLOUT.odds


def _facing(per_s: float, **fields: Any) -> Facing:  # noqa: ANN401  (any field of it)
    whole = Facing(per_s, BASELINE_S, traces.PEERS * per_s, workers=30, pool=6, turn_s=300.0, watch_s=900.0, usual=USUAL)
    return whole._replace(**fields)


def _said(metric: Metric, per_s: float, what: str) -> float:
    """Return the seconds of one figure of a plan."""
    found = re.search(rf"{what} in about ([\d.]+) (s|min)", at_traffic(ours.gate(metric, ODDS), ODDS, _facing(per_s)))
    assert found is not None
    return float(found[1]) * (60 if found[2] == "min" else 1)


def _measured(scenario: str, per_s: float) -> list[contest.Course]:
    return [contest.watch(ours.PER_ROLLOUT, traces.trace(Purpose.CALIBRATION, scenario, per_s, run), per_s) for run in RUNS]


@pytest.mark.parametrize(
    ("scenario", "per_s", "metric", "what"),
    [
        ("p95 ×2", 1.0, Metric.LATENCY_P95, "2 ×"),
        ("p95 ×2", 5.0, Metric.LATENCY_P95, "2 ×"),
        ("p95 ×2", 20.0, Metric.LATENCY_P95, "2 ×"),
        ("p95 ×1.5", 5.0, Metric.LATENCY_P95, "1.5 ×"),
        ("p95 ×1.5", 20.0, Metric.LATENCY_P95, "1.5 ×"),
        ("errors 5 %", 1.0, Metric.ERRORS, "5%"),
        ("errors 1 %", 5.0, Metric.ERRORS, "1%"),
    ],
)
def test_what_is_bad_is_seen_about_when_the_plan_says(scenario: str, per_s: float, metric: Metric, what: str) -> None:
    seen_s = median(course.failed_s for course in _measured(scenario, per_s))
    assert EARLY * seen_s <= _said(metric, per_s, what) <= LATE * seen_s


@pytest.mark.parametrize("per_s", [1.0, 5.0, 20.0])
def test_who_is_well_passes_about_when_the_plan_says(per_s: float) -> None:
    """Both gates are asked; that on latency is the later one."""
    passed_s = median(course.passed_s for course in _measured("healthy", per_s))
    assert EARLY * passed_s <= _said(Metric.LATENCY_P95, per_s, "a good one passes") <= LATE * passed_s


def _foreseen(per_s: float, amount: float, metric: Metric = Metric.LATENCY_P95, **fields: float) -> float:
    return foresee(gate(metric, odds=ODDS, deadline_s=1200.0), _facing(per_s, **fields), amount, 1200.0).failed_s


def test_less_to_see_takes_longer() -> None:
    """Fewer requests, a shorter past, nobody beside it, a smaller effect."""
    usual_s = _foreseen(5.0, 2.0)
    assert usual_s < _foreseen(1.0, 2.0) < math.inf
    assert usual_s < _foreseen(5.0, 2.0, peers_per_s=0.0) < math.inf
    assert usual_s < _foreseen(5.0, 1.5) < math.inf
    assert _foreseen(5.0, 1.5) < _foreseen(5.0, 1.5, baseline_s=30.0) < math.inf
    assert _foreseen(5.0, 1.2) == math.inf


@pytest.mark.parametrize("metric", [Metric.ERRORS, Metric.CANARY_FAILURES, Metric.PROXY_FAILURES])
def test_failures_are_reckoned_against_the_usual_share(metric: Metric) -> None:
    """Where 1 % fail anyway, 5 % are seen later than where hardly any do."""
    assert 0 < _foreseen(5.0, 0.05, metric) < _foreseen(5.0, 0.05, metric, usual=0.01) < 600
    assert _foreseen(5.0, 0.01, metric, usual=0.01) == math.inf


@pytest.mark.parametrize("metric", [Metric.CANARY_P95, Metric.REQUEST_CPU, Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING])
def test_every_metric_of_a_sequential_gate_is_reckoned(metric: Metric) -> None:
    assert 240 <= _foreseen(5.0, 2.0, metric) <= 720


def test_several_say_more_together_than_one_and_nothing_before_they_have_passed() -> None:
    """A limit of its own lets half as slow again pass."""
    found = foresee(gate(Metric.LATENCY_P95, odds=1e9, ratio_max=3.0, deadline_s=1200.0), _facing(5.0), 1.5, 1200.0)
    assert found.passed_s < 300
    facing = _facing(5.0, pool=30)
    assert together(found, facing, 2) == -math.inf
    assert 0 < together(found, facing, 3) < together(found, facing, 6)


@pytest.mark.parametrize(("per_s", "ratio"), [(1.0, 2.0), (5.0, 2.0), (5.0, 1.5), (20.0, 2.0)])
def test_where_no_recovery_is_known_it_takes_up_to_half_as_long_again(per_s: float, ratio: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan says so, in these words."""
    learned_s = _foreseen(per_s, ratio)
    monkeypatch.setattr(foreseen, "_EARLIER", ())
    # What is reckoned is kept for the same question.
    assert learned_s < _foreseen(per_s, ratio, baseline_s=BASELINE_S + 1) <= 1.5 * learned_s


@pytest.mark.parametrize(("per_s", "pool", "middle"), [(5.0, 30, 6), (5.0, 12, 6), (1.0, 30, 7)])
def test_a_fifth_slower_is_seen_together_about_when_the_plan_says(per_s: float, pool: int, middle: int) -> None:
    """*middle* is by which worker 6 rollouts of 30 showed it (calibration seeds 5300 on), with a limit that lets each of them pass."""
    found = foresee(PATIENT, _facing(per_s), 1.2, 1200.0)
    assert middle <= _turn(found, _facing(per_s, pool=pool)) <= LATE * middle


def test_a_fifth_slower_is_not_seen_together_once_a_pool_is_rolled() -> None:
    """
    With nobody left to compare with, what is the same for all of them may be the day: in pools of 6 one of 3 rollouts showed it.
    Half as slow again was shown by all 3, by the second worker.
    """
    assert _turn(foresee(PATIENT, _facing(5.0), 1.2, 1200.0), _facing(5.0)) == math.inf
    assert _turn(foresee(PATIENT, _facing(5.0), 1.5, 1200.0), _facing(5.0)) == 3


PATIENT = gate(Metric.LATENCY_P95, odds=1e9, ratio_max=2.0, deadline_s=1200.0)


def _turn(found: Foreseen, facing: Facing) -> float:
    assert found.passed_s < 600
    return next((turn for turn in range(2, 31) if together(found, facing, turn) >= math.log(ODDS)), math.inf)
