"""What must not change what a sequential gate says: the unit, how often and in which order it is told, and what was kept from before."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.gating.sequential import BLOCK_S, COSTS, Odds, Seen, fails, weigh
from rollout.gating.windows import Window
from rollout.model.gate import Metric, Tally
from tests.gating.evidence_at_hand import BUCKETS
from tests.gating.lognormal import expected
from tests.gating.restart_at_hand import ADMITTED_AT_S, STEP_S, before, did, each, gate_on, in_blocks, numbers, polled, ruled_on, steady


def _in_milliseconds(tally: Tally) -> Tally:
    names = ("request_cpu_s", "poll_cpu_s", "poll_db_s", "poll_scheduling_s")
    # A power of two, so that nothing is rounded.
    return replace(tally, **{name: 1024 * getattr(tally, name) for name in names})


@pytest.mark.parametrize("shift", [0.0, math.log(2)])
@pytest.mark.parametrize("metric", sorted(COSTS))
def test_in_another_unit_of_cost_the_same_is_said(metric: Metric, shift: float) -> None:
    seen = steady(600.0, shift=shift)
    if metric is not Metric.REQUEST_CPU:
        seen = each(seen, polled)
    assert ruled_on(gate_on(metric), each(seen, _in_milliseconds)) == ruled_on(gate_on(metric), seen)


# One scrape: its requests, by how much they take longer, whether one of its pool's others could be asked, and its errors.
_SCRAPES = st.lists(
    st.tuples(st.integers(0, 60), st.floats(-0.5, 1.5), st.booleans(), st.integers(0, 3), st.integers(0, 2**31)), min_size=1, max_size=40
)
_History = list[tuple[int, float, bool, int, int]]


def _tallies(history: _History) -> tuple[list[Tally], list[Tally | None]]:
    own: list[Tally] = []
    theirs: list[Tally | None] = []
    for index, (requests, shift, asked, errors, seed) in enumerate(history):
        rng = np.random.default_rng(seed)
        since_s = ADMITTED_AT_S + STEP_S * index
        counts = tuple(map(float, rng.multinomial(requests, expected(1.0, shift))))
        own.append(
            Tally(
                since_s, since_s + STEP_S, float(requests), float(min(errors, requests)), counts, request_cpu_s=requests * math.exp(shift)
            )
        )
        theirs.append(did(since_s, since_s + STEP_S, 8.0) if asked else None)
    return own, theirs


def _history(history: _History) -> Seen:
    return Seen(in_blocks(*_tallies(history)), before(2.0), before(8.0), (), ADMITTED_AT_S)


def _near(one: Odds | None, other: Odds | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-6) for left, right in zip(numbers(one), numbers(other), strict=True))


@given(_SCRAPES, st.sampled_from([Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU]))
@settings(max_examples=40, deadline=None)
def test_what_was_kept_says_the_same_as_all_of_it_at_once(history: _History, metric: Metric) -> None:
    """Whatever came, and whether or not there was somebody to compare with meanwhile."""
    gate, kept = gate_on(metric), None
    for length in range(1, len(history) + 1):
        seen = _history(history[:length])
        odds, kept = weigh(gate, seen, kept)
        if length in {1, len(history) // 2, len(history)}:
            assert _near(odds, weigh(gate, seen)[0])


@given(_SCRAPES, st.sampled_from([Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU]), st.floats(-30.0, 30.0))
@settings(max_examples=60, deadline=None)
def test_of_one_who_has_passed_it_is_told_as_soon_whether_it_fails(history: _History, metric: Metric, log_odds: float) -> None:
    """Whatever the odds that are asked for, and what it says of its level is the same."""
    gate, kept = gate_on(metric, odds=math.exp(log_odds)), None
    for length in range(1, len(history) + 1):
        seen = _history(history[:length])
        odds, kept = weigh(gate, seen, kept, passed=True)
        in_full = weigh(gate, seen)[0]
        assert fails(gate, odds) == fails(gate, in_full)
        if odds is None or in_full is None:
            assert odds is in_full
        else:
            assert odds.bad >= in_full.bad - 1e-6
            assert (odds.samples, odds.limit) == (in_full.samples, in_full.limit)
            told, told_in_full = ([number for level in its.levels for number in level] for its in (odds, in_full))
            assert told == pytest.approx(told_in_full)


@given(_SCRAPES, st.sampled_from([Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU]))
@settings(max_examples=30, deadline=None)
def test_how_often_it_is_looked_at_and_in_which_order_within_a_block_changes_nothing(history: _History, metric: Metric) -> None:
    """Each scrape in two halves, and the whole scrapes of each block backwards."""
    own, theirs = _tallies(history)
    plain = weigh(gate_on(metric), _history(history))[0]
    halves = [half for tally in own for half in _halved(tally)]
    their_halves = [half for tally in theirs for half in ((None, None) if tally is None else _halved(tally))]
    split = Seen(in_blocks(halves, their_halves), before(2.0), before(8.0), (), ADMITTED_AT_S)
    assert _near(weigh(gate_on(metric), split)[0], plain)
    per_block = round(BLOCK_S / STEP_S)
    order = [index for first in range(0, len(own), per_block) for index in reversed(range(first, min(first + per_block, len(own))))]
    moved = [replace(own[index], since_s=own[place].since_s, until_s=own[place].until_s) for place, index in enumerate(order)]
    backwards = Seen(in_blocks(moved, [theirs[index] for index in order]), before(2.0), before(8.0), (), ADMITTED_AT_S)
    assert _near(weigh(gate_on(metric), backwards)[0], plain)


def _halved(tally: Tally) -> tuple[Tally, Tally]:
    middle_s = (tally.since_s + tally.until_s) / 2
    counts = tuple(count / 2 for count in tally.latency)
    half = replace(tally, requests=tally.requests / 2, errors=tally.errors / 2, latency=counts, request_cpu_s=tally.request_cpu_s / 2)
    return replace(half, until_s=middle_s), replace(half, since_s=middle_s)


# One scrape: how many seconds it took, how many parts it comes in (a scrape that comes sooner brings less), and whether the pool was asked.
_LENGTHS = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4), st.floats(-0.5, 1.5), st.booleans()), min_size=1, max_size=40)
_Lengths = list[tuple[int, int, float, bool]]


def _of_lengths(lengths: _Lengths) -> tuple[list[Tally], list[Tally | None]]:
    own, theirs, at_s = list[Tally](), list[Tally | None](), ADMITTED_AT_S
    for seconds, _, shift, asked in lengths:
        own.append(did(at_s, at_s + seconds, 2.0, shift))
        theirs.append(did(at_s, at_s + seconds, 8.0) if asked else None)
        at_s += seconds
    return own, theirs


def _in_parts(tally: Tally, parts: int) -> list[Tally]:
    times = np.linspace(tally.since_s, tally.until_s, parts + 1).tolist()
    counts = tuple(count / parts for count in tally.latency)
    part = replace(
        tally, requests=tally.requests / parts, errors=tally.errors / parts, latency=counts, request_cpu_s=tally.request_cpu_s / parts
    )
    return [replace(part, since_s=since_s, until_s=until_s) for since_s, until_s in pairwise(times)]


def _split(lengths: _Lengths, *, also_last_ones: bool) -> tuple[Window, ...]:
    """Let scrapes come in their parts; those by which a block becomes full only if *also_last_ones* do."""
    own, theirs = _of_lengths(lengths)
    began_s, parts, their_parts = ADMITTED_AT_S, list[Tally](), list[Tally | None]()
    for (_, count, _, _), mine, its in zip(lengths, own, theirs, strict=True):
        full = mine.until_s - began_s >= BLOCK_S
        pieces = 1 if full and not also_last_ones else count
        parts += _in_parts(mine, pieces)
        their_parts += [None] * pieces if its is None else _in_parts(its, pieces)
        began_s = mine.until_s if full else began_s
    return in_blocks(parts, their_parts)


def _of_blocks(blocks: tuple[Window, ...]) -> Seen:
    return Seen(blocks, before(2.0), before(8.0), (), ADMITTED_AT_S)


@given(_LENGTHS, st.sampled_from([Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU]))
@settings(max_examples=30, deadline=None)
def test_however_long_scrapes_are_those_within_a_block_may_come_in_parts(lengths: _Lengths, metric: Metric) -> None:
    """A block ends with the first scrape that makes it half a minute long, and is the same as long as that one comes as a whole."""
    whole, split = _of_blocks(in_blocks(*_of_lengths(lengths))), _of_blocks(_split(lengths, also_last_ones=False))
    assert [block.own.until_s for block in split.blocks] == [block.own.until_s for block in whole.blocks]
    assert _near(weigh(gate_on(metric), split)[0], weigh(gate_on(metric), whole)[0])


@given(_LENGTHS)
@settings(max_examples=60, deadline=None)
def test_where_scrapes_that_end_a_block_come_in_parts_it_ends_sooner_and_nothing_is_lost_or_counted_twice(lengths: _Lengths) -> None:
    """Each block but the last is half a minute long and less than its last scrape more. Failures, which have no blocks, say the same."""
    own, theirs = _of_lengths(lengths)
    whole, split = in_blocks(own, theirs), _split(lengths, also_last_ones=True)
    assert split[0].own.until_s <= whole[0].own.until_s
    for blocks in (whole, split):
        assert blocks[0].own.since_s == ADMITTED_AT_S
        assert all(one.own.until_s == following.own.since_s for one, following in pairwise(blocks))
        assert all(BLOCK_S <= block.own.until_s - block.own.since_s < BLOCK_S + 20 for block in blocks[:-1])
        assert sum(block.own.requests for block in blocks) == pytest.approx(sum(tally.requests for tally in own))
        asked = sum(block.controls.requests for block in blocks if block.controls is not None)
        assert asked == pytest.approx(sum(tally.requests for tally in theirs if tally is not None))
    found, as_before = (weigh(gate_on(Metric.ERRORS), _of_blocks(blocks))[0] for blocks in (split, whole))
    assert _near(found, as_before)


@pytest.mark.parametrize("metric", [Metric.LATENCY_P95, Metric.REQUEST_CPU])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_scrapes_of_seven_seconds_or_of_half_that_say_the_same_of_who_does_the_same(metric: Metric, ratio: float) -> None:
    """Blocks of 35 s and of 31.5 s: the same odds but for a tenth of their logarithm, and so the same ruling."""
    lengths = [(7, 2, math.log(ratio), True)] * 60
    seen = [_of_blocks(blocks) for blocks in (in_blocks(*_of_lengths(lengths)), _split(lengths, also_last_ones=True))]
    assert [one.blocks[0].own.until_s - ADMITTED_AT_S for one in seen] == [35.0, 31.5]
    found, halved = (weigh(gate_on(metric), one)[0] for one in seen)
    assert found is not None
    assert halved is not None
    assert halved.now == pytest.approx(found.now, rel=0.02)
    assert halved.bad == pytest.approx(found.bad, rel=0.1, abs=0.5)
    assert halved.fine == pytest.approx(found.fine, rel=0.1, abs=0.5)
    rulings = {ruled_on(gate_on(metric), one).ruling for one in seen}
    assert len(rulings) == 1


def test_what_is_kept_is_used() -> None:
    """Of twenty blocks the last one alone is heard anew, and the shape isn't made again, also where too little is known of the pool."""
    for pool in (before(80.0), replace(before(80.0), latency=(0.0,) * BUCKETS)):
        seen = steady(600.0)._replace(pool=pool)
        _, kept = weigh(gate_on(), seen)
        assert kept is not None
        assert len(kept.blocks) == 19
        _, again = weigh(gate_on(), seen, kept)
        assert again is not None
        assert again.setting is kept.setting


def test_what_was_kept_of_other_blocks_is_not_used() -> None:
    """After a restart, or when the older half is forgotten, all is heard anew."""
    _, kept = weigh(gate_on(), steady(300.0, shift=1.0))
    seen = steady(300.0)
    assert weigh(gate_on(), seen, kept)[0] == weigh(gate_on(), seen)[0]
