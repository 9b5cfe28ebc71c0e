"""The traces that gates are compared on are what they are said to be."""

import math
from collections.abc import Iterable
from functools import cache, reduce
from operator import add

import numpy as np
import pytest

from rollout.model.gate import LATENCY_EDGES_S, Tally
from tests.benchmarks.gates import draw, rollouts
from tests.benchmarks.gates.scenarios import SCENARIOS, cold_plateau, exponential, plateau, power_law
from tests.benchmarks.gates.seeds import Purpose, seed
from tests.benchmarks.gates.traces import Restart, trace

# Edges that enough requests lie on both sides of, whatever the factor.
FITTED_S = (0.05, 0.1, 0.25)
RUNS = range(10)
# The stretch in which a cold cache of the usual kind has become warm.
WARM_FROM_S = 450.0


@cache
def _traces(scenario: str, level: float = 200.0) -> list[Restart]:
    return [trace(Purpose.CALIBRATION, scenario, level, run) for run in RUNS]


def _warm(restart: Restart) -> Tally:
    return reduce(add, (scrape.own for scrape in restart.scrapes if scrape.own is not None and scrape.at_s > WARM_FROM_S))


def _log_median(tally: Tally) -> float:
    """Fit the middle of a log-normal distribution with the known width to some of the shares below."""
    edges = [LATENCY_EDGES_S.index(edge) for edge in FITTED_S]
    below = np.cumsum(tally.latency)[edges] / tally.requests
    normal = [float(draw.LOG_SD * _probit(share)) for share in below]
    return float(np.mean([math.log(LATENCY_EDGES_S[edge]) - z for edge, z in zip(edges, normal, strict=True)]))


def _probit(share: float) -> float:
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + math.erf(middle / math.sqrt(2))) / 2 < share else (low, middle)
    return low


def _undisturbed(restarts: Iterable[Restart]) -> list[Restart]:
    return [restart for restart in restarts if not restart.truth.incidents]


def test_a_baseline_has_the_rate_and_the_latency_it_is_said_to_have() -> None:
    for level in (1.0, 200.0):
        for restart in _traces("healthy", level):
            assert restart.baseline.requests / 1800 == pytest.approx(level, rel=0.25)
            assert restart.baseline == reduce(add, restart.baseline_scrapes)
            assert restart.controls_baseline is not None
            assert restart.controls_baseline.requests / 1800 == pytest.approx(5 * level, rel=0.25)
    p95_s = [math.exp(_log_median(restart.baseline) + 1.645 * draw.LOG_SD) for restart in _traces("healthy")]
    assert np.mean(p95_s) == pytest.approx(0.264, rel=0.1)


def test_a_scrape_misses_one_time_in_fifty_and_its_counts_come_with_the_next() -> None:
    own = [scrape.own for restart in _traces("healthy") for scrape in restart.scrapes]
    assert sum(tally is None for tally in own) / len(own) == pytest.approx(0.02, abs=0.01)
    for restart in _traces("healthy"):
        seen = [scrape for scrape in restart.scrapes if scrape.own is not None]
        until_s = restart.admitted_s
        for scrape in seen:
            assert scrape.own is not None
            assert scrape.own.since_s == until_s
            until_s = scrape.own.until_s
            assert until_s == restart.admitted_s + scrape.at_s
            assert scrape.own.requests == sum(scrape.own.latency)


def test_twice_the_latency_shifts_the_whole_distribution_by_two() -> None:
    """Against the same worker before, and less what its peers went through at the same time."""
    for factor, scenario in ((1.0, "healthy"), (1.5, "p95 ×1.5"), (2.0, "p95 ×2")):
        shifts = []
        for restart in _undisturbed(_traces(scenario)):
            controls = reduce(add, (one.controls for one in restart.scrapes if one.controls is not None and one.at_s > WARM_FROM_S))
            assert restart.controls_baseline is not None
            own = _log_median(_warm(restart)) - _log_median(restart.baseline)
            shifts.append(own - _log_median(controls) + _log_median(restart.controls_baseline))
        assert math.exp(float(np.mean(shifts))) == pytest.approx(factor, rel=0.06)


def test_errors_are_as_many_as_said_and_only_after_admission() -> None:
    for share, scenario in ((0.001, "healthy"), (0.01, "errors 1 %"), (0.05, "errors 5 %")):
        restarts = _traces(scenario)
        after = [scrape.own for restart in restarts for scrape in restart.scrapes if scrape.own is not None]
        assert sum(one.errors for one in after) / sum(one.requests for one in after) == pytest.approx(share, rel=0.05)
        before = sum(one.baseline.errors for one in restarts) / sum(one.baseline.requests for one in restarts)
        assert before == pytest.approx(0.001, rel=0.05)


def test_one_request_in_a_hundred_takes_fifty_times_as_long() -> None:
    """The bulk stays where it was; what takes more than 2.5 s is most of that one per cent, and nearly nothing without."""
    for low, high, scenario in ((0.0, 0.001, "healthy"), (0.004, 0.009, "1 % take ×50")):
        warm = [_warm(restart) for restart in _undisturbed(_traces(scenario))]
        slow = sum(sum(one.latency[11:]) for one in warm) / sum(one.requests for one in warm)
        assert low <= slow <= high


def test_a_herd_brings_three_times_the_load_for_half_a_minute() -> None:
    ratios = []
    for restart in _traces("healthy, herd"):
        first = sum(scrape.own.requests for scrape in restart.scrapes[:6] if scrape.own is not None)
        then = sum(scrape.own.requests for scrape in restart.scrapes[6:12] if scrape.own is not None)
        ratios.append(first / then)
    assert np.mean(ratios) == pytest.approx(3.0, rel=0.1)


def test_a_second_restart_loses_the_counts_of_its_interval() -> None:
    """What the new process counted is all that comes of the interval: a half of it on the average."""
    shares = []
    for restart in _traces("healthy, restarts again"):
        assert restart.truth.reset_s is not None
        step = int(restart.truth.reset_s / draw.STEP_S)
        scrape, before = restart.scrapes[step], restart.scrapes[step - 1]
        if scrape.own is None or before.own is None:
            continue
        left = 1 - (restart.truth.reset_s / draw.STEP_S - step)
        shares.append(scrape.own.requests / (1000 * left))
    assert np.mean(shares) == pytest.approx(1.0, rel=0.15)


def test_an_outage_takes_everything_from_its_moment_on() -> None:
    for restart in _traces("outage"):
        outage_s = restart.truth.outage_s
        assert outage_s is not None
        assert 60 <= outage_s <= 300
        for scrape in restart.scrapes:
            assert (scrape.controls is None) == (scrape.at_s > outage_s)
            assert scrape.own is None or scrape.at_s <= outage_s


def test_an_incident_is_everybody_s() -> None:
    """It comes in about one run of ten, and slows the peers as it slows the worker."""
    restarts = [trace(Purpose.CALIBRATION, "healthy", 20.0, run) for run in range(60)]
    hit = [restart for restart in restarts if restart.truth.incidents]
    assert 2 <= len(hit) <= 14
    for restart in hit:
        (incident,) = restart.truth.incidents
        during = [one.controls for one in restart.scrapes if one.controls and incident.from_s + 10 < one.at_s < incident.until_s - 5]
        if during and restart.controls_baseline:
            shift = _log_median(reduce(add, during)) - _log_median(restart.controls_baseline)
            assert math.exp(shift) == pytest.approx(incident.factor, rel=0.5)


def test_a_cold_cache_is_four_times_slower_at_first_and_warm_in_the_end() -> None:
    t = np.array([0.0, 200.0, 900.0])
    for shape, tau_s in ((exponential, 300.0), (cold_plateau, 300.0), (power_law, 120.0)):
        start, middle, end = shape(t, 3.0, tau_s)
        assert start == pytest.approx(4.0)
        assert 1.6 < middle <= 4.0
        assert end < 1.2
    assert plateau(t, 1.0, 100.0) == pytest.approx([2.0, 1 + math.exp(-2), 1 + math.exp(-16)])


def test_every_scenario_can_be_drawn_and_the_names_are_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        restart = trace(Purpose.CALIBRATION, scenario.name, 1.0, 0)
        assert len(restart.scrapes) == 180
        assert restart.truth.healthy is scenario.healthy


def test_the_same_seed_gives_the_same_trace_and_purposes_share_none() -> None:
    assert trace(Purpose.EVALUATION, "cold", 5.0, 3) == trace(Purpose.EVALUATION, "cold", 5.0, 3)
    assert trace(Purpose.EVALUATION, "cold", 5.0, 3) != trace(Purpose.CALIBRATION, "cold", 5.0, 3)
    assert trace(Purpose.EVALUATION, "cold", 5.0, 3) != trace(Purpose.EVALUATION, "cold", 5.0, 4)
    assert seed(Purpose.CALIBRATION)[0] != seed(Purpose.EVALUATION)[0]


def test_in_a_rollout_peers_leave_the_controls_when_they_are_restarted() -> None:
    """The second worker of a pool is compared with four at first, then the third leaves too, and then the fourth."""
    restarts = rollouts.traces(Purpose.CALIBRATION, 20.0, 0, workers=7)
    assert [restart.admitted_s for restart in restarts] == [1800 + 300 * worker for worker in range(7)]
    second = restarts[1]
    assert second.controls_baseline is not None
    assert second.controls_baseline.requests / second.baseline.requests == pytest.approx(4, rel=0.2)
    spans = [second.scrapes[:50], second.scrapes[60:119], second.scrapes[120:179]]
    peers = [
        sum(one.controls.requests for one in span if one.controls) / sum(one.own.requests for one in span if one.own) for span in spans
    ]
    assert peers == pytest.approx([4, 3, 2], rel=0.25)
    # The last has no pool to compare it with.
    assert restarts[6].controls_baseline is None
    assert all(scrape.controls is None for scrape in restarts[6].scrapes)
