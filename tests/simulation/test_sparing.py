"""Before each drain it is asked whether the others can carry it, with what they are seen to carry then; on the way back it is only said."""

from rollout.deciding.state import DeployState
from rollout.interfaces.narrate import narrate
from rollout.model.event import Event, Outcome, StepBegan, WaitBegan
from rollout.model.ids import StepId, WorkerId
from rollout.model.playbook import Capacity, Playbook
from rollout.simulation.rehearse import Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")
FULL = 0.024  # CPU seconds of a request; twenty a second are .48 of a core, and .96 with those of the other
USUAL = 0.005


def _events(stage: Stage, kind: type[Event]) -> list[Event]:
    return [event for _, event in stage.journal.events("rehearsal") if isinstance(event, kind)]  # type: ignore[arg-type]


def _rolled(playbook: Playbook, stage: Stage, ends_after_s: float | None = 60.0) -> DeployState:
    """Clients get busy while the first of them is soaking; *ends_after_s* later they are as before."""
    plan = stage.plan(playbook)
    began: list[float] = []

    def get_busy(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client1/soak":
            began.append(event.at_s)
            stage.world.request_cpu_s = FULL
        if began and ends_after_s is not None and event.at_s > began[0] + ends_after_s:
            stage.world.request_cpu_s = USUAL

    return rehearse(stage, plan, listeners=(get_busy,))


def test_who_can_not_be_spared_now_is_waited_for() -> None:
    """The plan was made in quiet times; client2 goes out only when client1 could carry its load too."""
    stage = seven_workers()
    state = _rolled(PLAYBOOK, stage)
    assert state.outcome is Outcome.DEPLOYED
    waits = [event for event in _events(stage, WaitBegan) if isinstance(event, WaitBegan) and event.cause == "capacity"]
    assert "client2 may not go down: while client2 is out, client1 would use up to " in waits[0].why
    assert "85 % is the most (capacity.utilisation_max)" in waits[0].why
    began = next(event.at_s for event in _events(stage, StepBegan) if isinstance(event, StepBegan) and event.step_id == "client2/drain")
    soaked = next(event.at_s for event in _events(stage, StepBegan) if isinstance(event, StepBegan) and event.step_id == "client1/soak")
    assert began > soaked + 60.0


def test_a_pool_is_measured_before_its_first_worker_goes_out() -> None:
    """The survey was long ago: that sync workers are busy now is seen while the last client soaks."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)

    def get_busy(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/soak":
            stage.world.request_cpu_s = FULL
        if isinstance(event, WaitBegan) and event.cause == "capacity":
            stage.world.request_cpu_s = USUAL

    rehearse(stage, plan, listeners=(get_busy,))
    waits = [event.why for event in _events(stage, WaitBegan) if isinstance(event, WaitBegan) and event.cause == "capacity"]
    assert waits
    assert waits[0].startswith("sync1 may not go down: while sync1 is out, its siblings' requests would take up to 2 × as long")


def test_one_that_can_never_be_spared_pauses_the_rollout() -> None:
    stage = seven_workers()
    state = _rolled(PLAYBOOK, stage, ends_after_s=None)
    assert state.outcome is Outcome.PAUSED
    assert not state.workers[CLIENT2].touched
    assert stage.world.workers[CLIENT2].admitted


def test_limits_are_the_playbooks() -> None:
    stage = seven_workers()
    wide = PLAYBOOK.model_copy(update={"capacity": Capacity(utilisation_max=2.0, p95_ratio_max=100.0, warn_above=2.0)})
    # A queue that only grows is above any ratio; just below that it isn't.
    state = _rolled(wide, stage)
    assert state.outcome is Outcome.DEPLOYED
    assert not [event for event in _events(stage, WaitBegan) if isinstance(event, WaitBegan) and event.cause == "capacity"]


def test_on_the_way_back_it_is_said_and_forbids_nothing() -> None:
    """The release fails while everybody is busy: client1 is taken back at once, and the journal says how narrow it is."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client1/soak":
            stage.world.request_cpu_s = FULL
            stage.world.erring[plan.to_release.id] = 0.5

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK
    drain = next(
        event for event in _events(stage, StepBegan) if isinstance(event, StepBegan) and event.step_id == StepId("client1/rollback/drain")
    )
    assert "while client1 is out, client2 would use up to" in drain.warning
    assert drain.warning in (narrate(drain, plan) or "")
    assert not [event for event in _events(stage, WaitBegan) if isinstance(event, WaitBegan) and event.cause == "capacity"]
