"""Who is told what of a rollout, and that telling never holds one up."""

import threading
import time

import pytest

from rollout.adapters.clock.system import SystemClock
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState
from rollout.engine.run import Listener
from rollout.interfaces import pager as pager_module
from rollout.interfaces.pager import Pager
from rollout.interfaces.paging import WAIT_TOO_LONG_S, Pages
from rollout.model.errors import TransientDriverError
from rollout.model.event import Command, Event, Outcome, SamplesTaken, StepBegan, WaitBegan
from rollout.model.gate import Measured
from rollout.model.ids import WorkerId
from rollout.model.playbook import Baseline, Playbook, Ramp, Watch
from rollout.planning.planner import SURVEY_STEP
from rollout.ports.notifier import Page, Severity
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.contracts.proxy import until
from tests.simulation.stages import PLAYBOOK, seven_workers


class Recorder:
    """A notifier that keeps what it is told, or hangs, or fails."""

    def __init__(self, trouble: str = "") -> None:
        self.pages: list[Page] = []
        self.beats = 0
        self._trouble = trouble
        self.released = threading.Event()

    def tell(self, page: Page, timeout_s: float) -> None:
        if self._trouble == "hangs":
            self.released.wait(timeout_s)
            raise TransientDriverError("no answer in time")
        if self._trouble == "fails":
            raise TransientDriverError("it answered 500")
        if self._trouble == "breaks":
            raise ZeroDivisionError
        self.pages.append(page)

    def beat(self, timeout_s: float) -> None:
        del timeout_s
        self.beats += 1


def _told(stage: Stage, *listeners: Listener) -> list[tuple[str, Severity]]:
    plan = stage.plan(PLAYBOOK)
    recorder = Recorder()
    with Pager(recorder, Pages(DEPLOY, plan), SystemClock()) as pager:
        rehearse(stage, plan, listeners=(pager, *listeners))
    assert pager.untold() == ()
    return [(page.kind, page.severity) for page in recorder.pages]


def test_a_good_rollout_begins_and_ends() -> None:
    assert _told(seven_workers()) == [("began", Severity.INFO), ("finished", Severity.INFO)]


def test_a_bad_one_is_told_at_each_turn() -> None:
    stage = seven_workers()
    stage.world.erring[stage.plan(PLAYBOOK).to_release.id] = 0.3
    assert _told(stage) == [
        ("began", Severity.INFO),
        ("gate_failed", Severity.WARNING),
        ("rolling_back", Severity.WARNING),
        ("finished", Severity.WARNING),
    ]


@pytest.mark.parametrize(("step", "severity"), [("client1/drain", Severity.CRITICAL), ("homeserver/survey", Severity.WARNING)])
def test_one_who_is_taken_over_wakes_somebody_if_a_worker_is_out(step: str, severity: Severity) -> None:
    """Whoever took over sees to it, or doesn't: it may be a mistake, or nobody's intention."""
    stage = seven_workers()
    stage.world.lease.ttl_s = 0.3
    plan = stage.plan(PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"canary": WorkerId("client1")})}))

    def take(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == step:
            stage.world.lease.take_over(stage.clock.now_s(), "bob@laptop")

    pages = Pages(DEPLOY, plan)
    found: list[Page] = []
    rehearse(stage, plan, listeners=(take, lambda event, now: found.extend(page for page in (pages.of(event, now),) if page is not None)))
    assert [(page.kind, page.severity) for page in found] == [
        ("began", Severity.INFO),
        ("lease_lost", severity),
        ("finished", Severity.WARNING),
    ]
    assert "bob@laptop" in found[1].text


def test_a_lease_that_cannot_be_renewed_is_told() -> None:
    stage = seven_workers()
    stage.world.lease.ttl_s = 3.0

    def leave(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "homeserver/survey":
            stage.world.lease.away_until_s = stage.clock.now_s() + 60

    assert _told(stage, leave) == [("began", Severity.INFO), ("lease_lost", Severity.WARNING), ("finished", Severity.INFO)]


def test_a_pause_wakes_somebody_and_says_what_to_do() -> None:
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    pages = Pages(DEPLOY, plan)
    found: list[Page] = []
    rehearse(
        stage,
        plan,
        speak={30: Command.PAUSE},
        listeners=(lambda event, state: found.extend(page for page in (pages.of(event, state),) if page is not None),),
    )
    assert (found[-1].kind, found[-1].severity, found[-1].text) == ("finished", Severity.CRITICAL, "paused: paused on request")
    assert f"rollout continue {DEPLOY}" in found[-1].what_next


def test_a_wait_that_takes_too_long_is_told_once() -> None:
    """Somebody else has drained a worker's sibling: the rollout waits, says so after a while, and pauses in the end."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    stage.world.workers[WorkerId("sync2")].admitted = False
    pages = Pages(DEPLOY, plan, wait_too_long_s=60.0)
    found: list[Page] = []
    state = rehearse(
        stage, plan, listeners=(lambda event, now: found.extend(page for page in (pages.of(event, now),) if page is not None),)
    )
    assert state.outcome is Outcome.PAUSED
    assert [page.kind for page in found] == ["began", "waiting", "finished"]
    assert found[1].text.startswith("it has waited for 1 min")


def _pages(playbook: Playbook, wait_too_long_s: float) -> list[str]:
    stage = seven_workers()
    plan = stage.plan(playbook)
    pages = Pages(DEPLOY, plan, wait_too_long_s)
    found: list[Page] = []
    rehearse(stage, plan, listeners=(lambda event, now: found.extend(page for page in (pages.of(event, now),) if page is not None),))
    return [f"{page.kind}: {page.text}" if page.kind == "waiting" else page.kind for page in found]


def test_what_the_plan_takes_its_time_for_wakes_nobody() -> None:
    """The shipped playbook's five minutes of baseline, and five of the last watch, are no news."""
    slow = PLAYBOOK.model_copy(update={"baseline": Baseline(baseline_s=300, sample_s=5), "watch": Watch(watch_s=300, window_s=60)})
    assert _pages(slow, WAIT_TOO_LONG_S) == ["began", "finished"]


@pytest.mark.parametrize("utilisation_max", [None, 0.9])
def test_no_step_within_its_time_wakes_anybody(utilisation_max: float | None) -> None:
    """Drains, boots, ramps and soaks take longer than two seconds each, and none takes longer than the plan says."""
    ramp = Ramp(weights=(10, 100), step_s=5, down=(50,), utilisation_max=utilisation_max)
    assert _pages(PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"ramp": ramp})}), 2.0) == [
        "began",
        "finished",
    ]


def test_what_goes_on_beyond_its_planned_end_is_told() -> None:
    plan = seven_workers().plan(PLAYBOOK)
    pages = Pages(DEPLOY, plan, wait_too_long_s=30.0)
    state = start(plan)
    told: dict[float, str] = {}
    began: list[Event] = [StepBegan(1000.0, SURVEY_STEP), WaitBegan(1000.0, "survey", "watching")]
    for event in (*began, *(SamplesTaken(1000.0 + passed_s, Measured()) for passed_s in range(1, 80))):
        state = fold(plan, state, event)
        if (page := pages.of(event, state)) is not None:
            told[event.at_s] = page.text
    assert told == {1000.0 + plan.baseline_s + 30.0: "it has waited for 50 s: watching"}


@pytest.mark.parametrize("trouble", ["hangs", "fails", "breaks"])
def test_a_notifier_that_is_ill_never_slows_a_rollout(trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rollout with and without it takes the same time, but for the bounded flush at its end; what was untold is said."""
    monkeypatch.setattr(pager_module, "FLUSH_S", 0.5)
    stage, alone = seven_workers(), seven_workers()
    plan = stage.plan(PLAYBOOK)
    recorder = Recorder(trouble)
    with Pager(recorder, Pages(DEPLOY, plan), SystemClock()) as pager:
        began_s = time.monotonic()
        state = rehearse(stage, plan, listeners=(pager,))
        spent_s = time.monotonic() - began_s
    ended_s = time.monotonic() - began_s
    began_s = time.monotonic()
    rehearse(alone, alone.plan(PLAYBOOK))
    usual_s = time.monotonic() - began_s
    recorder.released.set()
    assert state.outcome is Outcome.DEPLOYED
    assert spent_s < 3 * usual_s + 1.0
    assert ended_s - spent_s < 2.0
    assert {line.partition(":")[0] for line in pager.untold()} == {"began", "finished"}


def test_the_heart_beats_while_the_loop_lives_and_stops_when_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager_module, "BEAT_EVERY_S", 0.1)
    monkeypatch.setattr(pager_module, "SILENT_S", 1.5)
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    recorder = Recorder()
    with Pager(recorder, Pages(DEPLOY, plan), SystemClock()) as pager:
        until(lambda: recorder.beats >= 2)
        # Nothing is heard of the loop for a while.
        until(lambda: _is_still(recorder))
        first, *_ = stage_events(stage)
        silent = recorder.beats
        pager(first, start(plan))
        until(lambda: recorder.beats > silent)


def _is_still(recorder: Recorder) -> bool:
    """Tell whether no beat comes for as long as several take."""
    before = recorder.beats
    time.sleep(0.5)
    return recorder.beats == before


def stage_events(stage: Stage) -> list[Event]:
    rehearse(stage, stage.plan(PLAYBOOK))
    return [event for _, event in stage.journal.events(DEPLOY)]
