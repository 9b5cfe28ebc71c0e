"""The way back goes to its end whatever can't be shown on it, and says then what was not shown."""

from typing import Literal

import pytest

from rollout.deciding.state import DeployState
from rollout.model.event import Event, Outcome, RollbackBegan, StepBegan, StepFinished
from rollout.model.ids import Role, WorkerId
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.rehearse import Stage, rehearse
from tests.simulation.stages import PLAYBOOK, SEVEN, seven_workers

Policy = Literal["pause", "rollback"]
CLIENT2 = WorkerId("client2")


def _roll_back(stage: Stage, policy: Policy, trouble: str) -> DeployState:
    """Two clients have got the release when the second fails on it; once that one is back, *trouble* begins."""
    gates = tuple(gate.model_copy(update={"on_inconclusive": policy, "on_unmeasurable": policy}) for gate in PLAYBOOK.gates)
    plan = stage.plan(PLAYBOOK.model_copy(update={"gates": gates}))

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/restart":
            stage.world.erring[plan.to_release.id] = 0.3
        if isinstance(event, StepBegan) and event.step_id == "client2/rollback/soak":
            if trouble == "can't be measured":
                stage.world.dark.add(CLIENT2)
            elif trouble == "is asked too little":
                stage.world.workers[CLIENT2].requests_per_s = 0.1
            else:
                stage.world.hangs.add(stage.old.id)
        if isinstance(event, StepFinished) and event.step_id == "client2/rollback/soak":
            stage.world.hangs.clear()

    return rehearse(stage, plan, listeners=(turn_bad,))


@pytest.mark.parametrize("policy", ["pause", "rollback"])
@pytest.mark.parametrize("trouble", ["can't be measured", "is asked too little", "is gone for a while"])
def test_one_that_is_not_shown_to_be_well_keeps_nobody_on_the_condemned_release(policy: Policy, trouble: str) -> None:
    """client2 is back first and no gate of it comes to a ruling: client1 is taken back all the same, and it isn't called a clean end."""
    stage = seven_workers()
    state = _roll_back(stage, policy, trouble)
    assert {worker.runs for worker in stage.world.workers.values()} == {stage.old.id}
    assert (stage.drivers.ledger.marks(), stage.world.cuts.get(CLIENT2, 0)) == ({}, 0)
    assert state.outcome is Outcome.HALTED
    assert state.outcome_why.startswith("every worker is back on its old release; but not everybody was shown to be well: client2")


def test_what_is_shown_to_be_well_again_is_a_clean_end() -> None:
    """The control: the same failure, and nothing in the way of the way back."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    turns: list[str] = []

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/restart":
            stage.world.erring[plan.to_release.id] = 0.3
        if isinstance(event, RollbackBegan):
            turns.append(event.why)

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert (state.outcome, len(turns), state.rollback_failures) == (Outcome.ROLLED_BACK, 1, ())


def test_one_that_was_gone_before_any_ruling_is_not_called_well() -> None:
    """Being alive is all that is asked of it, and it stopped answering before that was ruled on: silence is no pass."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK.model_copy(update={"gates": (), "liveness_only": tuple(Role(role) for role, _ in SEVEN.values())}))

    def hang(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/soak":
            stage.world.hangs.add(plan.to_release.id)
        if isinstance(event, StepBegan) and event.step_id == "client2/rollback/soak":
            stage.world.hangs.add(stage.old.id)
        if isinstance(event, StepFinished) and event.step_id == "client2/rollback/soak":
            stage.world.hangs.clear()

    state = rehearse(stage, plan, listeners=(hang,))
    assert {worker.runs for worker in stage.world.workers.values()} == {stage.old.id}
    assert (state.outcome, state.rollback_failures) == (Outcome.HALTED, ("client2: it has not answered for 15 s",))


def test_who_was_on_the_failed_release_before_and_is_not_well_halts_it() -> None:
    """An earlier rollout with a lost journal had put client1 on it: what it ran before nobody knows, and "rolled back" would be untrue."""
    stage = seven_workers()
    assert rehearse(stage, stage.plan(PLAYBOOK, until="client1")).outcome is Outcome.DEPLOYED
    stage.journal = MemoryJournal()
    plan = stage.plan(PLAYBOOK)
    bad = plan.to_release.id
    assert plan.from_releases[WorkerId("client1")] == bad

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/soak":
            stage.world.hangs.add(bad)

    end = rehearse(stage, plan, listeners=(turn_bad,))
    assert end.outcome is Outcome.HALTED, end.outcome_why
    assert "client1 ran 2.0.0" in end.outcome_why
    assert stage.world.workers[WorkerId("client2")].runs == stage.old.id
