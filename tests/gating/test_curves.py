"""How restarted workers recover, and what is learned of that."""

import math

import pytest

from rollout.gating.curves import CURVES, MILD, UNSEEN, Curve, Kind, expected, levels, name_of, named

NEVER = 1e9
NONE = CURVES.index(Curve(Kind.NONE, 0.0, 1.0))
SOON = CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 30.0))
COLD = CURVES.index(Curve(Kind.EXPONENTIAL, 3.1, 260.0))
SOMEWHAT_SLOW = CURVES.index(Curve(Kind.PLATEAU, 1.6, 225.0))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.NONE])
def test_each_kind_begins_with_its_amount_and_ends_with_nothing(kind: Kind) -> None:
    """1.8 more is 2.8 times as slow, and in between it only ever falls."""
    curve = Curve(kind, 1.8, 60.0)
    assert math.exp(curve.level(0.0)) == pytest.approx(2.8)
    assert curve.level(NEVER) == pytest.approx(0.0, abs=1e-9)
    course = [curve.level(5.0 * step) for step in range(200)]
    assert course == sorted(course, reverse=True)


@pytest.mark.parametrize(
    ("kind", "at_s", "factor"),
    [
        (Kind.NONE, 0.0, 1.0),
        (Kind.EXPONENTIAL, 60.0, 1 + 1.8 / math.e),
        (Kind.PLATEAU, 60.0, 2.8),
        (Kind.PLATEAU, 84.0, 1 + 1.8 / math.e),
        (Kind.POWER_LAW, 180.0, 1 + 1.8 / 8),
    ],
)
def test_each_kind_has_its_course(kind: Kind, at_s: float, factor: float) -> None:
    """By hand, for a scale of a minute: the plateau ends where the others have long begun to fall, and the power law has a long tail."""
    assert math.exp(Curve(kind, 1.8, 60.0).level(at_s)) == pytest.approx(factor)


def test_levels_are_those_of_all_curves_in_their_order() -> None:
    assert levels(42.0) == tuple(curve.level(42.0) for curve in CURVES)


@pytest.mark.parametrize("earlier", [(), (SOON,), (SOON, SOON)])
def test_from_fewer_than_three_restarts_nothing_is_learned(earlier: tuple[int, ...]) -> None:
    """All are allowed alike, and each has the same share."""
    known = expected(earlier)
    assert set(known.allowed) == {0.0}
    assert set(known.shares) == {1 / len(CURVES)}
    assert known.learned_from == len(earlier)


def test_what_was_seen_is_allowed_and_what_is_unlike_it_hardly() -> None:
    """Logarithms of 1, of UNSEEN for what is very cold, and of MILD for what is somewhat slow for long."""
    known = expected((SOON,) * 5)
    assert known.allowed[SOON] == 0.0
    assert math.exp(known.allowed[COLD]) == pytest.approx(UNSEEN, rel=1e-3)
    assert math.exp(known.allowed[SOMEWHAT_SLOW]) == pytest.approx(MILD, rel=0.05)
    assert min(known.allowed) >= math.log(MILD)


def test_what_is_like_what_was_seen_is_allowed_in_part() -> None:
    """A little slower than ever is no surprise."""
    like = CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 60.0))
    assert UNSEEN * 3 < math.exp(expected((SOON,) * 5).allowed[like]) < 1


def test_a_role_that_comes_back_in_two_ways_is_allowed_both() -> None:
    """The rarer one by how rare it is."""
    known = expected((SOON, SOON, SOON, COLD))
    assert known.allowed[SOON] == 0.0
    assert math.exp(known.allowed[COLD]) == pytest.approx(1 / 3, rel=0.1)


def test_even_what_is_slow_for_ten_minutes_is_learned() -> None:
    assert expected((SOMEWHAT_SLOW,) * 3).allowed[SOMEWHAT_SLOW] == 0.0


@pytest.mark.parametrize("earlier", [(), (SOON,) * 3, (NONE, SOON, COLD, SOMEWHAT_SLOW)])
def test_shares_add_up_to_one_and_are_as_what_is_allowed(earlier: tuple[int, ...]) -> None:
    known = expected(earlier)
    assert math.fsum(known.shares) == pytest.approx(1.0)
    assert len(known.shares) == len(known.allowed) == len(CURVES)
    assert known.shares[SOON] / known.shares[COLD] == pytest.approx(math.exp(known.allowed[SOON] - known.allowed[COLD]))


def test_each_curve_has_a_name_of_its_own_by_which_it_is_found_again() -> None:
    names = [name_of(index) for index in range(len(CURVES))]
    assert len(set(names)) == len(CURVES)
    assert named(names) == tuple(range(len(CURVES)))
    assert name_of(SOON) == "exponential 0.9 30"


def test_a_name_that_is_not_known_is_left_out() -> None:
    """Another version may have known others, and a journal may hold anything."""
    assert named([name_of(COLD), "sawtooth 3 1", "", name_of(SOON)]) == (COLD, SOON)
