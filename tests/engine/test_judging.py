"""`rollout gate`: what runs now, by sequential gates."""

import math
from dataclasses import replace

from rollout.engine.judging import Judge, overall
from rollout.model.gate import Gate, Metric, Ruling, Tally
from rollout.model.ids import GateId, WorkerId
from rollout.simulation.virtual_clock import VirtualClock
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


def _judge(now: tuple[Tally, ...], before: dict[WorkerId, Tally], gates: dict[WorkerId, list[Gate]] = GATES) -> Judge:
    judge = Judge(gates, before, VirtualClock(BEGAN_S + SECONDS))
    judge.hear({CLIENT1: now} if now else {})
    return judge


def _rulings(now: tuple[Tally, ...], before: dict[WorkerId, Tally]) -> list[Ruling]:
    return [verdict.ruling for verdict in _judge(now, before).verdicts[CLIENT1]]


def test_who_does_as_before_passes() -> None:
    assert _rulings(_now(), BEFORE) == [Ruling.PASS, Ruling.PASS]


def test_who_is_slower_or_fails_more_fails() -> None:
    assert _rulings(_now(shift=math.log(4)), BEFORE) == [Ruling.FAIL, Ruling.PASS]
    assert _rulings(_now(errors=0.05), BEFORE) == [Ruling.PASS, Ruling.FAIL]


def test_without_a_baseline_there_is_no_ruling() -> None:
    """Neither passes nor fails, and that is what all say together."""
    verdicts = _judge(_now(), {}).verdicts
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


def test_heard_bit_by_bit_they_say_what_all_of_it_says() -> None:
    """Also a threshold, and with something among it that can't be true."""
    now = (*_now(shift=math.log(1.2))[:50], _did(BEGAN_S + 50 * STEP_S, STEP_S, errors=2.0), *_now(shift=math.log(1.2))[51:])
    gates = {CLIENT1: [*GATES[CLIENT1], replace(_gate(Metric.LATENCY_P95), id=GateId("plain"), odds=None, ratio_max=1.1)]}
    judge = Judge(gates, BEFORE, VirtualClock(BEGAN_S + SECONDS))
    for count in range(1, len(now) + 1):
        judge.hear({CLIENT1: now[:count]})
    assert judge.verdicts == _judge(now, BEFORE, gates).verdicts


def _heard_as_it_comes(now: tuple[Tally, ...]) -> tuple[Judge, list[int]]:
    """Return after how many tallies it had enough."""
    clock = VirtualClock(BEGAN_S)
    judge = Judge(GATES, BEFORE, clock)
    enough = []
    for count in range(1, len(now) + 1):
        clock.advance_to(now[count - 1].until_s)
        enough += [count] if judge.hear({CLIENT1: now[:count]}) else []
    return judge, enough


def test_a_fail_is_told_at_once_and_nothing_else_is_enough() -> None:
    """Whenever it is looked at, what fails has failed; who passes may fail yet."""
    judge, enough = _heard_as_it_comes(_now(errors=0.05))
    assert enough[0] < 12
    assert overall(judge.heeded()) is Ruling.FAIL
    judge, enough = _heard_as_it_comes(_now())
    assert enough == []
    assert overall(judge.heeded()) is Ruling.PASS


def test_what_does_not_act_is_told_and_not_heeded() -> None:
    """Its FAIL ends nothing, and whom nothing else looks at has no ruling."""
    silent = replace(_gate(Metric.ERRORS), id=GateId("silent"), acts=False)
    client2 = WorkerId("client2")
    judge = Judge({CLIENT1: [_gate(Metric.LATENCY_P95), silent], client2: [silent]}, BEFORE, VirtualClock(BEGAN_S + SECONDS))
    assert not judge.hear({CLIENT1: _now(errors=0.05)})
    assert [verdict.ruling for verdict in judge.verdicts[CLIENT1]] == [Ruling.PASS, Ruling.FAIL]
    assert [verdict.ruling for verdict in judge.verdicts[client2]] == [Ruling.UNMEASURABLE]
    assert {worker: [verdict.gate for verdict in its] for worker, its in judge.heeded().items()} == {CLIENT1: ["gate"]}
    assert overall(judge.heeded()) is Ruling.PASS
