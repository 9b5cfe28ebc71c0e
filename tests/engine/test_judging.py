"""`rollout gate`: what runs now, by sequential gates."""

import math

from rollout.engine.judging import judge, overall
from rollout.model.gate import Gate, Metric, Ruling, Tally
from rollout.model.ids import WorkerId
from tests.gating import evidence_at_hand
from tests.gating.lognormal import expected

CLIENT1 = WorkerId("client1")
BEGAN_S = 10_000.0
SECONDS, STEP_S, PER_S = 600.0, 5.0, 20.0


def _gate(metric: Metric) -> Gate:
    return evidence_at_hand.gate(metric, odds=100.0, deadline_s=2000.0)


def _did(since_s: float, seconds: float, shift: float = 0.0, errors: float = 0.001) -> Tally:
    count = PER_S * seconds
    return Tally(since_s, since_s + seconds, count, errors * count, expected(count, shift))


def _now(seconds: float = SECONDS, shift: float = 0.0, errors: float = 0.001) -> tuple[Tally, ...]:
    return tuple(_did(BEGAN_S + STEP_S * index, STEP_S, shift, errors) for index in range(round(seconds / STEP_S)))


BEFORE = {CLIENT1: _did(1000.0, 1800.0)}
GATES = {CLIENT1: [_gate(Metric.LATENCY_P95), _gate(Metric.ERRORS)]}


def _rulings(now: tuple[Tally, ...], before: dict[WorkerId, Tally]) -> list[Ruling]:
    verdicts = judge(GATES, {CLIENT1: now} if now else {}, before, BEGAN_S + SECONDS)
    return [verdict.ruling for verdict in verdicts[CLIENT1]]


def test_who_does_as_before_passes() -> None:
    assert _rulings(_now(), BEFORE) == [Ruling.PASS, Ruling.PASS]


def test_who_is_slower_or_fails_more_fails() -> None:
    assert _rulings(_now(shift=math.log(4)), BEFORE) == [Ruling.FAIL, Ruling.PASS]
    assert _rulings(_now(errors=0.05), BEFORE) == [Ruling.PASS, Ruling.FAIL]


def test_without_a_baseline_there_is_no_ruling() -> None:
    """Neither passes nor fails, and that is what all say together."""
    verdicts = judge(GATES, {CLIENT1: _now()}, {}, BEGAN_S + SECONDS)
    assert [verdict.ruling for verdict in verdicts[CLIENT1]] == [Ruling.PENDING, Ruling.PENDING]
    assert overall(verdicts) is Ruling.INCONCLUSIVE
    assert verdicts[CLIENT1][0].because == "neither it nor its pool had requests enough before to compare with"


def test_who_was_never_measured_can_not_be_measured() -> None:
    assert _rulings((), BEFORE) == [Ruling.UNMEASURABLE, Ruling.UNMEASURABLE]


def test_what_can_not_be_true_neither_passes_nor_fails() -> None:
    """More failures than requests, all the time; once, among others, it is left out."""
    assert _rulings(_now(errors=2.0), BEFORE) == [Ruling.PENDING, Ruling.PENDING]
    once = (*_now()[:60], _did(BEGAN_S + 60 * STEP_S, STEP_S, errors=2.0), *_now()[61:])
    assert _rulings(once, BEFORE) == [Ruling.PASS, Ruling.PASS]
