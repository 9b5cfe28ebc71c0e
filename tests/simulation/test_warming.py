"""Warming in a simulated rollout: who is warmed and when, and that what goes wrong with it stops nobody."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from rollout.deciding.state import DeployState
from rollout.model.conditions import DatabaseConditions
from rollout.model.errors import OutcomeUnknownError, TransientDriverError
from rollout.model.event import Event, Outcome, StepBegan, StepFinished
from rollout.model.gate import GuardReading
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook, Strategy
from rollout.model.sighting import SchemaSighting
from rollout.model.warming import WarmBudget, Warmed
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
USERS = ("@alice:simulated", "@bob:simulated", "@carol:simulated")
ANSWER = Warmed(users=2, failures=0, seconds=3.0, cold_s=0.4, warm_s=0.1)


class Database:
    """It knows who is active, and a schema that does not change."""

    def schema(self, timeout_s: float) -> SchemaSighting:
        del timeout_s
        return SchemaSighting(94, 84, ())

    def active_users(self, limit: int, timeout_s: float) -> tuple[str, ...]:
        del timeout_s
        return USERS[:limit]

    def conditions(self, older_than_s: float, timeout_s: float) -> DatabaseConditions:
        del older_than_s, timeout_s
        return DatabaseConditions()

    def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
        del timeout_s
        return ()


@dataclass(slots=True)
class Warming:
    """It writes down who is warmed as whom; *error* is what comes of it, if anything does."""

    error: Exception | None = None
    why_not: str = ""
    calls: list[tuple[WorkerId, tuple[str, ...]]] = field(default_factory=list)

    def unavailable(self, timeout_s: float) -> str:
        del timeout_s
        return self.why_not

    def warm(self, worker: WorkerId, users: Sequence[str], budget: WarmBudget) -> Warmed:
        assert budget.concurrency == 2
        self.calls.append((worker, tuple(users)))
        if self.error is not None:
            raise self.error
        return ANSWER


def _stage(warming: Warming) -> tuple[Stage, Plan]:
    stage = seven_workers()
    stage.drivers = replace(stage.drivers, database=Database(), warming=warming)
    stage.inventory = stage.inventory.model_copy(update={"warming_driver": DriverSettings(driver="simulated")})
    return stage, stage.plan(_playbook())


def _playbook() -> Playbook:
    strategy = PLAYBOOK.strategy.model_dump() | {"warm": {"users_max": 2, "concurrency": 2, "seconds": 10}}
    return PLAYBOOK.model_copy(update={"strategy": Strategy.model_validate(strategy)})


def _sayings(stage: Stage) -> list[str]:
    events = [event for _, event in stage.journal.events(DEPLOY)]
    return [event.why for event in events if isinstance(event, StepFinished) and "warm" in event.step_id]


def test_heirs_are_warmed_before_a_drain_and_each_worker_before_its_users_come_back() -> None:
    warming = Warming()
    stage, plan = _stage(warming)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)
    events = [event for _, event in stage.journal.events(DEPLOY) if isinstance(event, StepBegan)]
    began = [event.step_id for event in events if event.step_id.startswith("sync1/")]
    verbs = ["warm_inheritors", "drain", "restart", "await_healthy", "warm", "admit", "soak"]
    assert began == [f"sync1/{verb}" for verb in verbs]
    sync = [call for call in warming.calls if call[0] in {SYNC1, SYNC2}]
    # sync2 inherits, sync1 comes back; then the other way round; always as those who were there last, and no more than the budget has.
    assert sync == [(worker, USERS[:2]) for worker in (SYNC2, SYNC1, SYNC1, SYNC2)]
    assert "sync1 warmed with 2 users in 3 s, 400 → 100 ms each" in _sayings(stage)


@pytest.mark.parametrize(
    "error",
    [TransientDriverError("it answered nobody"), OutcomeUnknownError("no answer in time"), ValueError("a bug")],
    ids=["answered nobody", "in doubt", "a bug"],
)
def test_what_can_not_be_warmed_is_cold_and_comes_back_all_the_same(error: Exception) -> None:
    """A cold worker is slow for a while, and its gates watch that; one that stays drained serves nobody."""
    stage, plan = _stage(Warming(error))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)
    assert all(saying.startswith("not warmed") or "was not warmed" in saying for saying in _sayings(stage))


def test_a_crash_while_warming_is_taken_up() -> None:
    """Nobody knows whether it was warmed, which is no harm."""
    reference, plan = _stage(Warming())
    rehearse(reference, plan)
    events = [event for _, event in reference.journal.events(DEPLOY)]
    began = [line for line, event in enumerate(events, 1) if isinstance(event, StepBegan) and "sync1/warm" in event.step_id]
    for line in began:
        for after in range(5):
            stage, plan = _stage(Warming())
            state = rehearse(stage, plan, crash_after=(line + after,))
            assert state.outcome is Outcome.DEPLOYED, (line, after, state.outcome_why)
            assert_safe(stage, plan, state)


def test_a_roll_back_does_not_wait_for_warming_by_a_release_that_is_condemned() -> None:
    """The worker that failed is taken back whether or not its heirs can be warmed."""
    warming = Warming()
    stage, plan = _stage(warming)

    def turn_bad(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "sync1/soak":
            stage.world.erring[plan.to_release.id] = 0.3
            warming.error = TransientDriverError("it answered nobody")

    state = rehearse(stage, plan, listeners=(turn_bad,))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert_safe(stage, plan, state)
