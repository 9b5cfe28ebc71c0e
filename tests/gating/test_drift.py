"""What slows everybody down alike, followed from block to block."""

import math
from functools import reduce

import numpy as np
import pytest

from rollout.gating.drift import Drift
from rollout.gating.shift import Peak

BLOCK_S = 30.0
# What five peers with twenty requests a second tell in half a minute: it is known to within a fiftieth.
SURE = 0.02**2


def _follow(drift: Drift, *seen: float, variance: float = SURE) -> Drift:
    for at in seen:
        drift = drift.follow(Peak(at, variance, 0.0), BLOCK_S)
    return drift


def test_before_anybody_was_seen_no_drift_is_as_likely_as_any() -> None:
    """It strays by .15 either way."""
    assert Drift().at == 0.0
    assert math.sqrt(Drift().variance) == pytest.approx(0.15)


def test_a_walk_is_followed() -> None:
    """Steps of .06 every half minute, seen to within .05: it stays as near as it says of itself, and nearer than what was seen."""
    rng = np.random.default_rng(14)
    walk = np.cumsum(rng.normal(0.0, 0.06, 2000))
    seen = walk + rng.normal(0.0, 0.05, 2000)
    drift, errors, said = Drift(), [], 0.0
    for truth, at in zip(walk, seen, strict=True):
        drift = drift.follow(Peak(float(at), 0.05**2, 0.0), BLOCK_S)
        errors.append(drift.at - float(truth))
        said = math.sqrt(drift.variance)
    deviation = float(np.std(errors))
    assert abs(np.mean(errors)) < 0.005
    assert deviation < 0.05
    assert deviation == pytest.approx(said, rel=0.2)


@pytest.mark.parametrize("to", [0.7, 1.4, -0.7])
def test_an_incident_is_believed_at_once(to: float) -> None:
    """After a quiet quarter of an hour the database is twice as slow, and four times, or well again: within one block, to a twentieth."""
    quiet = _follow(Drift(), *[0.0] * 30)
    assert abs(_follow(quiet, to).at - to) < 0.05
    assert abs(_follow(quiet, to, 0.0).at) < 0.05


def test_what_few_requests_show_is_believed_less() -> None:
    """Three requests say nothing against what three hundred showed before; and a small step is a step, no incident."""
    quiet = _follow(Drift(), *[0.0] * 30)
    assert abs(_follow(quiet, 0.5, variance=0.27).at) < 0.05
    assert 0.04 < _follow(quiet, 0.1).at < 0.1


def test_without_anybody_to_compare_with_it_is_known_less_and_less_and_never_less_than_nothing() -> None:
    """It goes back to where it usually is, over four minutes, and what is not known of it to how far it sways."""
    drift = _follow(Drift(), *[0.3] * 10)
    first = drift.variance
    for blocks in range(1, 201):
        drift = drift.follow(None, BLOCK_S)
        assert drift.at == pytest.approx(0.3 * math.exp(-blocks * BLOCK_S / 240.0))
        assert first < drift.variance < 0.15**2 + 0.3**2
    assert drift.variance == pytest.approx(0.1**2)


def test_how_an_incident_ends_is_not_known_once_nobody_is_left_to_compare_with() -> None:
    """A minute later it may be over or not: both are within two standard deviations. Half an hour later it is over."""
    drift = _follow(Drift(), 0.0, 0.9, 0.9).follow(None, 2 * BLOCK_S)
    assert 0.9 - drift.at < 2.0 * math.sqrt(drift.variance)
    assert drift.at < 2.0 * math.sqrt(drift.variance)
    later = reduce(lambda drift, _: drift.follow(None, BLOCK_S), range(60), drift)
    assert (later.at, later.variance) == pytest.approx((0.0, 0.1**2), abs=1e-3)


def test_it_goes_as_far_in_one_long_block_as_in_two_short_ones() -> None:
    once, twice = Drift(0.9, 0.001).follow(None, 2 * BLOCK_S), Drift(0.9, 0.001).follow(None, BLOCK_S).follow(None, BLOCK_S)
    assert (once.at, once.variance) == pytest.approx((twice.at, twice.variance))


def test_its_variance_stays_between_what_one_sees_and_what_it_strays() -> None:
    """However surely it was seen, some of those who are compared with waver; however wildly it jumps, what was seen last is known."""
    rng = np.random.default_rng(15)
    drift = Drift()
    for at in rng.normal(0.0, 1.0, 300):
        drift = drift.follow(Peak(float(at), 1e-9, 0.0), BLOCK_S)
        assert 0.02**2 < drift.variance <= 0.03**2 + 1e-6
