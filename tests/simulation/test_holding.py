"""Main's requests wait at the proxy while it restarts: on the simulated homeserver, with everything that may go wrong meanwhile."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollout.deciding.state import DeployState
from rollout.engine.survey import Surveyor
from rollout.interfaces.narrate import narrate
from rollout.interfaces.report.accounts import summarise
from rollout.interfaces.report.progress import under_way
from rollout.model.event import (
    Command,
    DeployBegan,
    EffectIntended,
    EffectSucceeded,
    Event,
    Outcome,
    SamplesTaken,
    StepBegan,
    StepFinished,
    WaitBegan,
)
from rollout.model.ids import EffectNumber, Role, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.planning.planner import make_plan
from rollout.simulation.faults import Fault
from rollout.simulation.performer import Durations
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAIN_FAULTS, PLAYBOOK, seven_workers

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


@pytest.mark.parametrize("fault", PLAIN_FAULTS)
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
    effects = [event.effect for event in _undisturbed() if isinstance(event, EffectIntended)]
    return next(effect.number for effect in effects if (effect.worker, effect.verb) == (MAIN, verb))


def _undisturbed() -> list[Event]:
    stage = seven_workers(held="main")
    rehearse(stage, stage.plan(SHORT))
    return [event for _, event in stage.journal.events(DEPLOY)]


def _verbs(stage: Stage) -> list[Verb]:
    """List what was done to main."""
    effects = [event.effect for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]
    return [effect.verb for effect in effects if effect.worker == MAIN]


@pytest.mark.parametrize("gone_s", [8.0, 11.0, 17.0, 19.0])
def test_what_is_left_of_a_hold_after_a_crash_is_enough_for_a_boot_or_it_is_held_anew(gone_s: float) -> None:
    """The proxy's bound ran on while nobody was there; what waited goes on, all of it, before main is held again and restarted."""
    number = _number_of(Verb.HOLD)
    held = next(line for line, event in enumerate(_undisturbed(), 1) if isinstance(event, EffectSucceeded) and event.number == number)
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
    told = [narrate(event, plan) or "" for _, event in stage.journal.events(DEPLOY)]
    assert any("letting go" in line and line.endswith("s of its hold are left, so it is held anew") for line in told)
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


def _then(verb: Verb, happen: Callable[[Stage], None], stage: Stage) -> Callable[[Event, DeployState], None]:
    """Let something happen once main's first effect of that kind is done."""
    number = _number_of(verb)

    def listen(event: Event, _state: DeployState) -> None:
        if isinstance(event, EffectSucceeded) and event.number == number:
            happen(stage)

    return listen


def _rush(stage: Stage) -> None:
    stage.world.workers[MAIN].requests_per_s = 1000.0


def test_what_a_hold_refuses_is_said_with_the_outcome_and_in_the_accounts() -> None:
    """A burst while main is held: users get 503s that are nobody's cut."""
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    state = rehearse(stage, plan, listeners=(_then(Verb.HOLD, _rush, stage),))
    shed = stage.world.hold_of("main").shed
    assert shed > 1000
    assert state.outcome is Outcome.DEPLOYED
    assert state.outcome_why == f"7 workers run 2.0.0; while main was held, {shed} requests were refused (503), because too many waited"
    events = [event for _, event in stage.journal.events(DEPLOY)]
    account = summarise(plan, events).workers[MAIN]
    assert (account.shed, account.let_go_late, account.waiting_max) == (shed, 0, SHORT.strategy.hold.hold_max)
    assert account.held_s > 0
    let_go = next(event for event in events if isinstance(event, StepFinished) and event.step_id == "main/let_go")
    assert f"1000 at the most); {shed} requests were refused (503)" in (narrate(let_go, plan) or "")


def test_what_the_proxy_lets_go_by_itself_is_said_with_the_outcome_and_in_the_accounts() -> None:
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    stage.world.held_ends_s = 1000.0
    number = _number_of(Verb.HOLD)
    held = next(line for line, event in enumerate(_undisturbed(), 1) if isinstance(event, EffectSucceeded) and event.number == number)
    state = rehearse(stage, plan, crash_after=(held,), nobody_for_s=21.0)
    assert state.outcome is Outcome.PAUSED
    assert state.outcome_why.endswith("while main was held, 400 were let go by the proxy itself, because its time was up")
    account = summarise(plan, [event for _, event in stage.journal.events(DEPLOY)]).workers[MAIN]
    assert (account.shed, account.let_go_late) == (0, 400)


def test_whoever_asks_main_is_measured_while_it_has_its_turn_alone() -> None:
    """What fails between workers is counted where it is asked: at the others, who are not rolled themselves."""
    stage = seven_workers(held="main")
    seen = Surveyor(stage.drivers, stage.inventory, stage.clock).look(thorough=True)
    release = stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False)
    plan = make_plan(SHORT, stage.inventory, seen, release, only=Role("main"))
    measured: dict[StepId, set[WorkerId]] = {}

    def note(event: Event, state: DeployState) -> None:
        if isinstance(event, SamplesTaken):
            for step in under_way(plan, state):
                measured.setdefault(step.id, set()).update(event.measured.tallies)

    state = rehearse(stage, plan, listeners=(note,))
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    for verb in ("await_healthy", "soak"):
        assert measured[StepId(f"main/{verb}")] >= set(stage.world.workers) - {MAIN}, verb


def test_what_failed_between_workers_counts_until_the_measurement_after_the_hold() -> None:
    """The interval in which main was let go began while it was still held."""
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    rehearse(stage, plan)
    events = [event for _, event in stage.journal.events(DEPLOY)]
    number = _number_of(Verb.LET_GO)
    let_go_s = next(event.at_s for event in events if isinstance(event, EffectSucceeded) and event.number == number)
    last = next(event for event in events if isinstance(event, SamplesTaken) and event.at_s > let_go_s)
    sync1 = WorkerId("sync1")
    failed = replace(last.measured.tallies[sync1], replication_failures=3.0)
    assert failed.since_s < let_go_s < failed.until_s
    told = [replace(event, measured=replace(event.measured, tallies={sync1: failed})) if event is last else event for event in events]
    assert summarise(plan, told).workers[MAIN].replication_failures == 3


@pytest.mark.parametrize("quiet_again", [True, False])
def test_a_hold_is_reckoned_anew_before_it_begins(*, quiet_again: bool) -> None:
    """The plan was made in a quiet hour; what comes now would pile up beyond the bound, so main isn't held before it is quiet again."""
    stage = seven_workers(held="main")
    plan = stage.plan(SHORT)
    waited: list[str] = []

    def turn(event: Event, _state: DeployState) -> None:
        if isinstance(event, DeployBegan):
            stage.world.workers[MAIN].requests_per_s = 100.0
        if isinstance(event, WaitBegan) and "a hold could pile up" in event.why:
            waited.append(event.why)
            stage.world.workers[MAIN].requests_per_s = 20.0 if quiet_again else 100.0

    state = rehearse(stage, plan, listeners=(turn,))
    assert waited == [
        "main: a hold could pile up 2 × 100 requests a second × hold_s of 20 s = 4000, and hold_max is 1000: the others would be refused"
    ]
    assert state.outcome is (Outcome.DEPLOYED if quiet_again else Outcome.PAUSED), state.outcome_why
    assert (Verb.HOLD in _verbs(stage)) is quiet_again
    assert stage.world.cuts == {}
    assert stage.world.hold_of("main").shed == 0


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
