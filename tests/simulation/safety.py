"""What holds after every rollout of the simulated homeserver, and for whom."""

from rollout.deciding.state import DeployState
from rollout.model.event import Outcome
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan
from rollout.simulation.rehearse import Stage

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
