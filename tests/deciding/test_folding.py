"""What a state is after an event, where it is easily taken for something else."""

from dataclasses import replace

import pytest

from rollout.deciding.acting import next_number
from rollout.deciding.fold import start
from rollout.deciding.state import Direction, StepStatus
from rollout.model.event import (
    Command,
    DeployBegan,
    DeployFinished,
    DeployResumed,
    EffectFailed,
    EffectInDoubt,
    EffectObserved,
    GateRuled,
    OperatorSpoke,
    Outcome,
    RollbackBegan,
    StepFailed,
    StepFinished,
    WindDownBegan,
)
from rollout.model.gate import Evidence, Ruling, Tally, Verdict
from rollout.model.ids import EffectNumber, GateId, StepId
from rollout.simulation.rehearse import DEPLOY
from tests.deciding.rolled import CLIENT1, fold_all, rolled, state_where, with_worker

FAIL = Verdict(GateId("errors"), Ruling.FAIL, "12 % failed", Evidence(100, 0.12, 0.0, 0.02))


@pytest.mark.parametrize("less", [Command.PAUSE, Command.ROLLBACK])
@pytest.mark.parametrize("asked", [Command.ABORT, Command.INTERRUPT])
def test_a_stop_is_not_overridden_by_less(asked: Command, less: Command) -> None:
    plan, states = rolled()
    at_s = states[50].last_at_s
    state = fold_all(plan, states[50], OperatorSpoke(at_s, asked, "somebody", ""), OperatorSpoke(at_s, less, "somebody", ""))
    assert state.asked is asked


def test_what_was_seen_not_to_have_happened_is_still_to_be_done() -> None:
    """And counts as tried once."""
    plan, state = state_where("client1/admit", StepStatus.INTENDED)
    (number,) = (number for number, effect in state.in_flight.items() if effect.worker == CLIENT1)
    doubtful = fold_all(plan, state, EffectInDoubt(state.last_at_s, number, "no answer"))
    for happened, status in ((True, StepStatus.APPLIED), (False, StepStatus.ACTIVE)):
        settled = fold_all(plan, doubtful, EffectObserved(state.last_at_s, number, happened, "it was seen"))
        at = settled.steps[StepId("client1/admit")]
        assert (at.status, at.weights_applied, at.attempts) == (status, int(happened), int(not happened))
        assert settled.workers[CLIENT1].ramp_since_s == (state.last_at_s if happened else state.workers[CLIENT1].ramp_since_s)


def test_what_failed_is_tried_again_by_who_takes_it_up() -> None:
    plan, state = state_where("client1/restart", StepStatus.ACTIVE)
    at_s, restart = state.last_at_s, StepId("client1/restart")
    failed = fold_all(
        plan,
        state,
        StepFailed(at_s, restart, "no room on the disk"),
        WindDownBegan(at_s, Outcome.PAUSED, "it failed"),
        DeployFinished(at_s, Outcome.PAUSED, "it failed"),
    )
    assert failed.steps[restart].status is StepStatus.FAILED
    resumed = fold_all(plan, failed, DeployResumed(at_s + 60, 1, "somebody", EffectNumber(0)))
    assert (resumed.steps[restart].status, resumed.steps[restart].attempts) == (StepStatus.ACTIVE, 0)


def test_a_rollout_begins_above_what_the_target_knows() -> None:
    """An earlier one's journal may be lost, and the ledger takes no number twice."""
    plan, _ = rolled()
    assert next_number(fold_all(plan, start(plan), DeployBegan(0.0, DEPLOY, "", 1, "somebody", EffectNumber(41)))) == 42


def test_what_follows_is_numbered_above_what_others_did() -> None:
    plan, state = state_where("client1/drain", StepStatus.INTENDED)
    number = next(number for number, effect in state.in_flight.items() if effect.worker == CLIENT1)
    refused = fold_all(plan, state, EffectFailed(state.last_at_s, number, "too late", permanent=False, ledger_number=EffectNumber(70)))
    assert (refused.last_number, refused.steps[StepId("client1/drain")].attempts) == (70, 1)
    assert next_number(refused) == 71


def test_evidence_counts_from_the_return_on() -> None:
    """What a worker did before, on the release that it has left, speaks neither for it nor against it."""
    plan, state = state_where("client1/admit", StepStatus.APPLIED)
    tally = Tally(0.0, 10.0)
    before = replace(state.workers[CLIENT1], after=tally, controls=tally, unmeasured="too busy", verdicts={FAIL.gate: FAIL})
    back = fold_all(plan, with_worker(state, CLIENT1, before), StepFinished(state.last_at_s, StepId("client1/admit"), "it is back"))
    known = back.workers[CLIENT1]
    assert (known.after, known.controls, known.unmeasured, known.verdicts) == (None, None, None, {})
    assert known.admitted_at_s == state.last_at_s


@pytest.mark.parametrize("ruling", [Ruling.FAIL, Ruling.PASS])
def test_who_fails_on_the_way_back_is_remembered(ruling: Ruling) -> None:
    """It keeps nobody from being taken back, but isn't called well."""
    plan, state = state_where("client1/soak", StepStatus.ACTIVE)
    at_s = state.last_at_s
    ruled = GateRuled(at_s, StepId("client1/soak"), CLIENT1, replace(FAIL, ruling=ruling))
    assert fold_all(plan, state, ruled).rollback_failures == ()
    back = fold_all(plan, state, RollbackBegan(at_s, "it fails", requested=False), ruled)
    assert back.direction is Direction.BACK
    assert back.rollback_failures == (("client1: 12 % failed",) if ruling is Ruling.FAIL else ())
