"""Main's requests wait at the proxy while it restarts: on the simulated homeserver, with everything that may go wrong meanwhile."""

import pytest

from rollout.deciding.state import DeployState
from rollout.model.event import Command, EffectIntended, EffectSucceeded, Event, Outcome, StepBegan
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.plan import Verb
from rollout.simulation.performer import Durations, Fault
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
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


def _number_of(verb: Verb) -> EffectNumber:
    """Number main's effect in a rollout that nothing disturbs."""
    stage = seven_workers(held="main")
    rehearse(stage, stage.plan(SHORT))
    effects = [event.effect for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]
    return next(effect.number for effect in effects if (effect.worker, effect.verb) == (MAIN, verb))


def _verbs(stage: Stage) -> list[Verb]:
    """List what was done to main."""
    effects = [event.effect for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]
    return [effect.verb for effect in effects if effect.worker == MAIN]


@pytest.mark.parametrize("gone_s", [8.0, 11.0, 17.0, 19.0])
def test_what_is_left_of_a_hold_after_a_crash_is_enough_for_a_boot_or_it_is_held_anew(gone_s: float) -> None:
    """The proxy's bound ran on while nobody was there; what waited goes on, all of it, before main is held again and restarted."""
    reference, number = seven_workers(held="main"), _number_of(Verb.HOLD)
    rehearse(reference, reference.plan(SHORT))
    events = enumerate((event for _, event in reference.journal.events(DEPLOY)), 1)
    held = next(line for line, event in events if isinstance(event, EffectSucceeded) and event.number == number)
    stage = seven_workers(held="main")
    stage.world.let_go_per_s = 60.0
    plan = stage.plan(SHORT)
    state = rehearse(stage, plan, crash_after=(held,), nobody_for_s=gone_s)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    again = [] if gone_s < SHORT.strategy.hold.hold_s / 2 else [Verb.LET_GO, Verb.HOLD]
    assert _verbs(stage) == [Verb.HOLD, *again, Verb.RESTART, Verb.LET_GO]
    assert stage.world.cuts == {}
    assert_safe(stage, plan, state)


def test_a_restart_that_fails_late_is_tried_again_in_a_new_hold() -> None:
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    state = rehearse(stage, plan, faults={_number_of(Verb.RESTART): Fault.FAILS}, durations=Durations(restart_s=12.0))
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert _verbs(stage) == [Verb.HOLD, Verb.RESTART, Verb.LET_GO, Verb.HOLD, Verb.RESTART, Verb.LET_GO]
    assert stage.world.cuts == {}
    assert_safe(stage, plan, state)


def test_holding_anew_gives_a_restart_no_more_attempts() -> None:
    """What failed in one hold counts in the next."""
    stage = seven_workers(held="main")
    first = _number_of(Verb.RESTART)
    faults = {EffectNumber(first + later): Fault.FAILS for later in (0, 3, 6, 9)}
    state = rehearse(stage, stage.plan(SHORT), faults=faults, durations=Durations(restart_s=12.0))
    assert "main could not be restarted" in state.rollback_why
    assert _verbs(stage)[:5] == [Verb.HOLD, Verb.RESTART, Verb.LET_GO, Verb.HOLD, Verb.RESTART]
    assert stage.world.cuts == {}
    assert stage.world.holds == {}


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
