"""What of a person's playbook can be rehearsed: the simulated homeserver has no figures for some gates, and says so."""

from collections.abc import Iterator

from rollout.homeservers.synapse.roles import evidence_of
from rollout.model.gate import Metric
from rollout.model.inventory import Inventory
from rollout.model.playbook import Playbook

# What the simulated metrics pages show.
SHOWN = frozenset({Metric.ERRORS, Metric.LATENCY_P95})


def without_what_is_not_simulated(playbook: Playbook, inventory: Inventory) -> Playbook:
    """Leave out gates on other figures; a role that has no gate left is watched for being alive."""
    gates = tuple(gate for gate in playbook.gates if gate.metric in SHOWN)
    roles = {entry.role for entry in inventory.workers.values()}
    looked_at = {role for role in roles for gate in gates if gate.metric in evidence_of(role) and (not gate.roles or role in gate.roles)}
    alive = (*playbook.liveness_only, *sorted(roles - looked_at - set(playbook.liveness_only)))
    return playbook.model_copy(update={"gates": gates, "liveness_only": alive})


def what_is_left_out(playbook: Playbook, rehearsed: Playbook) -> Iterator[str]:
    """Say what of it isn't rehearsed."""
    if gone := [gate.id for gate in playbook.gates if gate not in rehearsed.gates]:
        yield f"gates {', '.join(gone)} (the simulated homeserver has no such figures)"
