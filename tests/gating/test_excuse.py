"""What all who have passed show at the same moment is no reason to condemn one of them; anything else is."""

import math
from collections.abc import Iterable, Sequence

import pytest

from rollout.gating import excuse, sequential
from rollout.gating.excuse import EXCUSED_MAX_S, Passed
from rollout.gating.latency import Level
from rollout.gating.sequential import BLOCK_S, BLOCKS_MAX, Kept, Odds, Seen, fails, rule, weigh
from rollout.gating.windows import Window, extend_blocks
from rollout.model.gate import Gate, Metric, Ruling, Tally
from tests.gating import evidence_at_hand
from tests.gating.lognormal import expected

ADMITTED_AT_S = 10_000.0
GATE: Gate = evidence_at_hand.gate(Metric.LATENCY_P95, odds=6200.0, samples_min=30, soak_s=30.0)
PER_S = 20.0
# Four times as slow from three minutes after its admission on, for four minutes.
BEGINS_S, ENDS_S = 180.0, 420.0


def _did(since_s: float, seconds: float, ratio: float) -> Tally:
    count = PER_S * seconds
    return Tally(since_s, since_s + seconds, requests=count, latency=expected(count, math.log(ratio)))


def _seen(ends_s: float = ENDS_S, *, ratio: float = 4.0, controls: Tally | None = None) -> Seen:
    """Return what is seen of one that has nobody to compare with, until *ends_s* after its admission."""
    blocks: tuple[Window, ...] = ()
    for at_s in range(0, round(ends_s), round(BLOCK_S)):
        own = _did(ADMITTED_AT_S + at_s, BLOCK_S, ratio if at_s >= BEGINS_S else 1.0)
        blocks = extend_blocks(blocks, own, None if controls is None else controls, BLOCK_S, BLOCKS_MAX)
    pool = None if controls is None else _did(ADMITTED_AT_S - 1800, 1800, 1.0)
    return Seen(blocks, _did(ADMITTED_AT_S - 1800, 1800, 1.0), pool, (), ADMITTED_AT_S)


def _failing(seen: Seen) -> tuple[Odds, Kept]:
    odds, kept = weigh(GATE, seen)
    assert odds is not None
    assert kept is not None
    assert fails(GATE, odds)
    return odds, kept


def _passed(ratios: Iterable[float], *, earlier_s: float = 600.0, deviation: float = 0.1) -> Passed:
    """
    Return another who was admitted *earlier_s* before, and passed 120 s later; *ratios* say how slow it was in each half minute since this
    one's admission.
    """
    before = [1.0] * round(earlier_s / BLOCK_S)
    levels = [Level(math.log(ratio), deviation**2, BLOCK_S, BLOCK_S * (index + 1), 0.0) for index, ratio in enumerate((*before, *ratios))]
    return Passed(tuple(levels), ADMITTED_AT_S - earlier_s, ADMITTED_AT_S - earlier_s + 120.0)


FINE, SAME = [1.0] * 14, [1.0] * 6 + [2.5] * 8


def _excused(seen: Seen, others: Sequence[Passed]) -> Odds:
    odds, kept = _failing(seen)
    return excuse.without_common(GATE, seen, kept, odds, others)


def test_who_is_slow_while_all_who_passed_are_is_not_condemned_for_it() -> None:
    """And what it says when it is looked at anew is only of the time before."""
    found = _excused(seen := _seen(), [_passed(SAME), _passed(SAME, earlier_s=900)])
    assert (found.excused_s, found.excused_until_s) == (240.0, ADMITTED_AT_S + ENDS_S)
    calm, _ = weigh(GATE, _beginning(seen, 6))
    assert calm is not None
    assert found.bad == pytest.approx(calm.bad)
    assert not fails(GATE, found)


def test_others_whose_half_minutes_begin_in_the_middle_of_its_own_excuse_it_as_well() -> None:
    """Each of its blocks then lies in two of theirs, half and half."""
    slow = [1.0] * 6 + [2.5] * 9
    found = _excused(_seen(), [_passed(slow, earlier_s=615), _passed(slow, earlier_s=915)])
    assert (found.excused_s, fails(GATE, found)) == (240.0, False)


def _beginning(seen: Seen, count: int) -> Seen:
    return seen._replace(blocks=seen.blocks[:count])


def test_it_passes_by_nothing_of_that() -> None:
    """All other odds are those of everything that was seen, and as long as it needs an excuse it is pending, with the reason."""
    seen = _seen()
    odds, _ = _failing(seen)
    found = _excused(seen, [_passed(SAME), _passed(SAME)])
    assert found == odds._replace(bad=found.bad, excused_s=found.excused_s, excused_until_s=found.excused_until_s)
    verdict = rule(GATE, seen, found, unmeasured=None, now_s=ADMITTED_AT_S + ENDS_S)
    assert verdict.ruling is Ruling.PENDING
    assert "; 240 s in which all who had passed were slower as well don't count against it" in verdict.because


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([], "nobody has passed"),
        ([_passed(SAME)], "one alone may be as bad"),
        ([_passed(FINE), _passed(FINE, earlier_s=900)], "nobody else is slow"),
        ([_passed(SAME), _passed(FINE), _passed(FINE)], "not all are"),
        ([_passed(SAME), _passed(FINE)], "half of them is not all"),
        ([_passed([1.0] * 6 + [1.15] * 8)] * 5, "a little slower is no incident"),
        ([_passed(SAME, deviation=1.5)] * 2, "it may be chance"),
        ([_passed([2.5] * 14, earlier_s=150.0)] * 2, "they were so ever since they passed: that is the release"),
        ([_passed(SAME, earlier_s=-60.0)] * 2, "they have not been seen for long enough to say what is usual"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_no_excuse(others: list[Passed], why: str) -> None:
    assert why
    seen = _seen()
    odds, _ = _failing(seen)
    assert _excused(seen, others) == odds


def test_what_lasts_longer_than_an_incident_counts_again() -> None:
    """A release may wear a shared database down."""
    longest = [1.0] * 6 + [2.5] * round(EXCUSED_MAX_S / BLOCK_S)
    within = _excused(_seen(BEGINS_S + EXCUSED_MAX_S), [_passed(longest, earlier_s=1800)] * 2)
    assert within.excused_s == EXCUSED_MAX_S
    beyond = _excused(_seen(BEGINS_S + EXCUSED_MAX_S + BLOCK_S), [_passed([*longest, 2.5], earlier_s=1800)] * 2)
    assert fails(GATE, beyond)


def test_two_incidents_are_not_one_long_one() -> None:
    """Four minutes each, with two minutes between them; with half a minute between them they are one, and count."""
    slow, seen = [2.5] * 8, _seen(780.0)
    apart = _passed([1.0] * 6 + slow + [1.0] * 4 + slow, earlier_s=1800)
    assert _excused(seen, [apart] * 2).excused_s == 480.0
    together = _passed([1.0] * 6 + slow + [1.0] + slow, earlier_s=1800)
    assert _excused(seen, [together] * 2) == _failing(seen)[0]


def test_a_third_incident_counts() -> None:
    """Four minutes every six: no database does that by itself."""
    slow, seen = [2.5] * 8, _seen(1_140.0)
    twice = _passed([1.0] * 6 + (slow + [1.0] * 4) * 2 + [1.0] * 8, earlier_s=3600)
    assert _excused(seen, [twice] * 2).excused_s == 480.0
    thrice = _passed([1.0] * 6 + (slow + [1.0] * 4) * 3, earlier_s=3600)
    assert _excused(seen, [thrice] * 2) == _failing(seen)[0]


def test_what_they_were_in_an_incident_before_is_not_their_usual() -> None:
    """For two of the last five quarters of an hour, which would be a half of what their mean is above that."""
    slow = [1.0] * 30 + [1.4] * 24 + [1.0] * 6
    levels = [
        Level(math.log(ratio), 0.01, BLOCK_S, BLOCK_S * (index + 1), 0.0) for index, ratio in enumerate((*slow, *[1.0] * 6, *[1.4] * 8))
    ]
    began_s = ADMITTED_AT_S - BLOCK_S * len(slow)
    assert _excused(_seen(), [Passed(levels, began_s, began_s)] * 2).excused_s == 240.0


def test_who_passed_in_an_incident_shortly_before_is_not_asked() -> None:
    """It knows of no other usual; the others do."""
    newcomer = _passed([2.5] * 3 + [1.0] * 3 + [2.5] * 8, earlier_s=120.0)
    assert _excused(_seen(), [_passed(SAME), _passed(SAME), newcomer]).excused_s == 240.0


def test_that_their_pool_shows_the_same_makes_the_others_no_less_slow() -> None:
    """They are judged less that, and seem as usual; who has nobody to compare with is in the same incident."""
    drifted = [one._replace(at=0.0, drift=one.at) for one in _passed(SAME).levels]
    assert _excused(_seen(), [_passed(SAME)._replace(levels=drifted)] * 2).excused_s == 240.0


def test_who_has_controls_needs_no_excuse() -> None:
    """What its pool shows is taken off already; that it is slow besides is its own."""
    fine = _did(ADMITTED_AT_S, BLOCK_S, 1.0)
    seen = _seen(controls=fine)
    odds, _ = _failing(seen)
    assert _excused(seen, [_passed(SAME), _passed(SAME)]) == odds


def test_a_release_that_is_bad_besides_still_fails() -> None:
    """It had been slow for six minutes before all were."""
    found = _excused(_seen(780.0), [_passed([1.0] * 18 + [2.5] * 8, earlier_s=1800)] * 2)
    assert found.excused_s == 240.0
    assert fails(GATE, found)


def test_the_others_need_not_have_been_looked_at_at_the_same_instants() -> None:
    """Their half minutes begin 10 s later."""
    shifted = [_passed(SAME)._replace(admitted_at_s=ADMITTED_AT_S - 590.0)] * 2
    assert _excused(_seen(), shifted).excused_s == 240.0


def test_levels_of_an_incident_say_nothing_of_all_together_either() -> None:
    """Each is excused by the others; what was before and after stays."""
    those = [_passed(SAME), _passed(SAME, earlier_s=900), _passed(SAME, earlier_s=1200)]
    for one, calm in zip(those, excuse.calm(those, those), strict=True):
        assert calm == one._replace(levels=one.levels[:-8])


def test_those_of_a_role_are_excused_by_those_of_another() -> None:
    """Two syncs alone could both be bad; four clients besides are not."""
    syncs, clients = [_passed(SAME)] * 2, [_passed(SAME, earlier_s=900)] * 4
    assert [len(one.levels) for one in excuse.calm(syncs, [*syncs, *clients])] == [26, 26]
    assert excuse.calm(syncs[:1], syncs[:1]) == syncs[:1]
    fine = [_passed(FINE, earlier_s=900)] * 4
    assert excuse.calm(syncs, [*syncs, *fine]) == syncs


def test_of_all_together_too_what_lasts_longer_counts_again() -> None:
    lasting = [_passed([1.0] * 6 + [2.5] * 11, earlier_s=1800)] * 3
    assert excuse.calm(lasting, lasting) == lasting


def test_shares_have_their_own_excuse() -> None:
    """The pool's failures are in their odds (shares.py)."""
    gate = evidence_at_hand.gate(Metric.ERRORS, odds=10.0)
    odds = Odds(100.0, 0.0, 0.01, 0.1, 0.0)
    assert excuse.without_common(gate, _seen(), Kept(), odds, [_passed(SAME), _passed(SAME)]) == odds
    assert gate.metric in sequential.SHARES
