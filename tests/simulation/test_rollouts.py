"""Whole rollouts of a simulated homeserver by the real loop: what must come out, and what must never happen on the way."""

import pytest

from rollout.deciding.state import DeployState
from rollout.model.effect import Effect
from rollout.model.event import Command, DeployFinished, EffectIntended, Event, Outcome, StepBegan, WaitBegan
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.plan import Verb
from rollout.simulation.faults import Fault
from rollout.simulation.performer import Durations
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import REPLACEABLE, assert_safe
from tests.simulation.stages import PLAIN_FAULTS, PLAYBOOK, seven_workers


def test_a_good_release_is_deployed_and_nothing_is_cut() -> None:
    """Seven workers end on the new release, one out at a time, and main, which is not drained yet, is the only one that cuts."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan)
    assert (state.outcome, state.outcome_why) == (Outcome.DEPLOYED, "7 workers run 2.0.0")
    assert_safe(stage, plan, state)
    assert plan.to_release.id in stage.world.migrated


def test_a_restart_restarts_every_worker() -> None:
    """The same version in the next generation is a release too: every process is a new one."""
    stage = seven_workers()
    began_at_s = stage.clock.now_s()
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED
    assert all((worker.started_at_s or 0) > began_at_s for worker in stage.world.workers.values())
    assert stage.world.migrated == set()


def test_a_release_that_exits_at_start_is_rolled_back_from_the_canary() -> None:
    """One worker is touched, and it ends where it was."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    stage.world.never_boots.add(plan.to_release.id)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK
    assert [worker for worker, known in state.workers.items() if known.touched] == [plan.phases[3].waves[0].workers[0]]
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("trouble", ["hangs", "slow", "erring"])
def test_a_bad_release_is_rolled_back_from_the_canary(trouble: str) -> None:
    """Hanging is seen by the boot, slowness and errors by the gates."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"canary": WorkerId("client1")})}))
    bad: ReleaseId = plan.to_release.id
    if trouble == "hangs":
        stage.world.hangs.add(bad)
    elif trouble == "slow":
        stage.world.slow.add(bad)
    else:
        stage.world.erring[bad] = 0.2
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert [worker for worker, known in state.workers.items() if known.touched] == ["client1"]
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("moment", ["restart", "soak"])
def test_a_metrics_outage_pauses_and_neither_passes_nor_rolls_back(moment: str) -> None:
    """No data is not health: the rollout stops safe on the new release's canary, resumable, whether the outage begins at boot or later."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"canary": WorkerId("client1")})}))

    def darken(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == f"client1/{moment}":
            stage.world.dark.add(WorkerId("client1"))

    state = rehearse(stage, plan, listeners=(darken,))
    assert state.outcome is Outcome.PAUSED, state.outcome_why
    assert_safe(stage, plan, state)


def test_a_foreign_drain_in_mid_rollout_stops_the_next_one() -> None:
    """A worker that somebody else took out counts as out: its sibling is not drained, the reason is said, and it is not admitted by us."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    stage.world.workers[WorkerId("sync2")].admitted = False
    canary = plan.phases[3].waves[0].workers[0]
    other = WorkerId("sync1") if canary != "sync1" else canary
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.PAUSED
    assert not stage.world.workers[WorkerId("sync2")].admitted
    whys = [event.why for _, event in stage.journal.events(DEPLOY) if isinstance(event, WaitBegan)]
    assert any(f"{other} may not go down" in why and "drained by somebody else" in why for why in whys)


def test_a_worker_that_somebody_drains_before_its_turn_stays_drained() -> None:
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)

    def drain_by_hand(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client1/soak":
            stage.world.drain(WorkerId("client2"))

    state = rehearse(stage, plan, listeners=(drain_by_hand,))
    assert (state.outcome, state.outcome_why) == (Outcome.PAUSED, "client2 was drained by somebody else")
    assert not stage.world.workers[WorkerId("client2")].admitted


def test_a_restart_in_doubt_is_settled_by_what_is_seen_after_the_doubt() -> None:
    """While a slow restart is under way its worker is seen on the old release: that says nothing about how it ended."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan)
    restarts = [effect.number for effect in intended(stage) if (effect.verb, effect.worker) == (Verb.RESTART, "main")]
    again = seven_workers()
    state = rehearse(again, again.plan(PLAYBOOK), faults={restarts[0]: Fault.UNKNOWN_DONE}, durations=Durations(restart_s=3.0))
    assert state.outcome is Outcome.DEPLOYED
    assert [effect.number for effect in intended(again) if (effect.verb, effect.worker) == (Verb.RESTART, "main")] == restarts


def test_a_worker_that_dies_again_and_again_is_never_alive_for_long() -> None:
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    sender = stage.world.workers[WorkerId("fedsender1")]

    def die_soon(event: Event, _state: DeployState) -> None:
        del event
        now_s = stage.clock.now_s()
        if sender.runs == plan.to_release.id and sender.started_at_s is not None and now_s - sender.started_at_s > stage.world.boot_s + 4:
            sender.started_at_s = now_s

    state = rehearse(stage, plan, listeners=(die_soon,))
    assert state.outcome in {Outcome.PAUSED, Outcome.ROLLED_BACK}, state.outcome_why


def test_an_effect_that_is_still_in_doubt_at_the_end_is_named() -> None:
    """A restart that never comes to an end: nobody can say what became of the worker, so this is no safe stop."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)

    state = rehearse(stage, plan, durations=Durations(restart_s=1e6))
    assert state.outcome is Outcome.HALTED
    assert "could not be brought back" in state.outcome_why


def test_a_roll_back_that_is_interrupted_cuts_nobody() -> None:
    """The worker on its way back still has sessions when the signal comes."""
    stage = seven_workers()
    rehearse(stage, stage.plan(PLAYBOOK))
    asked = next(
        number for number, event in stage.journal.events(DEPLOY) if isinstance(event, StepBegan) and event.step_id == "client1/soak"
    )
    going_back = seven_workers()
    rehearse(going_back, going_back.plan(PLAYBOOK), speak={asked: Command.ROLLBACK})
    drained = next(
        number
        for number, event in going_back.journal.events(DEPLOY)
        if number > asked and isinstance(event, EffectIntended) and event.effect.verb is Verb.DRAIN
    )
    interrupted = seven_workers()
    plan = interrupted.plan(PLAYBOOK)
    state = rehearse(interrupted, plan, speak={asked: Command.ROLLBACK, drained + 2: Command.INTERRUPT})
    assert state.outcome in {Outcome.INTERRUPTED, Outcome.HALTED}
    assert_safe(interrupted, plan, state)


def intended(stage: Stage) -> list[Effect]:
    """List the effects of a rollout."""
    return [event.effect for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]


@pytest.mark.parametrize("fault", PLAIN_FAULTS)
@pytest.mark.parametrize("number", range(1, 32, 3))
def test_one_fault_anywhere_is_survived(fault: Fault, number: int) -> None:
    """An effect that fails, or of which nothing is heard, is tried again or observed; the rollout still ends in truth."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    state = rehearse(stage, plan, faults={EffectNumber(number): fault})
    # A migration that failed is never repeated without a person.
    expected = Outcome.PAUSED if (fault, number) == (Fault.FAILS, 2) else Outcome.DEPLOYED
    assert state.outcome is expected, state.outcome_why
    assert_safe(stage, plan, state)


def test_a_crash_at_every_line_of_the_journal_is_resumed_to_the_same_end() -> None:
    """SIGKILL after any event, then resume: deployed, nothing of ours left out, nothing cut."""
    reference = seven_workers()
    rehearse(reference, reference.plan(PLAYBOOK))
    lines = len(reference.journal.events(DEPLOY))
    for line in range(1, lines, 9):
        stage = seven_workers()
        plan = stage.plan(PLAYBOOK)
        state = rehearse(stage, plan, crash_after=(line,))
        assert state.outcome is Outcome.DEPLOYED, (line, state.outcome_why)
        assert_safe(stage, plan, state)


@pytest.mark.parametrize("command", list(Command))
def test_a_word_at_any_time_leaves_nothing_out(command: Command) -> None:
    """Whatever is said, and whenever, ends in what it promises."""
    reference = seven_workers()
    rehearse(reference, reference.plan(PLAYBOOK))
    lines = len(reference.journal.events(DEPLOY))
    allowed = {
        Command.ABORT: {Outcome.ABORTED, Outcome.HALTED},
        Command.ROLLBACK: {Outcome.ROLLED_BACK_ON_REQUEST},
        Command.INTERRUPT: {Outcome.INTERRUPTED},
        # Said when the last worker's turn is over, there is nothing left to pause.
        Command.PAUSE: {Outcome.PAUSED, Outcome.DEPLOYED},
        Command.CONTINUE: {Outcome.DEPLOYED},
        Command.SKIP: {Outcome.DEPLOYED},
    }
    for line in range(3, lines - 5, 7):
        stage = seven_workers()
        plan = stage.plan(PLAYBOOK)
        state = rehearse(stage, plan, speak={line: command})
        assert state.outcome in allowed[command], (line, state.outcome_why)
        assert all(worker.admitted and worker.started_at_s is not None for worker in stage.world.workers.values())
        assert all(stage.world.cuts.get(worker, 0) == 0 for worker in REPLACEABLE)


def test_effects_are_numbered_in_the_order_of_their_intents_and_each_restart_follows_its_drain() -> None:
    """A replaceable worker is never restarted unless its drain came first."""
    stage = seven_workers()
    rehearse(stage, stage.plan(PLAYBOOK))
    effects = [event.effect for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]
    assert [effect.number for effect in effects] == sorted({effect.number for effect in effects})
    for worker in REPLACEABLE:
        verbs = [effect.verb for effect in effects if effect.worker == worker]
        assert verbs[:2] == [Verb.DRAIN, Verb.RESTART]
        assert verbs[2:] == [Verb.ADMIT] * len(verbs[2:])


def test_the_same_script_gives_the_same_journal() -> None:
    """Nothing but the script decides."""
    journals = []
    for _ in range(2):
        stage = seven_workers()
        rehearse(stage, stage.plan(PLAYBOOK), faults={EffectNumber(4): Fault.UNKNOWN_DONE}, crash_after=(60,))
        journals.append(stage.journal.events(DEPLOY))
    assert journals[0] == journals[1]
    assert isinstance(journals[0][-1][1], DeployFinished)
