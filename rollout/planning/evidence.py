"""Which gates a role must pass: those of the playbook whose metric says something about that role."""

from rollout.homeservers.synapse.roles import evidence_of
from rollout.model.gate import Gate, Recovery
from rollout.model.ids import GateId, Role
from rollout.model.playbook import GateEntry, Playbook


def gates_of(role: Role, playbook: Playbook) -> tuple[GateId, ...]:
    """List the gates that a worker of *role* must pass, in the playbook's order."""
    metrics = evidence_of(role)
    return tuple(entry.id for entry in playbook.gates if entry.metric in metrics and (not entry.roles or role in entry.roles))


def resolved(entry: GateEntry) -> Gate:
    """Turn a playbook's entry into what the plan carries."""
    return Gate(
        id=entry.id,
        metric=entry.metric,
        ratio_max=entry.ratio_max,
        slack=entry.slack,
        max=entry.max,
        samples_min=entry.samples_min,
        soak_s=entry.soak_s,
        fresh_s=entry.fresh_s,
        deadline_s=entry.deadline_s,
        on_inconclusive=entry.on_inconclusive,
        on_unmeasurable=entry.on_unmeasurable,
    )


def resolved_recovery(playbook: Playbook) -> Recovery | None:
    """Turn the playbook's load-recovery gate into what the plan carries; None where there is none."""
    entry = playbook.recovery
    if entry is None:
        return None
    window_s = playbook.watch.window_s
    return Recovery(entry.share_min, entry.level_ratio_max, entry.recovery_s, entry.deadline_s, window_s, entry.samples_min)
