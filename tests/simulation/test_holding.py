"""Main's requests wait at the proxy while it restarts: on the simulated homeserver, with everything that may go wrong meanwhile."""

import pytest

from rollout.deciding.state import DeployState
from rollout.model.event import Command, EffectIntended, Event, Outcome, StepBegan
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.plan import Verb
from rollout.simulation.performer import Fault
from rollout.simulation.rehearse import DEPLOY, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers
from tests.simulation.test_rollouts import assert_safe

MAIN = WorkerId("main")
SHORT = PLAYBOOK.model_copy(
    update={"strategy": PLAYBOOK.strategy.model_copy(update={"hold": PLAYBOOK.strategy.hold.model_copy(update={"hold_s": 20.0})})}
)


def test_nothing_is_cut_at_main_either() -> None:
    """Held, restarted, let go: the whole cluster is rolled and no request is cut anywhere."""
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert stage.world.cuts == {}
    assert stage.world.holds == {}
    effects = [event.effect for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]
    verbs = [effect.verb for effect in effects if effect.worker == MAIN]
    assert verbs == [Verb.HOLD, Verb.RESTART, Verb.LET_GO]
    assert_safe(stage, plan, state)


def test_without_a_hold_main_is_cut() -> None:
    """What the test above would see if nothing were held."""
    stage = seven_workers()
    assert rehearse(stage, stage.plan(SHORT)).outcome is Outcome.DEPLOYED
    assert stage.world.cuts[MAIN] > 0


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("verb", [Verb.HOLD, Verb.RESTART, Verb.LET_GO])
def test_a_fault_during_the_hold_is_survived(verb: Verb, fault: Fault) -> None:
    """An act that fails, or of which nothing is heard, is looked at and tried again; nothing stays held."""
    reference = seven_workers(held="main")
    rehearse(reference, reference.plan(SHORT))
    events = [event for _, event in reference.journal.events(DEPLOY)]
    number = next(
        event.effect.number
        for event in events
        if isinstance(event, EffectIntended) and (event.effect.worker, event.effect.verb) == (MAIN, verb)
    )
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    state = rehearse(stage, plan, faults={EffectNumber(number): fault})
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert stage.world.holds == {}
    assert stage.world.cuts == {}
    assert_safe(stage, plan, state)


def test_a_crash_at_any_moment_of_the_hold_is_taken_up() -> None:
    reference = seven_workers(held="main")
    rehearse(reference, reference.plan(SHORT))
    events = [event for _, event in reference.journal.events(DEPLOY)]
    began = next(line for line, event in enumerate(events, 1) if isinstance(event, StepBegan) and event.step_id == "main/hold")
    for line in range(began, len(events) - 2, 2):
        stage = seven_workers(held="main")
        plan = stage.plan(SHORT)
        state = rehearse(stage, plan, crash_after=(line,))
        assert state.outcome is Outcome.DEPLOYED, (line, state.outcome_why)
        assert stage.world.holds == {}
        assert stage.world.cuts == {}, line
        assert_safe(stage, plan, state)


@pytest.mark.parametrize("command", [Command.INTERRUPT, Command.ABORT, Command.ROLLBACK])
def test_a_word_during_the_hold_leaves_nothing_held(command: Command) -> None:
    reference = seven_workers(held="main")
    rehearse(reference, reference.plan(SHORT))
    events = [event for _, event in reference.journal.events(DEPLOY)]
    began = next(line for line, event in enumerate(events, 1) if isinstance(event, StepBegan) and event.step_id == "main/hold")
    for line in range(began, began + 14):
        stage = seven_workers(held="main")
        plan = stage.plan(SHORT)
        state = rehearse(stage, plan, speak={line: command})
        assert state.outcome is not Outcome.DEPLOYED, line
        assert stage.world.holds == {}
        assert stage.world.cuts == {}, line
        assert_safe(stage, plan, state)


def test_requests_that_do_not_end_are_let_go_and_nothing_is_restarted() -> None:
    """A request to main that outlasts its part of the hold's time ends the rollout safely, before anything is down."""
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    stage.world.held_ends_s = 1000.0
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.PAUSED
    assert "main could not be held: it still has 10 sessions after 6 s" in state.outcome_why
    assert stage.world.workers[MAIN].runs == stage.old.id
    assert stage.world.holds == {}
    assert stage.world.cuts == {}


def test_a_bad_release_of_main_is_rolled_back_held() -> None:
    """The way back holds main too: what the bad release answered is all that users see."""
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "main/hold":
            stage.world.erring[plan.to_release.id] = 0.3

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert stage.world.cuts == {}
    assert_safe(stage, plan, state)
