"""The peers that ours is compared with do as their source does."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from rollout.model.gate import Ruling, Tally
from tests.benchmarks.gates import argo, contest, flagger, kayenta, probes, traces
from tests.benchmarks.gates.contest import Course, Tale, quantile, run_all, upper_bound
from tests.benchmarks.gates.mann_whitney import shift
from tests.benchmarks.gates.scenarios import LEVELS
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.table import row, tales
from tests.benchmarks.gates.windows import Reading, histogram_quantile, queries

GOOD = (0.1, 0.0)
BAD = (3.0, 0.5)


def _readings(values: Sequence[tuple[float, float] | None], every_s: float) -> list[Reading]:
    return [Reading((i + 1) * every_s, *(value or (None, None))) for i, value in enumerate(values)]


def _flagger(*values: tuple[float, float] | None, threshold: int = 5) -> list[Ruling]:
    rule = flagger.Rule(flagger.Limits(threshold))
    return [rule.tick(reading) for reading in _readings(values, 60)]


def test_flagger_promotes_a_good_canary_after_six_minutes() -> None:
    assert _flagger(*[GOOD] * 6) == [Ruling.PENDING] * 5 + [Ruling.PASS]


def test_flagger_never_forgets_a_failed_check() -> None:
    """Failures that lie between successes add up; the roll-back comes at the tick after the last of them."""
    assert _flagger(GOOD, BAD, GOOD, BAD, GOOD, GOOD, threshold=2)[-2:] == [Ruling.FAIL] * 2
    assert _flagger(GOOD, BAD, GOOD, BAD, threshold=2)[-1] is Ruling.PENDING


def test_flagger_measures_nothing_before_traffic_is_routed() -> None:
    assert _flagger(BAD, *[GOOD] * 5, threshold=1)[-1] is Ruling.PASS


def test_flagger_counts_a_missing_value_as_a_failed_check() -> None:
    assert _flagger(GOOD, None, None, GOOD, threshold=2)[-1] is Ruling.FAIL


def _argo(values: Sequence[tuple[float, float] | None], limits: argo.Limits) -> tuple[float, Ruling]:
    """Offer a reading every 10 s from the first measurement on. Return when it came to what end."""
    rule = argo.Rule(limits)
    for reading in _readings(values, argo.ERROR_RETRY_S):
        at = Reading(reading.at_s + argo.INITIAL_DELAY_S - argo.ERROR_RETRY_S, reading.latency_s, reading.errors)
        if rule.due(at.at_s) and rule.tick(at) is not Ruling.PENDING:
            return at.at_s - argo.INITIAL_DELAY_S, rule.ruling
    return math.inf, rule.ruling


def test_argo_aborts_when_the_metrics_are_away_for_40_s() -> None:
    """Its consecutiveErrorLimit of 4 lets the fifth error in a row end the run, ten seconds after each other."""
    assert _argo([None] * 5 + [GOOD] * 50, argo.Limits()) == (40.0, Ruling.FAIL)
    assert _argo([None] * 4 + [GOOD] * 50, argo.Limits())[1] is Ruling.PASS


def test_argo_forgets_errors_with_the_next_answer() -> None:
    assert _argo([None, None, None, None, GOOD, GOOD, GOOD, None, None, None, None] + [GOOD] * 50, argo.Limits())[1] is Ruling.PASS


def test_argo_fails_with_the_first_failure_above_its_limit() -> None:
    assert _argo([BAD], argo.Limits()) == (0.0, Ruling.FAIL)
    assert _argo([BAD] * 4 + [GOOD] * 50, argo.Limits(failure_limit=2))[1] is Ruling.PASS
    assert _argo([BAD] * 50, argo.Limits(failure_limit=2)) == (60.0, Ruling.FAIL)


def test_mann_whitney_goes_blind_where_half_of_the_samples_are_slow() -> None:
    """With k of 30 fifty times as slow, the estimate that the tolerance is a share of grows before the interval does."""
    rng = np.random.default_rng(1)
    found = {}
    for k in (14, 16, 17, 18, 19, 20, 22):
        above = []
        for _ in range(60):
            control, experiment = rng.lognormal(0, 0.1, 30), rng.lognormal(0, 0.1, 30)
            experiment[:k] *= 50
            compared = kayenta.compare(experiment.tolist(), control.tolist())
            above.append(compared is not None and compared.above)
        found[k] = sum(above) / len(above)
    assert [found[k] for k in (16, 17, 18, 19, 20)] == [0.0] * 5
    assert found[22] == 1.0
    assert 0 < found[14] < 1


def test_mann_whitney_brackets_the_shift() -> None:
    """The interval has the confidence it is said to have, and the estimate is the median of the differences."""
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(400):
        found = shift(rng.normal(1.0, 1.0, 15), rng.normal(0.0, 1.0, 12), 0.9)
        inside += found.lower <= 1.0 <= found.upper
        assert found.lower <= found.estimate <= found.upper
    assert inside / 400 == pytest.approx(0.9, abs=0.05)
    assert shift(np.array([3.0, 5.0]), np.array([1.0]), 0.98).estimate == 3.0


def test_kayenta_scores_a_group_without_data_like_one_that_passes() -> None:
    assert kayenta.group_score([kayenta.Label.NODATA]) == 100
    assert kayenta.group_score([kayenta.Label.NODATA, kayenta.Label.HIGH]) == 0
    # But nothing passes where half of all metrics are without.
    assert kayenta.score([[kayenta.Label.GOOD], [kayenta.Label.NODATA]]) == 0
    assert kayenta.score([[kayenta.Label.GOOD] * 2, [kayenta.Label.NODATA]]) == 100
    assert kayenta.score([[kayenta.Label.GOOD], [kayenta.Label.HIGH]]) == 50


def test_kayenta_passes_on_what_came_in_before_an_outage() -> None:
    """The series of an outage are only shorter. It is the one peer that may pass a worker of which nothing is known any more."""
    tale = contest.run(kayenta.TUNED, "outage", 20.0, 20, Purpose.CALIBRATION)
    assert tale.passed_blindly >= 15


def test_flagger_rolls_back_in_every_outage() -> None:
    tale = contest.run(flagger.TUNED, "outage", 20.0, 20, Purpose.CALIBRATION)
    assert tale.failed_blindly == 20


def test_probes_pass_whatever_answers() -> None:
    tales = run_all([probes.DEFAULT], "errors 5 %", 20.0, 3, Purpose.CALIBRATION)
    assert tales[0].courses == (Course(30.0, math.inf),) * 3


def test_tuned_peers_seldom_take_back_a_well_worker() -> None:
    """About 1 % at every level: of 40 hardly any."""
    for level in (LEVELS[1], LEVELS[3]):
        tales = run_all([flagger.TUNED, argo.TUNED, kayenta.TUNED], "healthy", level, 40, Purpose.EVALUATION)
        assert [tale.failed <= 3 for tale in tales] == [True] * 3


def test_a_quantile_is_prometheus_s() -> None:
    """Linear within a bucket, and the highest edge for what lies above all."""
    latency = [0.0] * 15
    latency[5], latency[6] = 50.0, 50.0
    assert histogram_quantile(0.5, [Tally(0, 5, latency=tuple(latency))]) == pytest.approx(0.1)
    assert histogram_quantile(0.75, [Tally(0, 5, latency=tuple(latency))]) == pytest.approx(0.175)
    assert histogram_quantile(0.95, [Tally(0, 5, latency=(0.0,) * 14 + (1.0,))]) == 10.0
    assert histogram_quantile(0.95, [Tally(0, 5)]) is None


def test_a_rate_takes_in_the_increments_of_its_minute_and_no_more() -> None:
    """Twelve samples lie in a minute of scrapes, and eleven increments between them."""
    asked = queries(admitted_s=0.0, quantile=0.95)
    for step in range(1, 25):
        tally = Tally(5.0 * step - 5, 5.0 * step, requests=1, errors=1 if step <= 12 else 0, latency=(0.0, 1.0, *[0.0] * 13))
        scrape = traces.Scrape(5.0 * step, tally, tally)
        asked.see(scrape)
        errors = asked.ask(scrape).errors
        assert errors == pytest.approx(1.0 if step <= 12 else max(0, 23 - step) / 11, abs=1e-9)
    assert asked.ask(traces.Scrape(125.0, None, None)).errors is None


def test_what_never_happened_is_later_than_everything() -> None:
    courses = (Course(30.0, 100.0), Course(math.inf, 200.0), Course(math.inf, math.inf))
    tale = Tale("gate", "healthy", 1.0, Purpose.EVALUATION, courses, (math.inf,) * 3)
    assert (tale.failed, tale.passed) == (2, 1)
    assert quantile([course.failed_s for course in courses], 0.5) == 200.0
    assert quantile([course.passed_s for course in courses], 0.5) == math.inf
    # The rule of three.
    assert upper_bound(0, 300) == pytest.approx(0.01, rel=0.01)
    assert upper_bound(5, 5) == 1.0


def test_a_table_has_a_row_for_each_contender_and_says_on_which_seeds() -> None:
    found = [row(tale) for tale in tales([probes.DEFAULT, flagger.DEFAULT], ["outage"], [5.0], runs=2, rollouts=1)]
    assert [(row["gate"], row["restart"], row["seeds"]) for row in found] == [
        ("probes", "outage", "evaluation"),
        ("Flagger", "outage", "evaluation"),
        ("probes", "rollout of 30", "evaluation"),
        ("Flagger", "rollout of 30", "evaluation"),
    ]
    assert found[0]["pass s"] == 30
    assert found[1]["failed blind %"] == 100.0
