"""What a roll-back of those who are blamed does with the others: they keep the release, and nobody stays out."""

import pytest

from rollout.deciding.state import DeployState
from rollout.model.event import DeployFinished, Event, Outcome, RollbackBegan, StepBegan
from rollout.model.ids import WorkerId
from rollout.model.playbook import Playbook, Rollback, Strategy, Watch
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import REPLACEABLE
from tests.simulation.stages import PLAYBOOK, seven_workers


def _blaming(**strategy: object) -> Playbook:
    changed = Strategy.model_validate(PLAYBOOK.strategy.model_dump() | strategy)
    return PLAYBOOK.model_copy(update={"strategy": changed, "rollback": Rollback(scope="blamed"), "watch": Watch(watch_s=60, window_s=6)})


class _TurnsBad:
    """From *after_s* after *step* began, the release answers three of ten requests with an error."""

    def __init__(self, stage: Stage, release: str, step: str, after_s: float) -> None:
        self.stage, self.release, self.step, self.after_s = stage, release, step, after_s
        self.since_s: float | None = None

    def __call__(self, event: Event, _state: DeployState) -> None:
        now_s = self.stage.clock.now_s()
        if isinstance(event, StepBegan) and event.step_id == self.step:
            self.since_s = now_s
        if self.since_s is not None and now_s >= self.since_s + self.after_s:
            self.stage.world.erring = {release: 0.3 for release in self.stage.world.releases if release == self.release}


def _assert_nobody_is_out(stage: Stage, state: DeployState) -> None:
    assert all(worker.admitted and worker.weight == 100 for worker in stage.world.workers.values())
    assert (stage.drivers.ledger.marks(), stage.world.holds) == ({}, {})
    assert not any(known.drained_by_us for known in state.workers.values())
    assert not set(REPLACEABLE) & set(stage.world.cuts)


@pytest.mark.parametrize("after_s", [14, 16, 18])
def test_who_is_being_restarted_when_another_is_blamed_comes_back(after_s: float) -> None:
    """A client worker turns bad while sync1 is out: it goes back, and sync1 gets its traffic again on the release that it has."""
    stage = seven_workers()
    plan = stage.plan(_blaming())
    state = rehearse(stage, plan, listeners=(_TurnsBad(stage, plan.to_release.id, "sync1/drain", after_s),))
    assert state.outcome is Outcome.PAUSED
    (blamed,) = {"client1", "client2"} & state.blamed
    assert state.outcome_why.startswith(f"{blamed} is back on the old release, sync1, ")
    assert stage.world.workers[WorkerId("sync1")].runs == plan.to_release.id
    assert stage.world.workers[WorkerId(blamed)].runs == stage.old.id
    _assert_nobody_is_out(stage, state)


@pytest.mark.parametrize("after_s", [10, 12, 14, 16])
def test_who_is_blamed_goes_back_once_its_pool_has_the_others_again(after_s: float) -> None:
    """sync1 is blamed while sync2 is out: sync2 comes back first, so that sync1 needn't wait until the rollout counts as stuck."""
    stage = seven_workers()
    plan = stage.plan(_blaming(canary="sync1", role_order=["sync", "client"]))
    state = rehearse(stage, plan, listeners=(_TurnsBad(stage, plan.to_release.id, "sync2/drain", after_s),))
    assert state.outcome_why.startswith("sync1 is back on the old release, sync2 not: ")
    began, ended = (
        next(event.at_s for _, event in stage.journal.events(DEPLOY) if isinstance(event, kind)) for kind in (RollbackBegan, DeployFinished)
    )
    assert ended - began < 60
    _assert_nobody_is_out(stage, state)


@pytest.mark.parametrize("after_s", [3, 6, 9])
def test_what_waits_for_main_is_let_go_while_another_is_taken_back(after_s: float) -> None:
    """Main is held when somebody is blamed: what waits for it goes on, by our hand and not by the proxy's bound."""
    stage = seven_workers(held="main")
    stage.world.boot_s = 6.0
    plan = stage.plan(_blaming(hold={"hold_s": 20}))
    state = rehearse(stage, plan, listeners=(_TurnsBad(stage, plan.to_release.id, "fedsender1/soak", after_s),))
    assert state.outcome is Outcome.PAUSED
    assert "main" in state.outcome_why.partition(" not: ")[0]
    assert stage.world.cuts == {}
    _assert_nobody_is_out(stage, state)


@pytest.mark.parametrize("trouble", ["hangs", "never_boots"])
def test_who_can_not_come_back_on_the_release_is_blamed_too(trouble: str) -> None:
    """A client worker is blamed while sync1 is being restarted, and sync1 doesn't come up: both are taken back, in one roll-back."""
    stage = seven_workers()
    plan = stage.plan(_blaming())
    bad = plan.to_release.id
    turns_bad = _TurnsBad(stage, bad, "sync1/drain", 14)

    def break_down(event: Event, state: DeployState) -> None:
        turns_bad(event, state)
        if isinstance(event, StepBegan) and event.step_id == "sync1/restart":
            (stage.world.hangs if trouble == "hangs" else stage.world.never_boots).add(bad)
        if isinstance(event, RollbackBegan) and "sync1" in event.blamed:
            stage.world.hangs.discard(bad)

    state = rehearse(stage, plan, listeners=(break_down,))
    assert state.blamed >= {"sync1"}
    assert stage.world.workers[WorkerId("sync1")].runs == stage.old.id
    assert all(stage.world.answers(worker) for worker in stage.world.workers)
    _assert_nobody_is_out(stage, state)
