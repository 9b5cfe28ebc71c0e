"""A rollout to be written down: its plan, its beginning, and as many events as are wanted."""

from functools import cache

from rollout.model.event import DeployBegan, WaitBegan
from rollout.model.ids import DeployId, EffectNumber
from rollout.model.plan import Plan
from tests.simulation.stages import PLAYBOOK, seven_workers

ONE = DeployId("d-1")


@cache
def some_plan() -> Plan:
    """Return the same plan each time: making it takes longer than keeping it."""
    return seven_workers().plan(PLAYBOOK)


def began(deploy_id: DeployId = ONE) -> DeployBegan:
    """Return the first event."""
    return DeployBegan(100.0, deploy_id, "plan", 3, "alice", EffectNumber(0))


def wait(number: int, size: int = 200) -> WaitBegan:
    """Return one of those that follow, which takes some *size* bytes."""
    return WaitBegan(101.0 + number, "drain", f"event {number} " + "x" * size)
