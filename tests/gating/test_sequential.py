"""The sequential gate, as a rollout asks it after each measurement."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rollout.gating import sequential
from rollout.gating.curves import CURVES, Curve, Kind, name_of
from rollout.gating.sequential import BLOCKS_MAX, COMPARED_WITH, MARGINS, Odds, Seen, fails, margin, rule, weigh
from rollout.gating.windows import Window
from rollout.model.gate import Metric, Ruling, Tally, Verdict
from tests.benchmarks.gates.scenarios import Shape, cold_plateau, exponential, power_law
from tests.gating.evidence_at_hand import BUCKETS
from tests.gating.restart_at_hand import (
    ADMITTED_AT_S,
    STEP_S,
    before,
    did,
    each,
    gate_on,
    in_blocks,
    numbers,
    polled,
    ruled_on,
    steady,
    sure,
)


def test_who_does_as_before_passes() -> None:
    """Its odds, its numbers and what it was compared with are told."""
    verdict = ruled_on(gate_on(), steady(60.0))
    assert (verdict.gate, verdict.ruling) == ("gate", Ruling.PASS)
    assert verdict.because.startswith("requests take 1.00 × as much as before; ")
    assert verdict.because.endswith(" : 1 against 1.25 ×")
    found = verdict.evidence
    assert (found.baseline, found.threshold, found.compared_with) == (1.0, 1.25, COMPARED_WITH)
    assert found.samples == pytest.approx(1200)
    assert found.observed == pytest.approx(1.0, abs=0.02)
    assert found.curve == name_of(0)


def test_who_takes_twice_as_long_fails() -> None:
    verdict = ruled_on(gate_on(), steady(600.0, shift=math.log(2)))
    assert verdict.ruling is Ruling.FAIL
    assert verdict.because.startswith("requests take 2.00 × as much as before; the odds against a good worker are ")
    assert verdict.evidence.observed == pytest.approx(2.0, abs=0.03)


def test_a_share_of_failures_has_its_own_sentences() -> None:
    """They pass and fail by the count of requests, and no curve is looked for."""
    passed, failed = ruled_on(gate_on(Metric.ERRORS), steady(60.0)), ruled_on(gate_on(Metric.ERRORS), steady(60.0, errors=0.05))
    assert (passed.ruling, failed.ruling) == (Ruling.PASS, Ruling.FAIL)
    assert passed.because.startswith("the share of 5xx is 0.1 % (usually 0.1 %); ")
    assert passed.because.endswith(" : 1 against 1 %")
    assert failed.because == "the share of 5xx is 5 % (usually 0.1 %); the odds against a good worker are more than 1,000,000 : 1"
    assert passed.evidence.curve == ""
    assert failed.evidence.observed == pytest.approx(0.05)


def test_a_cold_worker_is_waited_for() -> None:
    """Four times as slow and getting better every block: neither slow for good nor shown to be well."""
    curve = Curve(Kind.EXPONENTIAL, 3.2, 120.0)
    seen = _recovers(lambda seconds: math.exp(curve.level(seconds)), 120.0)
    verdict = ruled_on(gate_on(), seen)
    assert verdict.ruling is Ruling.PENDING
    assert verdict.because.startswith("recovering: requests take ")
    assert verdict.because.endswith(" × as much as before lately, and less and less")
    assert _kind_of(verdict) is Kind.EXPONENTIAL
    assert ruled_on(replace(gate_on(), deadline_s=120.0), seen).ruling is Ruling.INCONCLUSIVE


def _recovers(slower: Callable[[float], float], seconds: float) -> Seen:
    """Return what is seen of a worker that takes so many times as long as before, by the seconds since it was admitted."""
    times = [STEP_S * index for index in range(round(seconds / STEP_S))]
    own = [did(ADMITTED_AT_S + s, ADMITTED_AT_S + s + STEP_S, 20.0, math.log(slower(s + STEP_S / 2))) for s in times]
    theirs = [did(ADMITTED_AT_S + s, ADMITTED_AT_S + s + STEP_S, 80.0) for s in times]
    return Seen(in_blocks(own, theirs), before(20.0), before(80.0), (), ADMITTED_AT_S)


def _kind_of(verdict: Verdict) -> Kind:
    return CURVES[[name_of(index) for index in range(len(CURVES))].index(verdict.evidence.curve)].kind


# Those of the benchmark's restarts, which are none of ours: how they begin and after how long they are nearly over is theirs.
_SHAPES = pytest.mark.parametrize(
    ("shape", "tau_s", "kind"),
    [(exponential, 300.0, Kind.EXPONENTIAL), (cold_plateau, 300.0, Kind.PLATEAU), (power_law, 120.0, Kind.POWER_LAW)],
)


@_SHAPES
def test_each_way_to_recover_is_waited_for_and_passes(shape: Shape, tau_s: float, kind: Kind) -> None:
    """Four times as slow at first: never condemned, said to recover while it isn't well, by its kind of curve, and well in the end."""
    verdicts = _course(shape, 3.0, tau_s, 1.0)
    assert not {verdict.ruling for verdict in verdicts} - {Ruling.PENDING, Ruling.PASS}
    for verdict in verdicts:
        assert verdict.because.startswith("recovering: requests take ") == (_observed(verdict) > LIMIT)
        assert verdict.ruling is Ruling.PENDING or _observed(verdict) <= LIMIT
    assert [_kind_of(verdict) for verdict in verdicts[-10:]] == [kind] * 10
    assert verdicts[-1].ruling is Ruling.PASS


@_SHAPES
def test_who_begins_likewise_and_stays_twice_as_slow_fails(shape: Shape, tau_s: float, kind: Kind) -> None:
    """Four times as slow at first, and it recovers in the same way: to twice what it was. That is seen when it is nearly there."""
    verdicts = _course(shape, 1.0, tau_s, 2.0)
    assert {verdict.ruling for verdict in verdicts[:-1]} == {Ruling.PENDING}, kind
    assert all(verdict.because.startswith("recovering: ") for verdict in verdicts[:-1])
    assert verdicts[-1].ruling is Ruling.FAIL
    assert 2.0 < _observed(verdicts[-1]) < 2.5


# Of twenty requests a second.
LIMIT = 1.25


def _course(shape: Shape, amount: float, tau_s: float, factor: float) -> list[Verdict]:
    """Rule every half minute until a FAIL, for a quarter of an hour, on who is *factor* times as slow for good and by a *shape* for now."""
    seen = _recovers(lambda seconds: factor * float(shape(np.array(seconds), amount, tau_s)), 900.0)
    gate, verdicts, kept = gate_on(deadline_s=1200.0), list[Verdict](), None
    for count in range(1, len(seen.blocks) + 1):
        so_far = seen._replace(blocks=seen.blocks[:count])
        odds, kept = weigh(gate, so_far, kept)
        verdicts.append(rule(gate, so_far, odds, unmeasured=None, now_s=so_far.blocks[-1].own.until_s))
        if verdicts[-1].ruling is Ruling.FAIL:
            break
    return verdicts


def _observed(verdict: Verdict) -> float:
    assert verdict.evidence.observed is not None
    return verdict.evidence.observed


@pytest.mark.parametrize("per_s", [20.0, 2.0])
def test_very_slow_requests_fail_also_where_the_others_are_as_before(per_s: float) -> None:
    """Two in a hundred take half a minute, and the rest no longer than ever: no shift of all explains them, and the sentence says so."""
    seen = steady(120.0, per_s)
    verdict = ruled_on(gate_on(), seen._replace(blocks=tuple(replace(block, own=_with_slow_ones(block.own)) for block in seen.blocks)))
    assert verdict.ruling is Ruling.FAIL
    said = "requests take 1.00 × as much as before, with very slow ones that it had not; the odds against a good worker are "
    assert verdict.because.startswith(said)
    assert verdict.evidence.observed == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("per_s", [20.0, 2.0])
def test_who_had_as_many_very_slow_requests_before_passes(per_s: float) -> None:
    """Also where the others of its pool have none."""
    seen = steady(120.0, per_s)
    blocks = tuple(replace(block, own=_with_slow_ones(block.own)) for block in seen.blocks)
    verdict = ruled_on(gate_on(), seen._replace(blocks=blocks, baseline=_with_slow_ones(sure(seen.baseline))))
    assert verdict.ruling is Ruling.PASS
    assert "very slow" not in verdict.because


def _with_slow_ones(tally: Tally) -> Tally:
    """Let two requests in a hundred take longer than any edge."""
    *others, last = (0.98 * count for count in tally.latency)
    return replace(tally, latency=(*others, last + 0.02 * tally.requests))


def test_what_is_missing_for_a_pass_is_said() -> None:
    """Requests first, then odds, then time."""
    assert ruled_on(gate_on(samples_min=700), steady(30.0)).because == "it has 600 of the 700 requests needed"
    few = ruled_on(gate_on(samples_min=1), steady(10.0, 2.0))
    assert (few.ruling, few.because) == (Ruling.PENDING, "it has 20 of the 30 requests needed")
    unsure = ruled_on(gate_on(), steady(60.0, 0.6))
    assert unsure.ruling is Ruling.PENDING
    assert unsure.because.startswith("requests take 1.0")
    assert "× as much as before; that it is not 1.5 × has yet to show (" in unsure.because
    assert unsure.because.endswith(" : 1 of 20 : 1 needed)")
    short = ruled_on(gate_on(soak_s=90.0), steady(60.0))
    assert short.ruling is Ruling.PENDING
    assert short.because.endswith("; it has been watched for 60 of 90 s")
    assert ruled_on(gate_on(soak_s=60.0), steady(60.0)).ruling is Ruling.PASS


def test_what_may_be_chance_is_said() -> None:
    """A third slower, which with nobody to compare with the hour explains."""
    verdict = ruled_on(gate_on(), steady(60.0, shift=math.log(1.33), peers=0))
    assert verdict.ruling is Ruling.PENDING
    assert " lately; that may still be chance (" in verdict.because


def test_who_is_well_lately_does_not_pass_while_too_much_speaks_against_it() -> None:
    """Half the odds that condemn, of a share that is below the limit by now."""
    gate = gate_on(Metric.ERRORS, max=0.021)
    seen = steady(300.0, errors=0.02)
    verdict = ruled_on(gate, seen)
    assert math.log(1000) / 2 <= (weigh(gate, seen)[0] or _NO_ODDS).bad < math.log(1000)
    assert verdict.ruling is Ruling.PENDING
    assert "; too much speaks against it (" in verdict.because


_NO_ODDS = Odds(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", sorted(sequential.METRICS))
def test_without_data_nobody_passes_or_fails(metric: Metric) -> None:
    """Nothing measured, nothing lately, nothing readable, or nothing that counts; before its deadline and after it."""
    gate = gate_on(metric)
    bad = steady(120.0, shift=2.0, errors=0.5)
    bad = replace_blocks(bad, tuple(Window(polled(b.own), (), b.controls) for b in bad.blocks)) if metric.startswith("poll") else bad
    nothing = bad._replace(blocks=())
    empty = bad._replace(blocks=(Window(Tally(ADMITTED_AT_S, ADMITTED_AT_S + 60), ()),))
    for later_s in (0.0, 1000.0):
        late = later_s > gate.deadline_s
        ruled = ruled_on(gate, nothing, later_s=later_s)
        assert ruled.because == "nothing has been measured since it took its full share"
        assert ruled.ruling is (Ruling.UNMEASURABLE if late else Ruling.PENDING)
        assert ruled_on(gate, bad, later_s=later_s, unmeasured="connection refused").ruling is Ruling.UNMEASURABLE
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
    seen = steady(120.0, shift=shift)
    stale = ruled_on(gate_on(), seen, later_s=20.1)
    assert (stale.ruling, stale.because) == (Ruling.UNMEASURABLE, "its last measurement is 20 s old")
    assert ruled_on(gate_on(), seen, later_s=20.0).ruling is (Ruling.FAIL if shift else Ruling.PASS)


@pytest.mark.parametrize("metric", [Metric.LATENCY_P95, Metric.REQUEST_CPU])
def test_without_anything_to_compare_with_there_is_no_ruling(metric: Metric) -> None:
    """Neither it nor its pool had twenty requests before; at the deadline that is all that can be said."""
    seen = steady(120.0, shift=2.0)._replace(baseline=before(0.01), pool=None)
    verdict = ruled_on(gate_on(metric), seen)
    assert verdict.because == "neither it nor its pool had requests enough before to compare with"
    assert verdict.ruling is Ruling.PENDING
    assert ruled_on(gate_on(metric, deadline_s=100.0), seen).ruling is Ruling.INCONCLUSIVE
    assert weigh(gate_on(metric), seen)[0] is None


def test_who_has_no_past_is_compared_with_that_of_its_pool() -> None:
    """As slow as its pool was, it passes; twice as slow, it fails."""
    assert ruled_on(gate_on(), steady(120.0)._replace(baseline=None)).ruling is Ruling.PASS
    assert ruled_on(gate_on(), steady(600.0, shift=math.log(2))._replace(baseline=None)).ruling is Ruling.FAIL


@pytest.mark.parametrize("metric", [Metric.LATENCY_P95, Metric.CANARY_P95, Metric.REQUEST_CPU])
def test_what_slows_the_whole_pool_down_condemns_nobody(metric: Metric) -> None:
    """Three times as slow, as everybody is: no FAIL. Alone three times as slow: FAIL. And nobody to compare with is no excuse either."""
    slow = math.log(3)
    shared = ruled_on(gate_on(metric), steady(600.0, shift=slow, pool_shift=slow))
    assert shared.ruling is not Ruling.FAIL
    assert shared.evidence.observed == pytest.approx(1.0, abs=0.05)
    assert ruled_on(gate_on(metric), steady(600.0, shift=slow)).ruling is Ruling.FAIL
    assert ruled_on(gate_on(metric), steady(600.0, shift=slow, peers=0)).ruling is Ruling.FAIL


def test_alone_a_little_slower_neither_passes_nor_fails() -> None:
    """By a third, with nobody to tell whether that is the worker or the evening; in a pool that is as before, it fails."""
    third = math.log(1.33)
    assert ruled_on(gate_on(), steady(300.0, shift=third, peers=0)).ruling is Ruling.PENDING
    assert ruled_on(gate_on(), steady(600.0, shift=third)).ruling is Ruling.FAIL
    assert ruled_on(gate_on(), steady(300.0, peers=0)).ruling is Ruling.PASS


def test_what_can_not_be_true_of_its_pool_is_nobody_to_compare_with() -> None:
    """A NaN would compare as neither more nor less than anything, and so pass."""
    for shift, ruling in ((0.0, Ruling.PASS), (math.log(3), Ruling.FAIL)):
        for metric in (Metric.LATENCY_P95, Metric.ERRORS, Metric.REQUEST_CPU):
            seen = steady(600.0, shift=shift, errors=0.001 if shift == 0 else 0.2)
            absurd = tuple(replace(b, controls=replace(sure(b.controls), **_ABSURD)) for b in seen.blocks)
            assert ruled_on(gate_on(metric), seen._replace(blocks=absurd)).ruling is ruling
            assert ruled_on(gate_on(metric), seen._replace(pool=replace(sure(seen.pool), **_ABSURD))).ruling is ruling
            if metric is not Metric.ERRORS:
                assert ruled_on(gate_on(metric), seen._replace(baseline=replace(sure(seen.baseline), **_ABSURD))).ruling is ruling


_ABSURD: dict[str, Any] = {
    "latency": (math.nan,) * BUCKETS,
    "request_cpu_s": math.nan,
    "errors": math.nan,
}


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
    """As before it passes, at twice as much it fails."""
    for shift, ruling in ((0.0, Ruling.PASS), (math.log(2), Ruling.FAIL)):
        seen = steady(600.0, shift=shift)
        if metric is not Metric.REQUEST_CPU:
            seen = each(seen, polled)
        verdict = ruled_on(gate_on(metric), seen)
        assert verdict.ruling is ruling
        assert verdict.because.startswith(f"{things} {math.exp(shift):.2f} × as much as before; ")


def test_no_ratio_of_a_playbook_is_too_great() -> None:
    """Few requests, in an incident, at a hundred times and more: an answer."""
    for ratio_max in (1.11, 100.0, 1e9):
        odds, _ = weigh(gate_on(ratio_max=ratio_max), steady(60.0, 0.2, pool_shift=3.0, shift=3.0))
        assert odds is not None
        assert odds.limit == ratio_max
        assert all(map(math.isfinite, numbers(odds)))


def test_a_gate_s_own_limits_are_those_that_it_passes_by() -> None:
    """A tenth slower, and two failures in a hundred, pass where the playbook says that more is bad."""
    assert ruled_on(gate_on(ratio_max=2.0), steady(120.0, 2.0)).because.endswith(" : 1 against 2 ×")
    assert ruled_on(gate_on(Metric.ERRORS, max=0.1), steady(120.0)).because.endswith(" : 1 against 10 %")


def test_what_a_playbook_accepts_is_not_failed() -> None:
    """Whoever knows that a release is slower, or fails a little more, says so; what is worse than that fails all the same."""
    slower = steady(600.0, shift=math.log(1.6))
    assert ruled_on(gate_on(), slower).ruling is Ruling.FAIL
    assert ruled_on(gate_on(ratio_max=2.0), slower).ruling is Ruling.PASS
    assert ruled_on(gate_on(ratio_max=2.0), steady(600.0, shift=math.log(3.0))).ruling is Ruling.FAIL
    failing = steady(600.0, errors=0.02)
    assert ruled_on(gate_on(Metric.ERRORS), failing).ruling is Ruling.FAIL
    assert ruled_on(gate_on(Metric.ERRORS, max=0.05), failing).ruling is Ruling.PASS
    assert ruled_on(gate_on(Metric.ERRORS, max=0.05), steady(600.0, errors=0.1)).ruling is Ruling.FAIL


@pytest.mark.parametrize(
    ("per_s", "ratio", "share"), [(200.0, 1.25, 0.01), (2.0, 1.25, 0.02), (1.3, 1.5, 0.02), (0.5, 1.5, 0.05), (0.0, 2.0, 0.05)]
)
def test_how_bad_is_bad_depends_on_how_much_there_is_to_see(per_s: float, ratio: float, share: float) -> None:
    assert margin(per_s)[1:] == (ratio, share)
    assert [one.above_per_s for one in MARGINS] == sorted((one.above_per_s for one in MARGINS), reverse=True)


def test_a_gate_fails_at_its_own_odds() -> None:
    odds = Odds(math.log(100), 0.0, 1.25, 2.0, 1.0)
    assert fails(gate_on(odds=99.9), odds)
    assert not fails(gate_on(odds=100.1), odds)
    assert not fails(gate_on(odds=99.9), None)


def test_after_an_hour_the_older_half_is_forgotten() -> None:
    """Of a hundred and twenty blocks; what is left goes on being judged."""
    blocks = in_blocks([did(30.0 * index, 30.0 * (index + 1), 1.0) for index in range(121)], [None] * 121)
    assert len(blocks) == BLOCKS_MAX // 2 + 1
    assert blocks[0].own.since_s == 30.0 * BLOCKS_MAX / 2
