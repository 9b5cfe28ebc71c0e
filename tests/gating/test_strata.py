"""That users ask for other things is no slower release, and a slower release is found whatever they ask for."""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from operator import add

import pytest

from rollout.gating import strata
from rollout.gating.curves import CURVES, Curve, Kind
from rollout.gating.evidence import sound
from rollout.gating.sequential import BLOCK_S, BLOCKS_MAX, Seen, rule, weigh
from rollout.gating.windows import Window, extend_blocks
from rollout.model.gate import LATENCY_EDGES_S, Gate, Metric, Ruling, Stratum, Tally, Verdict
from tests.benchmarks.gates import mix
from tests.gating import evidence_at_hand
from tests.gating.lognormal import expected

ADMITTED_AT_S = 10_000.0
STEP_S = 5.0
BASELINE_S = 1800.0
PER_S = 10.0
# By servlet, how long a request takes (the logarithm of how many times as long as the median of lognormal.py), and what it costs.
TAKES = {"Keys": -2.0, "Messages": -0.5, "Search": 2.0, "Send": 0.0, "Deliver": 2.0, "Post": 0.0}
COSTS_S = {"Keys": 0.001, "Messages": 0.004, "Search": 0.2, "Send": 0.006, "Deliver": 0.006, "Post": 0.006}
USUAL = {"Keys": 0.3, "Messages": 0.2, "Search": 0.2, "Send": 0.3}
# Twice as many searches.
SEARCHING = {"Keys": 0.2, "Messages": 0.15, "Search": 0.4, "Send": 0.25}
SYNC_COSTS_S = {"Sync first": 0.8, "Sync later": 0.006}
USUAL_SYNCS = {"Sync first": 0.05, "Sync later": 0.95}
FIRST_SYNCS = {"Sync first": 0.1, "Sync later": 0.9}
EARLIER = (CURVES.index(Curve(Kind.EXPONENTIAL, 0.9, 30.0)),) * 5


def _did(since_s: float, until_s: float, mix: Mapping[str, float], shift: float = 0.0, per_s: float = PER_S) -> Tally:
    """Return what a worker does on average, without any chance in it."""
    count, factor = per_s * (until_s - since_s), math.exp(shift)
    its = {name: expected(share * count, TAKES[name] + shift) for name, share in mix.items()}
    apart = tuple(
        Stratum(name, requests=mix[name] * count, cpu_s=mix[name] * count * COSTS_S[name] * factor, latency=latency)
        for name, latency in sorted(its.items())
    )
    latency = tuple(map(sum, zip(*its.values(), strict=True)))
    return Tally(since_s, until_s, requests=count, latency=latency, request_cpu_s=sum(one.cpu_s for one in apart), cpu_s=1.0, strata=apart)


def _polled(since_s: float, until_s: float, mix: Mapping[str, float], shift: float = 0.0, per_s: float = PER_S) -> Tally:
    count, factor = per_s * (until_s - since_s), math.exp(shift)
    apart = tuple(
        Stratum(name, polls=share * count, cpu_s=cost_s, db_s=2 * cost_s, scheduling_s=cost_s / 10)
        for name, share in sorted(mix.items())
        for cost_s in [share * count * SYNC_COSTS_S[name] * factor]
    )
    cpu_s = sum(one.cpu_s for one in apart)
    return Tally(since_s, until_s, polls=count, poll_cpu_s=cpu_s, poll_db_s=2 * cpu_s, poll_scheduling_s=cpu_s / 10, strata=apart)


def _seen(before: Mapping[str, float], after: Mapping[str, float], *, did=_did, shift: float = 0.0, peers: bool = True) -> Seen:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return what is seen of a worker for ten minutes, whose users ask for other things than those of its pool, and than before."""
    blocks: tuple[Window, ...] = ()
    for step in range(120):
        at_s = ADMITTED_AT_S + STEP_S * step
        own, pool = did(at_s, at_s + STEP_S, after, shift), did(at_s, at_s + STEP_S, before, 0.0, 4 * PER_S)
        blocks = extend_blocks(blocks, own, pool if peers else None, BLOCK_S, BLOCKS_MAX)
    since_s = ADMITTED_AT_S - BASELINE_S
    own, pool = did(since_s, ADMITTED_AT_S, before), did(since_s, ADMITTED_AT_S, before, 0.0, 4 * PER_S)
    return Seen(blocks, own, pool if peers else None, EARLIER, ADMITTED_AT_S)


def _blurred(tally: Tally | None) -> Tally | None:
    return None if tally is None else replace(tally, strata=())


def _without(seen: Seen) -> Seen:
    """Leave out by what its requests are told apart."""
    blocks = tuple(Window(replace(block.own, strata=()), (), _blurred(block.controls)) for block in seen.blocks)
    return seen._replace(blocks=blocks, baseline=_blurred(seen.baseline), pool=_blurred(seen.pool))


def _ruled(seen: Seen, metric: Metric = Metric.LATENCY_P95) -> Verdict:
    gate: Gate = evidence_at_hand.gate(metric, odds=1000.0, samples_min=30, soak_s=30.0)
    odds, _ = weigh(gate, seen)
    return rule(gate, seen, odds, unmeasured=None, now_s=seen.blocks[-1].own.until_s)


@pytest.mark.parametrize("peers", [True, False])
def test_whose_users_search_more_passes_and_is_condemned_where_that_is_not_told(*, peers: bool) -> None:
    """The control: the same requests, not told apart, look like a release that is much slower."""
    seen = _seen(USUAL, SEARCHING, peers=peers)
    passed, failed = _ruled(seen), _ruled(_without(seen))
    assert passed.ruling is Ruling.PASS
    assert passed.evidence.observed == pytest.approx(1.0, abs=0.03)
    # With nobody to compare with, more has to speak against a worker than that; it doesn't pass either.
    assert failed.ruling is (Ruling.FAIL if peers else Ruling.INCONCLUSIVE)
    assert failed.evidence.observed == pytest.approx(1.68, abs=0.05)


@pytest.mark.parametrize("asked", [USUAL, SEARCHING], ids=["as before", "another mix"])
def test_a_slower_release_is_found_whatever_is_asked_for(asked: Mapping[str, float]) -> None:
    """Twice as slow in all it does, and seen to be."""
    verdict = _ruled(_seen(USUAL, asked, shift=math.log(2)))
    assert verdict.ruling is Ruling.FAIL
    assert verdict.evidence.observed == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(("name", "ruling"), [("Deliver", Ruling.FAIL), ("Post", Ruling.PASS)], ids=["slower", "as quick"])
def test_a_release_that_calls_a_servlet_by_another_name_is_judged_by_all_its_requests(name: str, ruling: Ruling) -> None:
    """Send has another name now, with which nothing from before can be compared: what is left doesn't speak for it."""
    renamed = {"Keys": 0.3, "Messages": 0.2, "Search": 0.2, name: 0.3}
    assert _ruled(_seen(USUAL, renamed)).ruling is ruling


def test_a_lighter_mix_does_not_hide_a_slower_release() -> None:
    """Hardly a search any more, and everything takes twice as long: together the requests are no slower than before."""
    light = {"Keys": 0.62, "Messages": 0.2, "Search": 0.0, "Send": 0.18}
    verdict = _ruled(_seen(USUAL, light, shift=math.log(2)))
    assert verdict.ruling is Ruling.FAIL
    assert _ruled(_without(_seen(USUAL, light, shift=math.log(2)))).ruling is not Ruling.FAIL


@pytest.mark.parametrize("metric", [Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING])
def test_first_syncs_cost_more_and_twice_as_many_of_them_condemn_nobody(metric: Metric) -> None:
    """Only where all syncs are one do they look like a release that costs more; and such a one is found."""
    seen = _seen(USUAL_SYNCS, FIRST_SYNCS, did=_polled)
    passed = _ruled(seen, metric)
    assert passed.ruling is Ruling.PASS
    assert passed.evidence.observed == pytest.approx(1.0, abs=0.02)
    assert _ruled(_without(seen), metric).ruling is Ruling.FAIL
    dear = _ruled(_seen(USUAL_SYNCS, FIRST_SYNCS, did=_polled, shift=math.log(2)), metric)
    assert dear.ruling is Ruling.FAIL
    assert dear.evidence.observed == pytest.approx(2.0, abs=0.05)


def test_what_requests_cost_is_compared_by_their_kind() -> None:
    seen = _seen(USUAL, SEARCHING)
    assert _ruled(seen, Metric.REQUEST_CPU).ruling is Ruling.PASS
    assert _ruled(_without(seen), Metric.REQUEST_CPU).ruling is Ruling.FAIL


def test_where_anything_is_not_told_apart_all_is_as_without() -> None:
    """An old baseline, or one block from a page without the label: to the last digit what it was."""
    seen = _seen(USUAL, SEARCHING)
    blind = _ruled(_without(seen))
    assert _ruled(seen._replace(baseline=_blurred(seen.baseline), pool=_blurred(seen.pool))) == blind
    first, *others = seen.blocks
    assert _ruled(seen._replace(blocks=(Window(replace(first.own, strata=()), (), first.controls), *others), pool=None)) == _ruled(
        _without(seen._replace(pool=None))
    )


def test_the_rest_is_compared_as_one() -> None:
    """Kinds that were asked for too seldom, or lie in one bucket, are not told apart; at most ten are."""
    many = tuple(Stratum(f"Kind{index:02}", requests=100.0 + index, latency=expected(100.0 + index)) for index in range(14))
    seldom = Stratum("Seldom", requests=29.0, latency=expected(29.0))
    narrow = Stratum("Narrow", requests=5000.0, latency=(5000.0,))
    told = (*many, narrow, seldom)
    whole = [0.0] * (len(LATENCY_EDGES_S) + 1)
    for one in told:
        whole = [both + (one.latency[index] if index < len(one.latency) else 0.0) for index, both in enumerate(whole)]
    baseline = Tally(0.0, 1000.0, requests=sum(one.requests for one in told), latency=tuple(whole), strata=tuple(sorted(told)))
    shape = strata.shape_by_strata(baseline, None)
    assert shape is not None
    assert sorted(shape.names) == [f"Kind{index:02}" for index in range(4, 14)]
    assert sum(shape.shares) == pytest.approx(1.0)
    counts = strata.counts_by_strata(baseline, shape)
    assert len(counts) == 11 * len(whole) == len(shape.plain[0])
    assert sum(counts) == pytest.approx(baseline.requests)


def test_a_kind_of_the_rest_that_has_grown_counts_twice_at_most() -> None:
    """Or the rest would be another one than it was; the others of it count whole."""
    usual = {"Keys": 0.6, "Messages": 0.025, "Search": 0.015, "Send": 0.36}
    shape = strata.shape_by_strata(_did(0.0, 100.0, usual), None)
    assert shape is not None
    assert sorted(shape.names) == ["Keys", "Send"]
    grown = _did(0.0, 10.0, {**usual, "Search": 0.075, "Send": 0.3})
    counts = strata.counts_by_strata(grown, shape)
    assert sum(counts[-15:]) == pytest.approx(2.5 + 2 * 1.5, rel=1e-3)
    assert sum(counts[:-15]) == pytest.approx(60 + 30)


def test_a_kind_that_was_seldom_asked_for_counts_little_when_it_is_all_there_is() -> None:
    """Its baseline is known badly: of twice its share, and what chance adds, counts no more."""
    shape = strata.shape_by_strata(_did(0.0, 100.0, USUAL), None)
    assert shape is not None
    only = _did(0.0, 100.0, {"Search": 1.0})
    counted = sum(strata.counts_by_strata(only, shape))
    assert counted == pytest.approx(2 * (200 + math.sqrt(200)))
    never = replace(only, strata=(Stratum("Never", requests=1000.0, latency=only.latency),))
    assert sum(strata.counts_by_strata(never, shape)) == 0


def test_tallies_that_are_added_keep_their_kinds() -> None:
    """One by one or all at once; and where one doesn't tell, the sum doesn't."""
    one, other = _did(0.0, 5.0, {"Keys": 1.0}), _did(5.0, 10.0, {"Search": 0.5, "Send": 0.5})
    both = one + other
    assert [(part.name, part.requests) for part in both.strata] == [("Keys", 50.0), ("Search", 25.0), ("Send", 25.0)]
    assert reduce(add, [one, other, one]).strata[0].latency == pytest.approx([2 * count for count in one.strata[0].latency])
    idle = Tally(10.0, 15.0)
    assert (both + idle).strata == (idle + both).strata == both.strata
    assert (both + Tally(10.0, 15.0, requests=1.0)).strata == ()
    assert sound(both)
    assert not sound(replace(both, strata=(Stratum("Keys", requests=math.nan),)))
    assert not sound(replace(both, strata=(Stratum("Keys", latency=(-1.0,)),)))


def test_drawn_restarts_with_another_mix_are_taken_back_only_where_kinds_are_not_told() -> None:
    """Five times as many searches and joins, at five requests a second; and twice as slow, all are found."""
    setup, mixed = mix.Setup(5.0, 300.0, 4), mix.MIXES["five times as many"]
    good = [mix.seen(run, setup, mixed, 1.0) for run in range(6)]
    assert [mix.ruled(one)[0] for one in good] == [Ruling.PASS] * 6
    assert [mix.ruled(mix.not_told_apart(one))[0] for one in good].count(Ruling.FAIL) >= 3
    assert [mix.ruled(mix.seen(run, setup, mixed, 2.0))[0] for run in range(6)] == [Ruling.FAIL] * 6
