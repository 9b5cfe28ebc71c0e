"""What workers say together that none of them says alone."""

import math
from itertools import repeat

import pytest

from rollout.gating import pooled
from rollout.gating.latency import Level

FAILS = math.log(6_000)


def _level(ratio: float, deviation: float = 0.08, shared: float = 0.0, until_s: float = 600.0) -> Level:
    return Level(math.log(ratio), deviation**2, 300.0, until_s, shared)


def test_a_fifth_more_is_seen_at_a_dozen_and_not_at_two() -> None:
    """Alone, none of them is two standard deviations from being as before."""
    few, _ = pooled.weigh([_level(1.2)] * 2)
    many, ratio = pooled.weigh([_level(1.2)] * 14)
    assert few < FAILS < many
    assert ratio == pytest.approx(1.2)


@pytest.mark.parametrize("count", [2, 10, 100])
def test_those_who_are_as_before_never_fail_however_many_they_are(count: int) -> None:
    """Nor do those who take one twentieth more, which is what good releases differ by."""
    for ratio in (0.9, 1.0, 1.05):
        against, _ = pooled.weigh([_level(ratio)] * count)
        assert against < 0


def test_one_alone_says_nothing_here() -> None:
    assert pooled.weigh([_level(3.0)]) == (-math.inf, 1.0)
    assert pooled.weigh([]) == (-math.inf, 1.0)


def test_who_is_compared_with_nobody_counts_for_less() -> None:
    """What is wrong about the drift is the same in all blocks of a worker, and more of them make it no better."""
    sure, _ = pooled.weigh(list(repeat(_level(1.2), 20)))
    unsure, _ = pooled.weigh(list(repeat(_level(1.2, shared=0.15**2), 20)))
    assert unsure < sure


def test_a_bad_hour_is_the_same_for_all_who_are_compared_with_nobody() -> None:
    """Slower by what a day changes, two dozen say no more than one; three times as slow they do."""
    alone = [_level(1.16)._replace(alone=1.0)] * 24
    assert pooled.weigh([one._replace(alone=0.0) for one in alone])[0] > FAILS
    assert pooled.weigh(alone)[0] < 1.0
    assert pooled.weigh([_level(3.0)._replace(alone=1.0)] * 24)[0] > FAILS


def test_a_worker_counts_from_its_pass_on() -> None:
    """Before that it was recovering."""
    levels = [_level(3.0, until_s=300.0), _level(1.5, until_s=600.0), _level(1.1, until_s=900.0), _level(1.1, until_s=1200.0)]
    later = pooled.since(levels, 600.0)
    assert later is not None
    assert math.exp(later.at) == pytest.approx(1.1)
    assert later.seconds == 600.0
    assert later.variance == pytest.approx(0.08**2 / 2)
    assert pooled.since(levels, 1000.0) is None
    assert pooled.since((), 0.0) is None
