"""What counts of a worker that was compared with its pool for a while, and since has nobody left: by latency.py."""

import math
from collections.abc import Sequence
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.gating import latency, sequential
from rollout.gating.curves import expected
from rollout.gating.hypotheses import Parabola
from rollout.gating.latency import Block, Heard, Mean, Said, Setting, at_most, hear, listen, silence, weigh
from rollout.gating.sequential import BLOCKS_MAX, Kept, Seen
from rollout.gating.shift import shape_of
from rollout.gating.windows import Window, extend_blocks
from rollout.model.gate import Metric, Ruling, Tally
from tests.gating import evidence_at_hand
from tests.gating.lognormal import expected as requests_of

SETTING = Setting(Mean(40_000.0, 0.1), Mean(160_000.0, 0.1), expected(()), bad_ratio=1.25)
BLOCK_S = 30.0
REQUESTS = 600.0
# Well over any budget's odds (a logarithm).
SURE = math.log(1e5)


def _block(index: int, slower: float, *, compared: bool, pool_slower: float = 0.0) -> Block:
    pool = (0.1 * math.exp(pool_slower), 4 * REQUESTS) if compared else None
    return Block((0.1 * math.exp(slower), REQUESTS), pool, BLOCK_S, (index + 0.5) * BLOCK_S)


def _heard(blocks: Sequence[Block]) -> Heard:
    return reduce(lambda heard, block: hear(heard, listen(heard, block)), blocks, silence(SETTING))


def _then(before: float, after: float, blocks: tuple[int, int] = (20, 20), *, compared: bool) -> list[Block]:
    """Slower by *before* (a ratio) for so many blocks, while there is somebody to compare with, and by *after* for so many more."""
    slow = [math.log(before)] * blocks[0] + [math.log(after)] * blocks[1]
    return [_block(index, slower, compared=compared or index < blocks[0]) for index, slower in enumerate(slow)]


@pytest.mark.parametrize(("before", "after"), [(1.2, 1.4), (1.2, 1.5), (1.22, 1.45)])
def test_what_a_day_changes_condemns_nobody_once_nobody_is_left_to_compare_with(
    before: float, after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is somebody, who shows nothing of the kind, it does. So it would if what is not known came anew with each block."""
    assert weigh(_heard(_then(before, after, compared=False))).slower < 0
    assert weigh(_heard(_then(before, after, compared=True))).slower > SURE
    monkeypatch.setattr(latency, "_MORE_ALONE", 0.0)
    assert weigh(_heard(_then(before, after, compared=False))).slower > math.log(1000)


@pytest.mark.parametrize(("before", "after", "blocks"), [(1.0, 3.0, (20, 20)), (1.0, 2.0, (20, 60)), (2.0, 2.0, (10, 15))])
def test_what_no_day_changes_condemns_it_all_the_same(before: float, after: float, blocks: tuple[int, int]) -> None:
    assert weigh(_heard(_then(before, after, blocks, compared=False))).slower > SURE


def test_nobody_passes_by_what_a_day_may_have_changed() -> None:
    """Of who is 1.4 times as slow as it was nothing speaks against a bad release."""
    assert weigh(_heard(_then(1.2, 1.4, compared=False))).fine < 0


def test_who_was_compared_in_an_incident_s_midst_is_not_blind_after_it() -> None:
    """Nobody is left just when everybody is 2.5 times as slow. It ends at once, and who is three times as slow for long is bad."""
    incident = [_block(index, math.log(2.5), compared=True, pool_slower=math.log(2.5)) for index in range(20, 24)]
    usual = [_block(index, 0.0, compared=True) for index in range(20)]
    assert weigh(_heard(usual + incident + [_block(index, 0.0, compared=False) for index in range(24, 64)])).slower < 0
    assert weigh(_heard(usual + incident + [_block(index, math.log(3), compared=False) for index in range(24, 64)])).slower > SURE


_COURSE = st.lists(st.tuples(st.floats(-0.3, 1.2), st.booleans()), min_size=1, max_size=12)


@given(_COURSE)
@settings(deadline=None, max_examples=30)
def test_the_best_excuse_is_the_best_of_many(course: list[tuple[float, bool]]) -> None:
    """By how much everybody is slower since is tried in steps of a thousandth, one good ratio and curve after the other."""
    heard, said = silence(SETTING), list[Said]()
    for index, (slower, compared) in enumerate(course):
        said.append(listen(heard, _block(index, slower, compared=compared)))
        heard = hear(heard, said[-1])
    most = math.log(1.35 / 1.1)
    tried = np.append(np.arange(-2.0, most, 0.001), most)
    best = -math.inf
    for ratio in SETTING.good_ones:
        for curve, allowed in enumerate(SETTING.expected.allowed):
            total = (1 if ratio == 0 else 2) * allowed + np.zeros(len(tried))
            for one in said:
                assert isinstance(one.plain, Parabola)
                gaps = one.plain.off - ratio - one.plain.levels[curve] - (tried if one.alone else 0.0)
                total = total - one.plain.factor * gaps**2
            best = max(best, float(np.max(total)))
    assert heard.excused.likely == pytest.approx(best, abs=1e-3)


@given(_COURSE, st.sampled_from([4.0, 600.0]))
@settings(deadline=None, max_examples=30)
def test_what_it_may_come_to_at_most_is_no_less_than_what_it_comes_to(course: list[tuple[float, bool]], requests: float) -> None:
    """Of histograms, in which very slow requests show, and of blocks of few requests, too."""
    shapes = [shape_of(requests_of(count, 0.0), None) for count in (40_000.0, 160_000.0)]
    assert shapes[0] is not None
    heard = silence(Setting(shapes[0], shapes[1], expected(()), bad_ratio=1.25))
    for index, (slower, compared) in enumerate(course):
        pool = requests_of(4 * requests, 0.0) if compared else None
        said = listen(heard, Block(requests_of(requests, slower), pool, BLOCK_S, (index + 0.5) * BLOCK_S))
        most = at_most(heard, said) if heard.levels else (math.inf, math.inf)
        heard = hear(heard, said)
        found = weigh(heard)
        assert math.isfinite(found.tail)
        assert most[0] >= found.slower - 1e-9
        assert most[1] >= found.tail - 1e-9


ADMITTED_AT_S = 10_000.0
PATIENT = evidence_at_hand.gate(Metric.LATENCY_P95, odds=6200.0, samples_min=30, soak_s=30.0, deadline_s=3600.0)


def _did(since_s: float, lasts_s: float, per_s: float, ratio: float) -> Tally:
    count = per_s * lasts_s
    return Tally(since_s, since_s + lasts_s, requests=count, latency=requests_of(count, math.log(ratio)))


def _rulings(ratio: float, pool_ratio: float, compared: int, blocks: int = 40) -> list[Ruling]:
    """Rule after each half minute on a worker that is compared with four others for the first ones, and with nobody since."""
    before = ADMITTED_AT_S - 1800
    baseline, pool = _did(before, 1800, 20.0, 1.0), _did(before, 1800, 80.0, 1.0)
    windows: tuple[Window, ...] = ()
    kept: Kept | None = None
    found = []
    for index in range(blocks):
        since_s = ADMITTED_AT_S + index * BLOCK_S
        others = _did(since_s, BLOCK_S, 80.0, pool_ratio) if index < compared else None
        windows = extend_blocks(windows, _did(since_s, BLOCK_S, 20.0, ratio), others, BLOCK_S, BLOCKS_MAX)
        seen = Seen(windows, baseline, pool, (), ADMITTED_AT_S)
        odds, kept = sequential.weigh(PATIENT, seen, kept)
        found.append(sequential.rule(PATIENT, seen, odds, unmeasured=None, now_s=since_s + BLOCK_S))
    return [one.ruling for one in found]


def test_nobody_passes_because_those_who_showed_it_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are a quarter quicker than before, but for the one that takes half as long again. If that were forgotten, it would pass."""
    sick = (1.5 * 0.75, 0.75, 12)
    assert Ruling.PASS not in _rulings(*sick)
    monkeypatch.setattr(sequential, "_COMPARED_S", math.inf)
    assert Ruling.PASS in _rulings(*sick)
