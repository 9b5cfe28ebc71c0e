"""The sequential gate, as a rollout asks it after each measurement."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.gating import sequential
from rollout.gating.curves import CURVES, Curve, Kind, name_of
from rollout.gating.sequential import BLOCK_S, BLOCKS_MAX, COMPARED_WITH, MARGINS, Odds, Seen, fails, margin, rule, weigh
from rollout.gating.windows import Window, extend_blocks
from rollout.model.gate import Gate, Metric, Ruling, Tally, Verdict
from tests.benchmarks.gates import ours
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.traces import Scrape, trace
from tests.gating import evidence_at_hand
from tests.gating.evidence_at_hand import BUCKETS
from tests.gating.lognormal import expected

ADMITTED_AT_S = 10_000.0
STEP_S = 5.0
PEERS = 4
# Half an hour before.
BASELINE_S = 1800.0
COST_S = 0.004
# Others of its role were 1.9 times as slow at first, and well again after two minutes.
EARLIER = (CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 30.0)),) * 5


def _gate(metric: Metric = Metric.LATENCY_P95, **changed: Any) -> Gate:  # noqa: ANN401  (any field of a Gate)
    return evidence_at_hand.gate(metric, **{"odds": 1000.0, "samples_min": 30, "soak_s": 30.0, **changed})


def _did(since_s: float, until_s: float, per_s: float, shift: float = 0.0, errors: float = 0.001) -> Tally:
    """Return what a worker does on average, without any chance in it: all its costs as its latency."""
    count = per_s * (until_s - since_s)
    cost_s = count * COST_S * math.exp(shift)
    counts = expected(count, shift)
    return Tally(
        since_s,
        until_s,
        requests=count,
        errors=errors * count,
        latency=counts,
        request_cpu_s=cost_s,
        polls=0.0,
        canaries=round(count),
        canary_failures=round(errors * count),
        canary_latency=counts,
    )


def _polled(tally: Tally) -> Tally:
    """Let it be long-polls instead."""
    cost_s = tally.request_cpu_s
    return replace(
        tally,
        requests=0.0,
        polls=tally.requests,
        canaries=0,
        canary_failures=0,
        poll_cpu_s=cost_s,
        poll_db_s=cost_s,
        poll_scheduling_s=cost_s,
    )


def _before(per_s: float, seconds: float = BASELINE_S) -> Tally:
    return _did(ADMITTED_AT_S - seconds, ADMITTED_AT_S, per_s)


def _blocks(tallies: Sequence[Tally], controls: Sequence[Tally | None]) -> tuple[Window, ...]:
    blocks: tuple[Window, ...] = ()
    for own, theirs in zip(tallies, controls, strict=True):
        blocks = extend_blocks(blocks, own, theirs, BLOCK_S, BLOCKS_MAX)
    return blocks


def _seen(seconds: float, per_s: float = 20.0, *, peers: int = PEERS, pool_shift: float = 0.0, **how: Any) -> Seen:  # noqa: ANN401  (see _did)
    """Return what is seen of a worker that does the same all the time, and of its pool."""
    times = [ADMITTED_AT_S + STEP_S * index for index in range(round(seconds / STEP_S))]
    own = [_did(at_s, at_s + STEP_S, per_s, **how) for at_s in times]
    theirs = [_did(at_s, at_s + STEP_S, peers * per_s, pool_shift) if peers else None for at_s in times]
    return Seen(_blocks(own, theirs), _before(per_s), _before(peers * per_s) if peers else None, EARLIER, ADMITTED_AT_S)


def _ruled(gate: Gate, seen: Seen, *, later_s: float = 0.0, unmeasured: str | None = None) -> Verdict:
    """Rule right after the last measurement, or *later_s*."""
    odds, _ = weigh(gate, seen)
    ended_s = seen.blocks[-1].own.until_s if seen.blocks else seen.admitted_at_s
    return rule(gate, seen, odds, unmeasured=unmeasured, now_s=ended_s + later_s)


def test_who_does_as_before_passes() -> None:
    """Its odds, its numbers and what it was compared with are told."""
    verdict = _ruled(_gate(), _seen(60.0))
    assert (verdict.gate, verdict.ruling) == ("gate", Ruling.PASS)
    assert verdict.because.startswith("requests take 1.00 × as much as before; ")
    assert verdict.because.endswith(" : 1 against 1.25 ×")
    found = verdict.evidence
    assert (found.baseline, found.threshold, found.compared_with) == (1.0, 1.25, COMPARED_WITH)
    assert found.samples == pytest.approx(1200)
    assert found.observed == pytest.approx(1.0, abs=0.02)
    assert found.curve == name_of(0)


def test_who_takes_twice_as_long_fails() -> None:
    verdict = _ruled(_gate(), _seen(600.0, shift=math.log(2)))
    assert verdict.ruling is Ruling.FAIL
    assert verdict.because.startswith("requests take 2.00 × as much as before; the odds against a good worker are ")
    assert verdict.evidence.observed == pytest.approx(2.0, abs=0.03)


def test_a_share_of_failures_has_its_own_sentences() -> None:
    """They pass and fail by the count of requests, and no curve is looked for."""
    passed, failed = _ruled(_gate(Metric.ERRORS), _seen(60.0)), _ruled(_gate(Metric.ERRORS), _seen(60.0, errors=0.05))
    assert (passed.ruling, failed.ruling) == (Ruling.PASS, Ruling.FAIL)
    assert passed.because.startswith("the share of 5xx is 0.1 % (usually 0.1 %); ")
    assert passed.because.endswith(" : 1 against 1 %")
    assert failed.because == "the share of 5xx is 5 % (usually 0.1 %); the odds against a good worker are more than 1,000,000 : 1"
    assert passed.evidence.curve == ""
    assert failed.evidence.observed == pytest.approx(0.05)


def test_a_cold_worker_is_waited_for() -> None:
    """Four times as slow and getting better every block: neither slow for good nor shown to be well."""
    curve = Curve(Kind.EXPONENTIAL, 3.2, 120.0)
    times = [ADMITTED_AT_S + STEP_S * index for index in range(24)]
    own = [_did(at_s, at_s + STEP_S, 20.0, curve.level(at_s + 2.5 - ADMITTED_AT_S)) for at_s in times]
    theirs = [_did(at_s, at_s + STEP_S, 80.0) for at_s in times]
    seen = Seen(_blocks(own, theirs), _before(20.0), _before(80.0), (), ADMITTED_AT_S)
    verdict = _ruled(_gate(), seen)
    assert verdict.ruling is Ruling.PENDING
    assert verdict.because.startswith("recovering: requests take ")
    assert verdict.because.endswith(" × as much as before lately, and less and less")
    assert CURVES[[name_of(index) for index in range(len(CURVES))].index(verdict.evidence.curve)].kind is Kind.EXPONENTIAL
    assert _ruled(replace(_gate(), deadline_s=120.0), seen).ruling is Ruling.INCONCLUSIVE


def test_what_is_missing_for_a_pass_is_said() -> None:
    """Requests first, then odds, then time."""
    assert _ruled(_gate(samples_min=700), _seen(30.0)).because == "it has 600 of the 700 requests needed"
    few = _ruled(_gate(samples_min=1), _seen(10.0, 2.0))
    assert (few.ruling, few.because) == (Ruling.PENDING, "it has 20 of the 30 requests needed")
    unsure = _ruled(_gate(), _seen(60.0, 0.6))
    assert unsure.ruling is Ruling.PENDING
    assert unsure.because.startswith("requests take 1.0")
    assert "× as much as before; that it is not 1.5 × has yet to show (" in unsure.because
    assert unsure.because.endswith(" : 1 of 20 : 1 needed)")
    short = _ruled(_gate(soak_s=90.0), _seen(60.0))
    assert short.ruling is Ruling.PENDING
    assert short.because.endswith("; it has been watched for 60 of 90 s")
    assert _ruled(_gate(soak_s=60.0), _seen(60.0)).ruling is Ruling.PASS


def test_what_may_be_chance_is_said() -> None:
    """A third slower, which with nobody to compare with the hour explains."""
    verdict = _ruled(_gate(), _seen(60.0, shift=math.log(1.33), peers=0))
    assert verdict.ruling is Ruling.PENDING
    assert " lately; that may still be chance (" in verdict.because


def test_who_is_well_lately_does_not_pass_while_too_much_speaks_against_it() -> None:
    """Half the odds that condemn, of a share that is below the limit by now."""
    gate = _gate(Metric.ERRORS, max=0.021)
    seen = _seen(300.0, errors=0.02)
    verdict = _ruled(gate, seen)
    assert math.log(1000) / 2 <= (weigh(gate, seen)[0] or _NO_ODDS).bad < math.log(1000)
    assert verdict.ruling is Ruling.PENDING
    assert "; too much speaks against it (" in verdict.because


_NO_ODDS = Odds(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", sorted(sequential.METRICS))
def test_without_data_nobody_passes_or_fails(metric: Metric) -> None:
    """Nothing measured, nothing lately, nothing readable, or nothing that counts; before its deadline and after it."""
    gate = _gate(metric)
    bad = _seen(120.0, shift=2.0, errors=0.5)
    bad = replace_blocks(bad, tuple(Window(_polled(b.own), (), b.controls) for b in bad.blocks)) if metric.startswith("poll") else bad
    nothing = bad._replace(blocks=())
    empty = bad._replace(blocks=(Window(Tally(ADMITTED_AT_S, ADMITTED_AT_S + 60), ()),))
    for later_s in (0.0, 1000.0):
        late = later_s > gate.deadline_s
        ruled = _ruled(gate, nothing, later_s=later_s)
        assert ruled.because == "nothing has been measured since it took its full share"
        assert ruled.ruling is (Ruling.UNMEASURABLE if late else Ruling.PENDING)
        assert _ruled(gate, bad, later_s=later_s, unmeasured="connection refused").ruling is Ruling.UNMEASURABLE
        odds, _ = weigh(gate, empty)
        verdict = rule(gate, replace_until(empty, later_s), odds, unmeasured=None, now_s=ADMITTED_AT_S + 60 + later_s)
        assert verdict.ruling is (Ruling.INCONCLUSIVE if late else Ruling.PENDING)
        assert verdict.evidence.samples == 0
        assert verdict.evidence.observed is None


def replace_until(seen: Seen, later_s: float) -> Seen:
    """Let the last measurement be so much later."""
    last = seen.blocks[-1]
    return seen._replace(blocks=(*seen.blocks[:-1], last_of(last, last.own.until_s + later_s)))


def last_of(window: Window, until_s: float) -> Window:
    return replace(window, own=replace(window.own, until_s=until_s))


def replace_blocks(seen: Seen, blocks: tuple[Window, ...]) -> Seen:
    return seen._replace(blocks=blocks)


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_an_old_measurement_neither_passes_nor_fails(shift: float) -> None:
    """However clear it was; up to fresh_s it counts."""
    seen = _seen(120.0, shift=shift)
    stale = _ruled(_gate(), seen, later_s=20.1)
    assert (stale.ruling, stale.because) == (Ruling.UNMEASURABLE, "its last measurement is 20 s old")
    assert _ruled(_gate(), seen, later_s=20.0).ruling is (Ruling.FAIL if shift else Ruling.PASS)


@pytest.mark.parametrize("metric", [Metric.LATENCY_P95, Metric.REQUEST_CPU])
def test_without_anything_to_compare_with_there_is_no_ruling(metric: Metric) -> None:
    """Neither it nor its pool had twenty requests before; at the deadline that is all that can be said."""
    seen = _seen(120.0, shift=2.0)._replace(baseline=_before(0.01), pool=None)
    verdict = _ruled(_gate(metric), seen)
    assert verdict.because == "neither it nor its pool had requests enough before to compare with"
    assert verdict.ruling is Ruling.PENDING
    assert _ruled(_gate(metric, deadline_s=100.0), seen).ruling is Ruling.INCONCLUSIVE
    assert weigh(_gate(metric), seen)[0] is None


def test_who_has_no_past_is_compared_with_that_of_its_pool() -> None:
    """As slow as its pool was, it passes; twice as slow, it fails."""
    assert _ruled(_gate(), _seen(120.0)._replace(baseline=None)).ruling is Ruling.PASS
    assert _ruled(_gate(), _seen(600.0, shift=math.log(2))._replace(baseline=None)).ruling is Ruling.FAIL


@pytest.mark.parametrize("metric", [Metric.LATENCY_P95, Metric.CANARY_P95, Metric.REQUEST_CPU])
def test_what_slows_the_whole_pool_down_condemns_nobody(metric: Metric) -> None:
    """Three times as slow, as everybody is: no FAIL. Alone three times as slow: FAIL. And nobody to compare with is no excuse either."""
    slow = math.log(3)
    shared = _ruled(_gate(metric), _seen(600.0, shift=slow, pool_shift=slow))
    assert shared.ruling is not Ruling.FAIL
    assert shared.evidence.observed == pytest.approx(1.0, abs=0.05)
    assert _ruled(_gate(metric), _seen(600.0, shift=slow)).ruling is Ruling.FAIL
    assert _ruled(_gate(metric), _seen(600.0, shift=slow, peers=0)).ruling is Ruling.FAIL


def test_alone_a_little_slower_neither_passes_nor_fails() -> None:
    """By a third, with nobody to tell whether that is the worker or the evening; in a pool that is as before, it fails."""
    third = math.log(1.33)
    assert _ruled(_gate(), _seen(300.0, shift=third, peers=0)).ruling is Ruling.PENDING
    assert _ruled(_gate(), _seen(600.0, shift=third)).ruling is Ruling.FAIL
    assert _ruled(_gate(), _seen(300.0, peers=0)).ruling is Ruling.PASS


def test_what_can_not_be_true_of_its_pool_is_nobody_to_compare_with() -> None:
    """A NaN would compare as neither more nor less than anything, and so pass."""
    for shift, ruling in ((0.0, Ruling.PASS), (math.log(3), Ruling.FAIL)):
        for metric in (Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU):
            seen = _seen(600.0, shift=shift, errors=0.001 if shift == 0 else 0.2)
            absurd = tuple(replace(b, controls=replace(_sure(b.controls), **_ABSURD)) for b in seen.blocks)
            assert _ruled(_gate(metric), seen._replace(blocks=absurd)).ruling is ruling
            assert _ruled(_gate(metric), seen._replace(pool=replace(_sure(seen.pool), **_ABSURD))).ruling is ruling
            if metric is not Metric.ERRORS:
                assert _ruled(_gate(metric), seen._replace(baseline=replace(_sure(seen.baseline), **_ABSURD))).ruling is ruling


_ABSURD: dict[str, Any] = {
    "latency": (math.nan,) * BUCKETS,
    "request_cpu_s": math.nan,
    "errors": math.nan,
}


def _sure(tally: Tally | None) -> Tally:
    assert tally is not None
    return tally


@pytest.mark.parametrize(
    ("metric", "things"),
    [
        (Metric.REQUEST_CPU, "requests cost"),
        (Metric.POLL_CPU, "long-polls cost"),
        (Metric.POLL_DB, "long-polls keep the database for"),
        (Metric.POLL_SCHEDULING, "long-polls wait for a database connection for"),
    ],
)
def test_costs_are_judged_by_their_mean(metric: Metric, things: str) -> None:
    """As before it passes, at twice as much it fails; and in another unit the same is said."""
    for shift, ruling in ((0.0, Ruling.PASS), (math.log(2), Ruling.FAIL)):
        seen = _seen(600.0, shift=shift)
        if metric is not Metric.REQUEST_CPU:
            seen = _each(seen, _polled)
        verdict = _ruled(_gate(metric), seen)
        assert verdict.ruling is ruling
        assert verdict.because.startswith(f"{things} {math.exp(shift):.2f} × as much as before; ")
        assert _ruled(_gate(metric), _each(seen, _in_milliseconds)) == verdict


def _each(seen: Seen, change: Any) -> Seen:  # noqa: ANN401  (a function of a tally)
    blocks = tuple(Window(change(b.own), (), None if b.controls is None else change(b.controls)) for b in seen.blocks)
    return seen._replace(blocks=blocks, baseline=change(_sure(seen.baseline)), pool=None if seen.pool is None else change(seen.pool))


def _in_milliseconds(tally: Tally) -> Tally:
    names = ("request_cpu_s", "poll_cpu_s", "poll_db_s", "poll_scheduling_s")
    # A power of two, so that nothing is rounded.
    return replace(tally, **{name: 1024 * getattr(tally, name) for name in names})


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
        theirs.append(_did(since_s, since_s + STEP_S, 8.0) if asked else None)
    return own, theirs


def _history(history: _History) -> Seen:
    return Seen(_blocks(*_tallies(history)), _before(2.0), _before(8.0), (), ADMITTED_AT_S)


def _near(one: Odds | None, other: Odds | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-6) for left, right in zip(_numbers(one), _numbers(other), strict=True))


def _numbers(odds: Odds) -> tuple[float, ...]:
    return (*odds[:-1], *(number for level in odds.levels for number in level))


@given(_SCRAPES, st.sampled_from([Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU]))
@settings(max_examples=40, deadline=None)
def test_what_was_kept_says_the_same_as_all_of_it_at_once(history: _History, metric: Metric) -> None:
    """Whatever came, and whether or not there was somebody to compare with meanwhile."""
    gate, kept = _gate(metric), None
    for length in range(1, len(history) + 1):
        seen = _history(history[:length])
        odds, kept = weigh(gate, seen, kept)
        if length in {1, len(history) // 2, len(history)}:
            assert _near(odds, weigh(gate, seen)[0])


@given(_SCRAPES, st.sampled_from([Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU]), st.floats(-30.0, 30.0))
@settings(max_examples=60, deadline=None)
def test_of_one_who_has_passed_it_is_told_as_soon_whether_it_fails(history: _History, metric: Metric, log_odds: float) -> None:
    """Whatever the odds that are asked for, and what it says of its level is the same."""
    gate, kept = _gate(metric, odds=math.exp(log_odds)), None
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
    plain = weigh(_gate(metric), _history(history))[0]
    halves = [half for tally in own for half in _halved(tally)]
    their_halves = [half for tally in theirs for half in ((None, None) if tally is None else _halved(tally))]
    split = Seen(_blocks(halves, their_halves), _before(2.0), _before(8.0), (), ADMITTED_AT_S)
    assert _near(weigh(_gate(metric), split)[0], plain)
    per_block = round(BLOCK_S / STEP_S)
    order = [index for first in range(0, len(own), per_block) for index in reversed(range(first, min(first + per_block, len(own))))]
    moved = [replace(own[index], since_s=own[place].since_s, until_s=own[place].until_s) for place, index in enumerate(order)]
    backwards = Seen(_blocks(moved, [theirs[index] for index in order]), _before(2.0), _before(8.0), (), ADMITTED_AT_S)
    assert _near(weigh(_gate(metric), backwards)[0], plain)


def _halved(tally: Tally) -> tuple[Tally, Tally]:
    middle_s = (tally.since_s + tally.until_s) / 2
    counts = tuple(count / 2 for count in tally.latency)
    half = replace(tally, requests=tally.requests / 2, errors=tally.errors / 2, latency=counts, request_cpu_s=tally.request_cpu_s / 2)
    return replace(half, until_s=middle_s), replace(half, since_s=middle_s)


def test_what_is_kept_is_used() -> None:
    """Of twenty blocks the last one alone is heard anew, and the shape isn't made again, also where too little is known of the pool."""
    for pool in (_before(80.0), replace(_before(80.0), latency=(0.0,) * BUCKETS)):
        seen = _seen(600.0)._replace(pool=pool)
        _, kept = weigh(_gate(), seen)
        assert kept is not None
        assert len(kept.blocks) == 19
        _, again = weigh(_gate(), seen, kept)
        assert again is not None
        assert again.setting is kept.setting


def test_what_was_kept_of_other_blocks_is_not_used() -> None:
    """After a restart, or when the older half is forgotten, all is heard anew."""
    _, kept = weigh(_gate(), _seen(300.0, shift=1.0))
    seen = _seen(300.0)
    assert weigh(_gate(), seen, kept)[0] == weigh(_gate(), seen)[0]


def test_no_ratio_of_a_playbook_is_too_great() -> None:
    """Few requests, in an incident, at a hundred times and more: an answer."""
    for ratio_max in (1.11, 100.0, 1e9):
        odds, _ = weigh(_gate(ratio_max=ratio_max), _seen(60.0, 0.2, pool_shift=3.0, shift=3.0))
        assert odds is not None
        assert odds.limit == ratio_max
        assert all(map(math.isfinite, _numbers(odds)))


def test_a_gate_s_own_limits_are_those_that_it_passes_by() -> None:
    """A tenth slower, and two failures in a hundred, pass where the playbook says that more is bad."""
    assert _ruled(_gate(ratio_max=2.0), _seen(120.0, 2.0)).because.endswith(" : 1 against 2 ×")
    assert _ruled(_gate(Metric.ERRORS, max=0.1), _seen(120.0)).because.endswith(" : 1 against 10 %")


def test_what_a_playbook_accepts_is_not_failed() -> None:
    """Whoever knows that a release is slower, or fails a little more, says so; what is worse than that fails all the same."""
    slower = _seen(600.0, shift=math.log(1.6))
    assert _ruled(_gate(), slower).ruling is Ruling.FAIL
    assert _ruled(_gate(ratio_max=2.0), slower).ruling is Ruling.PASS
    assert _ruled(_gate(ratio_max=2.0), _seen(600.0, shift=math.log(3.0))).ruling is Ruling.FAIL
    failing = _seen(600.0, errors=0.02)
    assert _ruled(_gate(Metric.ERRORS), failing).ruling is Ruling.FAIL
    assert _ruled(_gate(Metric.ERRORS, max=0.05), failing).ruling is Ruling.PASS
    assert _ruled(_gate(Metric.ERRORS, max=0.05), _seen(600.0, errors=0.1)).ruling is Ruling.FAIL


@pytest.mark.parametrize(
    ("per_s", "ratio", "share"), [(200.0, 1.25, 0.01), (2.0, 1.25, 0.02), (1.3, 1.5, 0.02), (0.5, 1.5, 0.05), (0.0, 2.0, 0.05)]
)
def test_how_bad_is_bad_depends_on_how_much_there_is_to_see(per_s: float, ratio: float, share: float) -> None:
    assert margin(per_s)[1:] == (ratio, share)
    assert [one.above_per_s for one in MARGINS] == sorted((one.above_per_s for one in MARGINS), reverse=True)


def test_a_gate_fails_at_its_own_odds() -> None:
    odds = Odds(math.log(100), 0.0, 1.25, 2.0, 1.0)
    assert fails(_gate(odds=99.9), odds)
    assert not fails(_gate(odds=100.1), odds)
    assert not fails(_gate(odds=99.9), None)


def test_after_an_hour_the_older_half_is_forgotten() -> None:
    """Of a hundred and twenty blocks; what is left goes on being judged."""
    blocks = _blocks([_did(30.0 * index, 30.0 * (index + 1), 1.0) for index in range(121)], [None] * 121)
    assert len(blocks) == BLOCKS_MAX // 2 + 1
    assert blocks[0].own.since_s == 30.0 * BLOCKS_MAX / 2


# From here on by traces with all their chance: a worker's own wavering, the hour, an incident in one of ten, scrapes that are missed.
PER_S = 5.0


def _course(scenario: str, run: int, until_s: float) -> list[Ruling]:
    """Return what a gate on latency and one on errors rule every quarter of a minute, at 1 % a restart."""
    restart = trace(Purpose.CALIBRATION, scenario, PER_S, run)
    judge = ours.UNLEARNED.judge(restart, PER_S)
    found: list[Ruling] = []
    for first in range(0, round(until_s / STEP_S), 3):
        some = restart.scrapes[first : first + 3]
        own = [scrape.own for scrape in some if scrape.own is not None]
        theirs = [scrape.controls for scrape in some if scrape.controls is not None]
        found.append(judge.see(Scrape(some[-1].at_s, reduce(add, own) if own else None, reduce(add, theirs) if theirs else None)))
        if found[-1] is Ruling.FAIL:
            break
    return found


def test_sixty_good_restarts_are_not_condemned_and_pass() -> None:
    """At one in a hundred, two of sixty would be condemned less than one time in ten; in ten minutes none is."""
    courses = [_course("healthy", run, 600.0) for run in range(60)]
    assert sum(Ruling.FAIL in course for course in courses) == 0
    assert sum(Ruling.PASS in course for course in courses) >= 55


@pytest.mark.parametrize("scenario", ["p95 ×2", "errors 5 %"])
def test_bad_restarts_are_condemned_and_do_not_pass_first(scenario: str) -> None:
    courses = [_course(scenario, run, 900.0) for run in range(20)]
    assert [course[-1] for course in courses] == [Ruling.FAIL] * 20
    assert not any(Ruling.PASS in course for course in courses)
