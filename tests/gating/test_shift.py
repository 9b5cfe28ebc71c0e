"""By how much a histogram is shifted against another one."""

import functools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.gating.shift import (
    LOWEST,
    PSEUDO,
    SHIFTS,
    SPREAD,
    STEP,
    TAIL_SHARE,
    Shape,
    blurred,
    blurred_at,
    log_likelihood,
    peak_of,
    shape_of,
)
from tests.gating.evidence_at_hand import BUCKETS, histogram
from tests.gating.lognormal import LOG_SD, drawn, expected

Counts = tuple[float, ...]
HISTOGRAMS = st.lists(st.integers(0, 500), min_size=BUCKETS, max_size=BUCKETS).map(lambda counts: tuple(map(float, counts)))


def _shape(counts: Counts, pool: Counts | None = None) -> Shape:
    shape = shape_of(counts, pool)
    assert shape is not None
    return shape


@functools.cache
def _known() -> Shape:
    return _shape(expected(9000.0))


def _row(shift: float) -> int:
    return round((shift - LOWEST) / STEP)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_a_log_normal_baseline_is_shifted_exactly(shift: float) -> None:
    """It is a straight line in probit, so each bucket holds what it does when every request takes e^shift times as long."""
    table = _known().plain[_row(shift)]
    for share, log in zip(expected(1.0, shift), table, strict=True):
        assert math.exp(log) == pytest.approx(share, abs=0.0008)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.12, 0.5, 1.0, 2.0])
def test_a_known_shift_is_found(shift: float) -> None:
    """From what a thousand requests are on average, within a hundredth; its variance is near what each request's spread leaves."""
    peak = peak_of(_known().plain, expected(1000.0, shift))
    assert peak.at == pytest.approx(shift, abs=0.01)
    assert math.sqrt(peak.variance) == pytest.approx(LOG_SD / math.sqrt(1000), rel=0.2)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.5, 1.2, 2.0])
def test_a_shift_is_found_within_its_own_error_and_without_bias(shift: float) -> None:
    """In 300 draws of 400 requests: errors over what each says of itself have the mean 0 and the deviation 1, as well as 300 can show."""
    rng = np.random.default_rng(901)
    peaks = [peak_of(_known().plain, drawn(rng, 400.0, shift)) for _ in range(300)]
    errors = np.array([(peak.at - shift) / math.sqrt(peak.variance) for peak in peaks])
    assert abs(errors.mean()) < 4 / math.sqrt(300)
    assert errors.std() == pytest.approx(1.0, abs=4 / math.sqrt(600))


@given(HISTOGRAMS, HISTOGRAMS)
@settings(max_examples=60, deadline=None)
def test_the_shares_of_each_row_add_up_to_one(counts: Counts, pool: Counts) -> None:
    shape = shape_of(counts, pool)
    assert (shape is None) == (sum(counts) + sum(pool) == 0)
    for table in () if shape is None else (shape.plain, shape.tailed):
        sums = [math.fsum(map(math.exp, row)) for row in table]
        assert sums == pytest.approx([1.0] * len(SHIFTS))


@given(st.lists(st.integers(0, 60), min_size=BUCKETS, max_size=BUCKETS))
@settings(max_examples=150, deadline=None)
def test_a_peak_is_the_top_of_the_likelihood(counts: list[int]) -> None:
    """
    Looked for in a few places, it is where looking everywhere finds it.

    Requests all over the place, as no worker has them, may make a second top; then the one found is a top too.
    """
    line = log_likelihood(_known().plain, counts)
    peak = peak_of(_known().plain, counts)
    near = min(range(len(SHIFTS)), key=lambda index: abs(SHIFTS[index] - peak.at))
    tops = [index for index in range(len(SHIFTS)) if line[index] == max(line[max(0, index - 1) : index + 2])]
    assert min(abs(near - top) for top in tops) <= 1
    assert peak.height >= max(line[near], line[min(tops, key=lambda top: abs(top - near))]) - 1e-6
    assert peak.variance > 0


@given(st.floats(-0.9, 2.9), st.integers(1, 2000), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_for_what_workers_do_there_is_one_top_and_it_is_found(shift: float, requests: int, seed: int) -> None:
    """Any number of requests, any shift: by brute force the same place."""
    counts = drawn(np.random.default_rng(seed), float(requests), shift)
    line = log_likelihood(_known().plain, counts)
    peak = peak_of(_known().plain, counts)
    assert peak.height >= max(line) - 1e-6
    assert peak.height <= max(line) + 1.0
    assert abs(peak.at - SHIFTS[line.index(max(line))]) <= 2 * STEP or sum(counts) == 0


def test_a_likelihood_is_the_sum_over_requests() -> None:
    """Three requests, in two buckets, at one shift: by hand."""
    counts = histogram(ms100=2.0, ms5000=1.0)
    table = _known().plain[_row(0.5)]
    assert log_likelihood(_known().plain, counts)[_row(0.5)] == pytest.approx(2 * table[5] + table[11])


@pytest.mark.parametrize(
    "counts",
    [
        histogram(ms100=500.0),
        histogram(ms10=19.0, ms25=1.0),
        histogram(ms10=100.0, ms25=5.0),
        histogram(ms250=3.0, ms500=200.0, ms750=1.0),
    ],
)
def test_the_same_again_is_no_shift_however_few_buckets_it_is_in(counts: Counts) -> None:
    """Canary requests take nearly the same time each, so that nearly all are in one bucket. Ten times as long is found all the same."""
    shape = _shape(counts)
    assert peak_of(shape.plain, counts).at == pytest.approx(0.0, abs=0.05)
    wider = _shape(histogram(ms100=500.0))
    assert peak_of(wider.plain, histogram(ms1000=500.0)).at == pytest.approx(math.log(10), abs=0.3)


@pytest.mark.parametrize("bucket", [0, BUCKETS - 1])
def test_the_outermost_buckets_make_a_shape_too(bucket: int) -> None:
    counts = tuple(100.0 * (index == bucket) for index in range(BUCKETS))
    shape = _shape(counts)
    assert all(math.isfinite(log) for row in (*shape.plain, *shape.tailed) for log in row)
    assert math.isfinite(peak_of(shape.plain, counts).at)


def test_of_nothing_there_is_no_shape() -> None:
    nothing = (0.0,) * BUCKETS
    assert shape_of(nothing) is None
    assert shape_of(nothing, nothing) is None


def test_a_pool_stands_in_for_what_a_short_baseline_does_not_show() -> None:
    """Twenty requests of it, however many it has: a thousand of the worker's own outweigh them, and of none they are the shape."""
    pool = expected(50_000.0, 1.0)
    alone = _shape((0.0,) * BUCKETS, pool)
    assert alone.requests == 0
    for mine, its in zip(alone.plain, _shape(tuple(PSEUDO / 50_000 * count for count in pool)).plain, strict=True):
        assert mine == pytest.approx(its)
    assert peak_of(_shape(expected(1000.0), pool).plain, expected(1000.0)).at == pytest.approx(0.0, abs=0.03)
    few, counts = _shape(expected(20.0), pool), expected(1000.0)
    assert peak_of(few.plain, counts).at < -0.2


def test_with_a_tail_two_in_a_hundred_more_are_very_slow() -> None:
    """Beyond the bucket in which fewer than two in a thousand of the baseline end; the others lose their share evenly."""
    plain, tailed = ([math.exp(log) for log in table[_row(0.0)]] for table in (_known().plain, _known().tailed))
    first = next(bucket for bucket in range(BUCKETS) if sum(expected(1.0)[bucket:]) <= 0.002)
    assert sum(tailed[first:]) - (1 - TAIL_SHARE) * sum(plain[first:]) == pytest.approx(TAIL_SHARE, rel=0.01)
    for mine, its in zip(tailed[:first], plain[:first], strict=True):
        assert mine == pytest.approx((1 - TAIL_SHARE) * its, abs=1e-5)


def test_a_stray_request_does_not_outweigh_the_others() -> None:
    """Where all take about as long, one of two hundred that takes ten seconds would be impossible; it moves nothing."""
    counts = histogram(ms50=20.0, ms75=160.0, ms100=20.0)
    stray = tuple(map(sum, zip(counts, histogram(ms10000=1.0), strict=True)))
    shape = _shape(counts)
    assert peak_of(shape.plain, counts).at == pytest.approx(0.0, abs=0.02)
    assert peak_of(shape.plain, stray).at == pytest.approx(0.0, abs=0.02)
    # No more than a thousandth over all fifteen buckets.
    assert shape.plain[_row(0.0)][13] == pytest.approx(math.log(0.001 / BUCKETS), abs=0.01)


def test_where_nothing_shows_a_spread_the_usual_one_is_assumed() -> None:
    """All in one bucket, from 75 to 100 ms: as many of a log-normal's with a deviation of .9 would be in it, were it about its middle."""
    share = math.exp(_shape(histogram(ms100=500.0)).plain[_row(0.0)][5])
    assert share == pytest.approx(2 * NormalDist(0, SPREAD).cdf(math.log(100 / 75) / 2) - 1, abs=0.002)


def test_a_blurred_parabola_is_a_wider_parabola() -> None:
    """What is normal around a shift that is normal: variances add up, and the height falls by the root of their ratio."""
    own, doubt = 0.2, 0.15
    line = [-0.5 * ((shift - 0.5) / own) ** 2 for shift in SHIFTS]
    wide = own**2 + doubt**2
    for shift, log in zip(SHIFTS, blurred(line, doubt), strict=True):
        if abs(shift - 0.5) < 0.5:
            assert log == pytest.approx(-0.5 * (shift - 0.5) ** 2 / wide + 0.5 * math.log(own**2 / wide), abs=0.06)


@given(st.lists(st.floats(-50, 0), min_size=len(SHIFTS), max_size=len(SHIFTS)), st.floats(0.05, 1.0))
def test_one_place_is_blurred_as_all_are(line: list[float], doubt: float) -> None:
    every = blurred(line, doubt)
    assert [blurred_at(line, doubt, index) for index in range(len(SHIFTS))] == pytest.approx(every)
    assert max(every) <= max(line) + 1e-9


def test_what_a_request_adds_is_what_workers_have() -> None:
    """The spread that is assumed where nothing is known is the one that these tests draw with."""
    assert SPREAD == LOG_SD
