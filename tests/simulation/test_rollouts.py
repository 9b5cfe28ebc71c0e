"""Whole rollouts of a simulated homeserver by the real loop: what must come out, and what must never happen on the way."""

import itertools
from typing import TypeGuard

import pytest

from rollout.deciding.state import DeployState, StepStatus
from rollout.gating.windows import WINDOWS_KEPT
from rollout.model.effect import Effect
from rollout.model.event import Command, DeployFinished, EffectIntended, Event, Outcome, SamplesTaken, StepBegan, StepFinished, WaitBegan
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Plan, Verb, steps_of
from rollout.model.playbook import Capacity, Playbook, RecoveryEntry, Strategy, Watch
from rollout.simulation.faults import Fault
from rollout.simulation.performer import Durations
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.stages import PLAIN_FAULTS, PLAYBOOK, seven_workers

REPLACEABLE = (WorkerId("sync1"), WorkerId("sync2"), WorkerId("client1"), WorkerId("client2"))


def assert_safe(stage: Stage, plan: Plan, state: DeployState) -> None:
    """What holds after every rollout, however it ended."""
    assert all(stage.world.cuts.get(worker, 0) == 0 for worker in REPLACEABLE), stage.world.cuts
    assert stage.world.out_at_once_max <= 1
    if state.outcome is not Outcome.HALTED:
        assert all(worker.admitted and worker.weight == 100 for worker in stage.world.workers.values())
        assert stage.drivers.ledger.marks() == {}
    if state.outcome is Outcome.DEPLOYED:
        assert {worker.runs for worker in stage.world.workers.values()} == {plan.to_release.id}
    if state.outcome in {Outcome.ROLLED_BACK, Outcome.ROLLED_BACK_ON_REQUEST}:
        assert {worker.runs for worker in stage.world.workers.values()} == {stage.old.id}


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


def _with_strategy(**changes: object) -> Playbook:
    strategy = PLAYBOOK.strategy.model_dump() | changes
    return PLAYBOOK.model_copy(update={"strategy": Strategy.model_validate(strategy)})


def test_a_ramp_by_utilisation_gives_a_cold_worker_its_traffic_back_in_small_steps() -> None:
    """A cold worker, four times as dear at first, is never given more than it bears, and has all of it in the end."""
    stage = seven_workers()
    stage.world.request_cpu_s, stage.world.cold_factor, stage.world.cold_s = 0.02, 4.0, 60.0
    playbook = _with_strategy(ramp={"weights": [10, 100], "step_s": 4, "utilisation_max": 0.7})
    # Two of .4 each: what one has to bear alone is not what is asked here.
    plan = stage.plan(playbook.model_copy(update={"capacity": Capacity(utilisation_max=1.0, p95_ratio_max=None)}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    weights = [
        event.effect.weight
        for _, event in stage.journal.events(DEPLOY)
        if isinstance(event, EffectIntended) and (event.effect.verb, event.effect.worker) == (Verb.ADMIT, WorkerId("sync1"))
    ]
    assert weights[0] == 10
    assert weights[-1] == 100
    assert len(weights) > 4, weights
    assert all(later <= 2 * earlier + 5 for earlier, later in itertools.pairwise(weights)), weights
    assert_safe(stage, plan, state)


def test_the_way_down_moves_users_in_parts() -> None:
    """Half of the weight first, then the drain; and the users that move are counted."""
    stage = seven_workers()
    plan = stage.plan(_with_strategy(ramp={"weights": [50, 100], "step_s": 3, "down": [50]}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    drains = [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "sync1")]
    assert drains == [50, 0]
    assert state.workers[WorkerId("sync1")].users_moved == 10
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("trouble", ["hangs", "never_boots"])
def test_the_way_down_never_admits_who_is_out_or_dead(trouble: str) -> None:
    """client1 is drained and doesn't come up: on the way back there is nothing to move in parts, and half a weight would cut requests."""
    stage = seven_workers()
    plan = stage.plan(_with_strategy(canary="client1", ramp={"weights": [10, 50, 100], "step_s": 3, "down": [50]}))
    (stage.world.hangs if trouble == "hangs" else stage.world.never_boots).add(plan.to_release.id)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    drains = [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "client1")]
    assert drains == [50, 0, 0]
    assert_safe(stage, plan, state)


def test_the_way_down_never_admits_who_was_left_out_and_stopped() -> None:
    """An earlier rollout was killed when client1 was drained and stopped; this one takes it as it is."""
    stage = seven_workers()
    client1 = WorkerId("client1")
    with stage.drivers.ledger.fence(Effect(EffectNumber(1), StepId("client1/drain"), Verb.DRAIN, client1, stage.old.id, 0.0)):
        stage.world.drain(client1)
    stage.clock.advance_to(stage.clock.now_s() + 30)
    stage.world.stop(client1)
    plan = stage.plan(_with_strategy(ramp={"weights": [50, 100], "step_s": 3, "down": [50]}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "client1")] == [0]
    assert_safe(stage, plan, state)


def test_the_way_down_begins_below_the_weight_that_a_worker_has() -> None:
    """client1 has a tenth of its weight when it is taken back: it isn't raised to a half on its way out."""
    stage = seven_workers()
    plan = stage.plan(_with_strategy(canary="client1", ramp={"weights": [10, 100], "step_s": 60, "down": [50, 5]}))
    lines: list[int] = []

    def find(_event: Event, state: DeployState) -> None:
        if state.steps[StepId("client1/admit")].weights_applied == 1:
            lines.append(len(stage.journal.events(DEPLOY)))

    rehearse(stage, plan, listeners=(find,))
    stage = seven_workers()
    state = rehearse(stage, plan, speak={lines[0] + 4: Command.ROLLBACK})
    assert state.outcome is Outcome.ROLLED_BACK_ON_REQUEST, state.outcome_why
    drains = [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "client1")]
    assert drains == [50, 5, 0, 5, 0]
    assert_safe(stage, plan, state)


def _is_drain_of(event: Event, worker: str) -> TypeGuard[EffectIntended]:
    return isinstance(event, EffectIntended) and (event.effect.verb, event.effect.worker) == (Verb.DRAIN, worker)


def test_a_worker_that_does_not_come_back_to_its_level_is_rolled_back() -> None:
    """Its gates see nothing (they look at other things), but every request costs it three times what it did, and that does not pass."""
    stage = seven_workers()
    recovery = RecoveryEntry(recovery_s=20, level_ratio_max=1.5, deadline_s=60)
    plan = stage.plan(PLAYBOOK.model_copy(update={"recovery": recovery, "watch": Watch(watch_s=0, window_s=6)}))
    stage.world.cold_factor, stage.world.cold_s = 3.0, 800.0
    state = rehearse(stage, plan)
    assert state.outcome is not Outcome.DEPLOYED
    assert "client1 failed recovery" in state.rollback_why
    assert stage.world.workers[WorkerId("client1")].runs == stage.old.id


def test_a_slow_recovery_that_goes_on_is_waited_for() -> None:
    """The cold start outlasts recovery_s, but each window is better than the one before."""
    stage = seven_workers()
    recovery = RecoveryEntry(recovery_s=10, level_ratio_max=1.5, deadline_s=120)
    plan = stage.plan(PLAYBOOK.model_copy(update={"recovery": recovery, "watch": Watch(watch_s=0, window_s=6)}))
    stage.world.cold_factor, stage.world.cold_s = 4.0, 50.0
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)


WATCHED = PLAYBOOK.model_copy(update={"watch": Watch(watch_s=60, window_s=6)})


@pytest.mark.parametrize("turns_at", ["sync2/drain", "watch"])
def test_a_release_that_turns_bad_after_it_has_passed_is_found_by_the_watch(turns_at: str) -> None:
    """client1 passed long ago; while others are rolled, or when all are, it gets slow, and two windows in a row show it."""
    stage = seven_workers()
    plan = stage.plan(WATCHED)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id.endswith(turns_at):
            stage.world.slow.add(plan.to_release.id)

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert "had passed, but then failed latency" in state.rollback_why
    assert_safe(stage, plan, state)


def test_a_release_that_gets_slow_once_both_of_a_pool_run_it_is_found_at_the_second() -> None:
    """client1 was quick beside the old release. When client2 soaks both are slow, and the one is no excuse for the other."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/soak":
            stage.world.slow.add(plan.to_release.id)

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert state.rollback_why.startswith("client2 failed latency: "), state.rollback_why
    assert_safe(stage, plan, state)


def test_one_bad_window_is_no_alarm() -> None:
    """What is over before the second window ends was a hiccup."""
    stage = seven_workers()
    plan = stage.plan(WATCHED)
    measured_s: list[float] = []
    watch = next(step.id for step in steps_of(plan.phases) if step.verb is Verb.WATCH)

    def hiccup(event: Event, state: DeployState) -> None:
        # From one measurement to the next: so it is in one window of each, whenever that began.
        if isinstance(event, SamplesTaken) and state.steps[watch].status is StepStatus.ACTIVE:
            measured_s.append(event.at_s)
            stage.world.slow = {plan.to_release.id} if len(measured_s) == 1 else set()

    state = rehearse(stage, plan, listeners=(hiccup,))
    assert len(measured_s) > 1
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why


def _quiet(requests_per_s: float, watch_s: float) -> tuple[Stage, Plan]:
    """Set a stage on which a window of the watch's length holds fewer requests than a gate asks for, and plan with patience."""
    stage = seven_workers()
    for worker in stage.world.workers.values():
        worker.requests_per_s = requests_per_s
    patient = {
        "strategy": PLAYBOOK.strategy.model_copy(update={"progress_deadline_s": 2000.0}),
        "gates": tuple(gate.model_copy(update={"deadline_s": 600.0}) for gate in PLAYBOOK.gates),
        "watch": Watch(watch_s=watch_s, window_s=8),
    }
    return stage, stage.plan(PLAYBOOK.model_copy(update=patient))


def test_a_watch_with_little_traffic_looks_longer_and_still_sees() -> None:
    """Forty requests in a window, where fifty are needed: with windows that don't grow, nine errors in ten would pass for health."""
    stage, plan = _quiet(requests_per_s=5.0, watch_s=300)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id.endswith("watch"):
            stage.world.erring[plan.to_release.id] = 0.9

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert "had passed, but then failed errors: share of 5xx is 90 %" in state.rollback_why
    assert_safe(stage, plan, state)


def test_what_the_watch_could_not_see_is_said_and_not_called_well() -> None:
    """Two windows of fifty requests don't end in 20 s at two a second."""
    stage, plan = _quiet(requests_per_s=2.0, watch_s=20)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    gates = "errors (client1, client2, sync1, sync2, main), latency (client1, client2, main)"
    assert state.outcome_why == f"7 workers run 2.0.0; the last watch had too little to rule twice on {gates}"
    ends = [event.why for _, event in stage.journal.events(DEPLOY) if isinstance(event, StepFinished) and event.step_id.endswith("watch")]
    assert ends == [f"nothing has shown whether those who had passed still do: too little came to rule twice on {gates}"]


def test_who_fails_as_the_watch_ends_is_watched_until_another_window_shows_whether_that_lasts() -> None:
    stage = seven_workers()
    plan = stage.plan(WATCHED)
    turned_s: list[float] = []

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id.endswith("watch"):
            turned_s.append(stage.clock.now_s() + plan.watch.watch_s - plan.watch.window_s - 2)
        elif turned_s and stage.clock.now_s() >= turned_s[0]:
            stage.world.erring[plan.to_release.id] = 0.9

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert any("at the end of the watch" in event.why for _, event in stage.journal.events(DEPLOY) if isinstance(event, WaitBegan))


def test_what_is_watched_for_long_takes_no_more_room() -> None:
    stage, plan = _quiet(requests_per_s=5.0, watch_s=2000)
    state = rehearse(stage, plan)
    assert {len(windows) for known in state.workers.values() for windows in known.watched.values()} == {WINDOWS_KEPT}


def test_a_watch_may_last_longer_than_anything_else_may_take() -> None:
    """No step finishes while everybody is watched, and that is not being stuck."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK.model_copy(update={"watch": Watch(watch_s=PLAYBOOK.strategy.progress_deadline_s + 50, window_s=8)}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
