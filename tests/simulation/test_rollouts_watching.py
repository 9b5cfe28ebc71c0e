"""Who has been restarted must come back to its level, and is watched after it has passed: by whole rollouts of a simulated homeserver."""

import pytest

from rollout.deciding.state import DeployState, StepStatus
from rollout.gating.windows import WINDOWS_KEPT
from rollout.model.event import Event, Outcome, SamplesTaken, StepBegan, StepFinished, WaitBegan
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Verb, steps_of
from rollout.model.playbook import RecoveryEntry, Watch
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers


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
