"""Names of things, kept apart by type so that a pool can't be handed where a worker is meant."""

from typing import NewType

WorkerId = NewType("WorkerId", str)
PoolId = NewType("PoolId", str)
Role = NewType("Role", str)
ReleaseId = NewType("ReleaseId", str)
StepId = NewType("StepId", str)
GateId = NewType("GateId", str)
DeployId = NewType("DeployId", str)

# Increases with every effect of a homeserver, across rollouts: a driver refuses a number lower than the highest it has seen for that
# worker.
EffectNumber = NewType("EffectNumber", int)
