"""What rollouts take against what was forecast, and what happens when the time gets short: the real loop on a virtual clock."""

from dataclasses import dataclass, replace

import pytest

from rollout.deciding.decide import open_steps
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState, StepStatus
from rollout.deciding.time_left import too_late
from rollout.deciding.timings import NOBODY_THERE, times_of
from rollout.engine.survey import Surveyor
from rollout.engine.timings import forecast_by_history
from rollout.interfaces.report.score import score, score_text
from rollout.model.conditions import DatabaseConditions
from rollout.model.event import Command, Event, Outcome, StepBegan, StepFinished
from rollout.model.gate import GuardReading
from rollout.model.ids import DeployId, StepId, WorkerId
from rollout.model.plan import Guard, Plan
from rollout.model.sighting import SchemaSighting
from rollout.planning.forecast import DRAIN_S, total
from rollout.simulation.rehearse import Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

# Far from every assumption: long-polls and boots end sooner, and samples come slowly.
SESSION_LIFE_S = 11.0
BOOT_S = 2.0
REQUESTS_PER_S = 2.5


@dataclass(frozen=True, slots=True)
class _Rolled:
    """A restart of all seven workers."""

    plan: Plan
    state: DeployState
    events: list[Event]


def _restart(stage: Stage, number: int) -> _Rolled:
    stage.deploy_id = DeployId(f"restart {number}")
    seen = Surveyor(stage.drivers, stage.inventory, stage.clock).look(thorough=True)
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    plan = forecast_by_history(stage.drivers, stage.journal, plan, seen, stage.clock.now_s())
    state = rehearse(stage, plan)
    stage.old = plan.to_release
    return _Rolled(plan, state, [event for _, event in stage.journal.events(stage.deploy_id)])


def _unlike_what_is_assumed() -> Stage:
    stage = seven_workers()
    stage.world.session_life_s, stage.world.boot_s = SESSION_LIFE_S, BOOT_S
    for worker in stage.world.workers.values():
        worker.requests_per_s = REQUESTS_PER_S
    return stage


def test_the_third_rollout_is_forecast_by_the_first_two() -> None:
    """Without history what varies is a third off; after two rollouts, no two of them alike, it is right within a tenth."""
    stage = _unlike_what_is_assumed()
    rolled = []
    for number, factor in enumerate((0.85, 1.2, 1.0)):
        stage.world.session_life_s, stage.world.boot_s = factor * SESSION_LIFE_S, factor * BOOT_S
        rolled.append(_restart(stage, number))
    before, after = (score(one.plan, one.events) for one in (rolled[0], rolled[2]))
    assert before is not None
    assert after is not None
    assert before.variable.error is not None
    assert after.variable.error is not None
    assert after.whole.error is not None
    assert before.variable.error < -1 / 3
    assert 0 < abs(after.variable.error) < 1 / 10
    assert abs(after.whole.error) < 1 / 20
    assert after.whole.took_s <= after.p90_s


def test_each_kind_of_step_is_forecast_by_its_own_history() -> None:
    """Drains scale with the sessions of now, soaks with the rate of samples, and a baseline that is there needs no survey."""
    stage = _unlike_what_is_assumed()
    for number in range(2):
        _restart(stage, number)
    third = _restart(stage, 2)
    said, took = third.plan.forecast.steps, times_of(third.plan, third.events).steps
    for name in ("sync1/drain", "client1/soak", "main/await_healthy", "homeserver/survey", "client2/admit"):
        assert said[StepId(name)].mean_s == pytest.approx(took[StepId(name)].seconds, abs=2.0), name
    assert said[StepId("homeserver/survey")].mean_s < 1
    assert said[StepId("client1/soak")].mean_s > 1.5 * said[StepId("client1/soak")].fixed_s


def test_steps_add_up_to_the_whole_rollout() -> None:
    """Nothing is counted twice and nothing forgotten, so that the parts of a score are parts of one whole."""
    rolled = _restart(seven_workers(), 0)
    times = times_of(rolled.plan, rolled.events)
    assert sum(one.seconds for one in times.steps.values()) == pytest.approx(times.whole_s)
    assert times.whole_s == pytest.approx(rolled.events[-1].at_s - rolled.events[0].at_s)
    scored = score(rolled.plan, rolled.events)
    assert scored is not None
    assert scored.fixed.took_s + scored.variable.took_s == pytest.approx(scored.whole.took_s)
    assert sum(part.took_s for part in scored.parts.values()) == pytest.approx(scored.variable.took_s)


def test_who_was_skipped_is_no_fault_of_the_forecast() -> None:
    """Only what was done is compared with what was said of it."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    assert rehearse(stage, plan, speak={5: (Command.SKIP, WorkerId("client2"))}).outcome is Outcome.DEPLOYED
    scored = score(plan, [event for _, event in stage.journal.events(stage.deploy_id)])
    assert scored is not None
    turn_s = sum(one.mean_s for step, one in plan.forecast.steps.items() if step.startswith("client2/"))
    assert scored.whole.forecast_s == pytest.approx(plan.forecast.duration_s - turn_s, abs=0.01)


def test_what_nobody_was_there_for_is_left_out_and_named() -> None:
    """Two hours after a crash somebody resumes: the score is that of the rest, and the step that was cut in two teaches nothing."""
    stage = seven_workers()
    undisturbed = _restart(seven_workers(), 0)
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    state = rehearse(stage, plan, crash_after=(60,), nobody_for_s=7200)
    events = [event for _, event in stage.journal.events(stage.deploy_id)]
    assert state.outcome is Outcome.DEPLOYED
    times, scored = times_of(plan, events), score(plan, events)
    assert scored is not None
    assert times.left_out[NOBODY_THERE] == pytest.approx(7200, abs=5)
    whole_s = times_of(undisturbed.plan, undisturbed.events).whole_s
    # The worker that was out when it crashed is drained and soaked on a deadline of its own.
    assert scored.whole.took_s == pytest.approx(whole_s, abs=40)
    assert [one.step.id for one in times.steps.values() if one.disturbed]
    assert f"2 h of waiting ({NOBODY_THERE})" in score_text(scored)


def test_waiting_for_a_guard_is_left_out_and_named() -> None:
    """A database that is busy for a while is nobody's wrong forecast."""
    stage = seven_workers()
    plan = replace(stage.plan(PLAYBOOK, version=None, next_generation=True), guards=(Guard("lock_queue", 0, 900),))
    database = _BusyDatabase(stage, until_s=stage.clock.now_s() + 100)
    stage.drivers = replace(stage.drivers, database=database)
    assert rehearse(stage, plan).outcome is Outcome.DEPLOYED
    times = times_of(plan, [event for _, event in stage.journal.events(stage.deploy_id)])
    assert times.left_out["guard"] == pytest.approx(80, abs=15)
    assert sum(one.seconds for one in times.steps.values()) == pytest.approx(times.whole_s)


class _BusyDatabase:
    """Requests wait for locks until a moment."""

    def __init__(self, stage: Stage, until_s: float) -> None:
        self._stage = stage
        self._until_s = until_s

    def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
        del timeout_s
        return (GuardReading("lock_queue", 5.0 if self._stage.clock.now_s() < self._until_s else 0.0),)

    def schema(self, timeout_s: float) -> SchemaSighting:
        del timeout_s
        return SchemaSighting(94, 84, ())

    def active_users(self, limit: int, timeout_s: float) -> tuple[str, ...]:
        del limit, timeout_s
        return ()

    def conditions(self, older_than_s: float, timeout_s: float) -> DatabaseConditions:
        del older_than_s, timeout_s
        return DatabaseConditions()


def test_a_worker_is_not_begun_with_when_the_window_would_end_first() -> None:
    """It pauses between two workers: what is out comes back and is seen to be well, and the next one is never drained."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    # Every step takes as long as was forecast, so that time enough for half of it is too little after a third or so.
    steps = {name: replace(one, p90_s=one.mean_s) for name, one in plan.forecast.steps.items()}
    plan = replace(plan, forecast=replace(plan.forecast, steps=steps))
    stage.world.session_life_s = 3 * DRAIN_S / 2
    stage.end_by_s = stage.clock.now_s() + total(plan.phases, steps).mean_s
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.PAUSED
    assert "the rest takes up to" in state.outcome_why
    assert all(worker.admitted and worker.weight == 100 for worker in stage.world.workers.values())
    touched = {worker for worker, known in state.workers.items() if known.touched}
    assert 0 < len(touched) < len(plan.workers)
    assert all(state.steps[StepId(f"{worker}/soak")].status is StepStatus.DONE for worker in touched)
    began = {event.step_id for _, event in stage.journal.events(stage.deploy_id) if isinstance(event, StepBegan)}
    assert {step for step in began if step.split("/")[0] in {*plan.from_releases} - touched} == set()


def test_the_last_watch_is_kept_however_late_it_is() -> None:
    """Who has been restarted is watched on: that a window has ended meanwhile is no reason to look away. One worker earlier it is."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    assert rehearse(stage, plan).outcome is Outcome.DEPLOYED
    last_but_one, last = (wave.workers[-1] for phase in plan.phases[-3:-1] for wave in phase.waves[-1:])
    state, late = start(plan), {}
    for _, event in stage.journal.events(stage.deploy_id):
        state = fold(plan, state, event)
        if isinstance(event, StepBegan | StepFinished):
            overdue = replace(state, end_by_s=event.at_s - 1)
            late[type(event), event.step_id] = too_late(plan, overdue, open_steps(plan, overdue), event.at_s)
    assert late[StepFinished, StepId(f"{last_but_one}/soak")].startswith("its window has ended")
    # Begun with, it is brought to its end.
    assert late[StepBegan, StepId(f"{last}/restart")] == ""
    assert late[StepFinished, StepId(f"{last}/await_healthy")] == ""
    assert late[StepFinished, StepId(f"{last}/soak")] == ""


def test_without_a_window_nothing_is_ever_too_late() -> None:
    """Plans of before there were windows run as they did."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK, version=None, next_generation=True)
    assert plan.windows is None
    assert rehearse(stage, plan).outcome is Outcome.DEPLOYED
