"""Which gates a role must pass: those of the playbook whose metric says something about that role."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from rollout.homeservers.synapse.roles import evidence_of
from rollout.model.gate import MODEL_MARGIN, PUSHES_FROM_S, Gate, Metric, Recovery
from rollout.model.ids import GateId, Role, WorkerId
from rollout.model.inventory import WorkerEntry
from rollout.model.plan import Step, Worker
from rollout.model.playbook import GateEntry, Playbook

# Cold caches take up to a quarter of an hour, and a gate that adds up evidence waits for who gets better meanwhile.
SEQUENTIAL_DEADLINE_S = 1200.0
THRESHOLD_DEADLINE_S = 600.0
# What is away is next tried by a new pusher 1023 s after its start.
PUSHES_DEADLINE_S = 1000.0


def gates_of(role: Role, playbook: Playbook, *, proxied: bool) -> tuple[GateId, ...]:
    """List the gates that a worker of *role* must pass, in the playbook's order. Who isn't *proxied* shows nothing at a proxy."""
    metrics = set(evidence_of(role)) - (set() if proxied else {Metric.PROXY_FAILURES})
    return tuple(entry.id for entry in playbook.gates if entry.metric in metrics and (not entry.roles or role in entry.roles))


def heeded(role: Role, playbook: Playbook, *, proxied: bool) -> tuple[GateId, ...]:
    """Leave out those that don't act: a role with no others is not shown to be well by them."""
    acting = {entry.id for entry in playbook.gates if entry.act}
    return tuple(name for name in gates_of(role, playbook, proxied=proxied) if name in acting)


def behind_proxies(workers: Iterable[Worker | WorkerEntry]) -> dict[Role, bool]:
    """Say of each role whether all of its workers stand behind a proxy."""
    roles: dict[Role, bool] = {}
    for worker in workers:
        roles[worker.role] = roles.get(worker.role, True) and worker.pool is not None
    return roles


def odds_of(tests: int, false_alarms: float) -> float:
    """
    Return the odds against a good release at which each of so many *tests* fails, if of good rollouts no more than the share *false_alarms*
    is to be taken back.

    By the union bound their budget is divided by their number; and by MODEL_MARGIN, since how requests vary is a model.
    """
    return MODEL_MARGIN * max(1, tests) / false_alarms


def spent(gates: Mapping[GateId, Gate], soaks: Collection[Step], roles: Mapping[WorkerId, Role], false_alarms: float) -> dict[GateId, Gate]:
    """
    Spend the budget of false alarms over all tests of a rollout: each sequential gate of each worker, and of each of *roles* together, gets
    the same part of it.

    They are to raise no more false alarms together than *false_alarms* (odds_of).
    """
    each = [(step.worker, name) for step in soaks for name in step.gates if step.worker is not None]
    return spent_on(each, gates, roles, false_alarms)


def spent_on(
    each: Collection[tuple[WorkerId, GateId]], gates: Mapping[GateId, Gate], roles: Mapping[WorkerId, Role], false_alarms: float
) -> dict[GateId, Gate]:
    """
    Spend it on *each* worker that is asked by a gate, as in a rollout of these workers: thresholds cost nothing, and what doesn't act costs
    as much as what does.
    """
    odds = odds_of(tests_of(each, gates, roles), false_alarms)
    return {name: gate if gate.odds is None else replace(gate, odds=odds) for name, gate in gates.items()}


def tests_of(each: Collection[tuple[WorkerId, GateId]], gates: Mapping[GateId, Gate], roles: Mapping[WorkerId, Role]) -> int:
    """Count what the budget is spent over: each sequential gate of each worker, and of all workers of a role together."""
    sequential = [(worker, name) for worker, name in each if gates[name].odds is not None]
    return len(sequential) + len({(roles[worker], name) for worker, name in sequential})


def deadline_of(entry: GateEntry) -> float:
    """Say after how many seconds a gate gives up: as its entry says, or as long as such a gate may need."""
    if entry.deadline_s is not None:
        return entry.deadline_s
    if entry.metric is Metric.PUSH_FAILURES:
        return PUSHES_DEADLINE_S
    return SEQUENTIAL_DEADLINE_S if entry.test == "sequential" else THRESHOLD_DEADLINE_S


def soak_of(entry: GateEntry) -> float:
    """Say for how many seconds a worker is watched at least: as the entry says, and until what it counts can come at all."""
    return max(entry.soak_s, PUSHES_FROM_S) if entry.metric is Metric.PUSH_FAILURES else entry.soak_s


def resolved(entry: GateEntry, odds: float = 100.0) -> Gate:
    """Turn a playbook's entry into what the plan carries; *odds* are those of a sequential gate before any budget is spent."""
    return Gate(
        id=entry.id,
        metric=entry.metric,
        ratio_max=entry.ratio_max,
        slack=entry.slack,
        max=entry.max,
        samples_min=entry.samples_min,
        soak_s=soak_of(entry),
        fresh_s=entry.fresh_s,
        deadline_s=deadline_of(entry),
        on_inconclusive=entry.on_inconclusive,
        on_unmeasurable=entry.on_unmeasurable,
        odds=odds if entry.test == "sequential" else None,
        acts=entry.act,
    )


def resolved_recovery(playbook: Playbook) -> Recovery | None:
    """Turn the playbook's load-recovery gate into what the plan carries; None where there is none."""
    entry = playbook.recovery
    if entry is None:
        return None
    window_s = playbook.watch.window_s
    return Recovery(entry.share_min, entry.level_ratio_max, entry.recovery_s, entry.deadline_s, window_s, entry.samples_min)
