"""A person pauses, goes on, and leaves workers out; and a roll-back that takes back only who is blamed."""

from rollout.deciding.state import DeployState
from rollout.model.event import Command, Event, Outcome, RollbackBegan, StepBegan, StepFinished
from rollout.model.ids import WorkerId
from rollout.model.plan import steps_of
from rollout.model.playbook import Rollback, Watch
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers

SYNC2, CLIENT1 = WorkerId("sync2"), WorkerId("client1")
# Nobody is watched on here, who would notice that the release has turned bad for those before, too.
BLAMED = PLAYBOOK.model_copy(update={"rollback": Rollback(scope="blamed"), "watch": Watch(watch_s=0, window_s=1000)})


def _line(stage: Stage, step: str) -> int:
    """Find after how many events a step begins in a rollout that nobody disturbs."""
    rehearse(stage, stage.plan(PLAYBOOK))
    events = [event for _, event in stage.journal.events(DEPLOY)]
    return next(line for line, event in enumerate(events, 1) if isinstance(event, StepBegan) and event.step_id == step)


def test_a_pause_lets_the_worker_that_is_out_come_back_and_pass() -> None:
    """Pausing in mid-drain ends after that worker's turn, with everybody admitted and nobody else touched."""
    line = _line(seven_workers(), "client1/restart")
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan, speak={line: Command.PAUSE})
    assert (state.outcome, state.outcome_why) == (Outcome.PAUSED, "paused on request")
    assert [worker for worker, known in state.workers.items() if known.touched] == ["client1"]
    assert stage.world.workers[CLIENT1].runs == plan.to_release.id
    assert_safe(stage, plan, state)


def test_a_pause_ends_the_last_watch() -> None:
    """Nobody is out, and there is nothing to end first: whoever goes on watches anew."""
    line = _line(seven_workers(), "homeserver/watch")
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan, speak={line: Command.PAUSE})
    assert (state.outcome, state.outcome_why) == (Outcome.PAUSED, "paused on request")
    events = [event for _, event in stage.journal.events(DEPLOY)]
    began = next(event.at_s for event in events if isinstance(event, StepBegan) and event.step_id == "homeserver/watch")
    assert events[-1].at_s < began + 5
    assert all(known.touched for known in state.workers.values())
    assert_safe(stage, plan, state)


def test_continue_takes_a_pause_back() -> None:
    line = _line(seven_workers(), "client1/restart")
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan, speak={line: Command.PAUSE, line + 3: Command.CONTINUE})
    assert state.outcome is Outcome.DEPLOYED


def test_a_skipped_worker_is_left_as_it_is_and_named() -> None:
    line = _line(seven_workers(), "client1/restart")
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan, speak={line: (Command.SKIP, SYNC2)})
    assert state.outcome is Outcome.DEPLOYED
    assert state.outcome_why == "6 workers run 2.0.0; sync2 was skipped ()"
    assert stage.world.workers[SYNC2].runs == stage.old.id
    assert stage.world.cuts.get(SYNC2, 0) == 0


def test_skipping_one_does_not_let_those_after_it_begin_early() -> None:
    """The first worker still meets the release alone, and the last watch still begins when everybody else has passed."""
    line = _line(seven_workers(), "client1/restart")
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan, speak={line: (Command.SKIP, SYNC2)})
    turns = [event.step_id for _, event in stage.journal.events(DEPLOY) if isinstance(event, StepFinished)]
    planned = [step.id for step in steps_of(plan.phases) if step.worker != SYNC2]
    assert turns == planned


def test_a_worker_that_is_out_can_not_be_skipped() -> None:
    """Skipping it would leave it drained."""
    line = _line(seven_workers(), "client1/restart")
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan, speak={line: (Command.SKIP, CLIENT1)})
    assert state.outcome is Outcome.DEPLOYED
    assert stage.world.workers[CLIENT1].runs == plan.to_release.id
    assert_safe(stage, plan, state)


def test_only_who_is_blamed_goes_back_and_then_it_pauses() -> None:
    """client1 was well and keeps the new release; client2 failed, goes back, and a person decides about the rest."""
    stage = seven_workers()
    plan = stage.plan(BLAMED)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/restart":
            stage.world.erring[plan.to_release.id] = 0.3

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.PAUSED
    assert state.outcome_why.startswith("client2 is back on the old release, client1 not: client2 failed errors")
    assert stage.world.workers[WorkerId("client2")].runs == stage.old.id
    assert stage.world.workers[CLIENT1].runs == plan.to_release.id
    assert [event.blamed for _, event in stage.journal.events(DEPLOY) if isinstance(event, RollbackBegan)] == [("client2",)]
    assert_safe(stage, plan, state)


def test_when_everybody_touched_is_blamed_it_is_a_whole_roll_back() -> None:
    stage = seven_workers()
    plan = stage.plan(BLAMED)
    stage.world.erring[plan.to_release.id] = 0.3
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK
    assert_safe(stage, plan, state)
