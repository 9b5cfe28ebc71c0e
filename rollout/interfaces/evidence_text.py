"""What the gates of a plan can see and can't, at the traffic of those who are rolled, as far as that was measured."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rollout.gating.detectable import Facing, at_traffic, detectable
from rollout.gating.evidence import SAMPLES
from rollout.gating.latency import GOOD_RATIO_ALONE
from rollout.model.gate import Gate, Metric
from rollout.model.ids import PoolId, WorkerId
from rollout.model.listing import listed
from rollout.model.plan import Plan, Step, Verb, Worker, steps_of
from rollout.planning.forecast import bought_per_s

# Of a group so many are named.
_NAMES_MAX = 3
_POLLS = frozenset({Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING})
# A proxy counts whatever it gives away, long-polls too.
_WITH_POLLS = frozenset({Metric.ERRORS, Metric.PROXY_FAILURES})
_CANARIES = frozenset({Metric.CANARY_P95, Metric.CANARY_FAILURES})
# Levels of which an absolute limit stands against what slows all alike.
_LEVELS = frozenset({Metric.LATENCY_P95, Metric.CANARY_P95, Metric.REQUEST_CPU, Metric.POLL_CPU, Metric.POLL_DB, Metric.POLL_SCHEDULING})


class _One(NamedTuple):
    """A worker that is rolled, with its samples a second (None: nobody has measured that), and whether peers are missed."""

    worker: Worker
    per_s: float | None
    alone: bool


def gate_lines(plan: Plan) -> Iterator[str]:
    """Say of each gate what it sees, or what passes it unseen; workers of a role with about the same traffic are told of together."""
    soaks = {step.worker: step for step in steps_of(plan.phases) if step.verb is Verb.SOAK and step.worker is not None}
    alone = _alone(plan, soaks)
    for gate in plan.gates.values():
        if gate.odds is None:
            yield detectable(gate)
        else:
            yield from _sequential(plan, gate, gate.odds, [step for step in soaks.values() if gate.id in step.gates], alone)
    if any(gate.odds is not None and gate.metric in _LEVELS for gate in plan.gates.values()):
        yield from _without_peers(plan, soaks, alone)


def _sequential(plan: Plan, gate: Gate, odds: float, soaks: Sequence[Step], alone: Mapping[WorkerId, bool]) -> Iterator[str]:
    workers = {worker.id: worker for worker in plan.workers}
    of_role: dict[str, list[_One]] = {}
    for step in soaks:
        if step.worker is not None:
            worker = workers[step.worker]
            per_s = _samples_per_s(plan, gate, worker)
            of_role.setdefault(worker.role, []).append(_One(worker, per_s, gate.metric in _LEVELS and alone[worker.id]))
    said: dict[str, list[str]] = {}
    unknown = not of_role
    for its in of_role.values():
        groups: dict[tuple[bool, int], list[_One]] = {}
        for one in its:
            if one.per_s:
                groups.setdefault((one.alone, round(math.log2(one.per_s))), []).append(one)
        for group in groups.values():
            per_s = sum(one.per_s or 0.0 for one in group) / len(group)
            turn_s = _turn_s(plan, [one.worker.id for one in its])
            facing = Facing(per_s, plan.baseline_s, group[0].alone, len(its), turn_s, plan.watch.watch_s)
            told = f" at {per_s:.2g} {SAMPLES[gate.metric]} a second: {at_traffic(gate, odds, facing)}"
            said.setdefault(told, []).extend(one.worker.id for one in group)
        if silent := [str(one.worker.id) for one in its if one.per_s == 0]:
            said.setdefault(": nothing came while that was measured, so there may be no ruling", []).extend(silent)
        unknown = unknown or any(one.per_s is None for one in its)
    yield from (f"{gate.id} of {listed(names, _NAMES_MAX)}{told}" for told, names in said.items())
    if unknown:
        yield detectable(gate)


def _samples_per_s(plan: Plan, gate: Gate, worker: Worker) -> float | None:
    """Return what users ask and what is bought together; of the first only what was measured."""
    bought = bought_per_s(plan, worker, gate.metric)
    if gate.metric in _CANARIES:
        return 1 / plan.sample_s + bought
    traffic = plan.forecast.traffic.get(worker.id)
    if traffic is None:
        return bought or None
    if gate.metric in _POLLS:
        return traffic.polls_per_s + bought
    return traffic.requests_per_s + (traffic.polls_per_s if gate.metric in _WITH_POLLS else 0.0) + bought


def _turn_s(plan: Plan, workers: Sequence[WorkerId]) -> float:
    """Return how long it takes from one of them to the next."""
    times = [
        plan.forecast.steps[step.id].mean_s for step in steps_of(plan.phases) if step.worker in workers and step.id in plan.forecast.steps
    ]
    return sum(times) / len(workers)


def _alone(plan: Plan, soaks: Mapping[WorkerId, Step]) -> dict[WorkerId, bool]:
    """Tell who has nobody of its pool left that runs what it ran before: whoever is its pool's last, or only one."""
    left: dict[PoolId, list[WorkerId]] = {}
    for worker in plan.workers:
        if worker.pool is not None and plan.from_releases.get(worker.id) != plan.to_release.id:
            left.setdefault(worker.pool, []).append(worker.id)
    pools = {worker.id: worker.pool for worker in plan.workers}
    found: dict[WorkerId, bool] = {}
    for rolled in soaks:
        pool = pools[rolled]
        others = [] if pool is None else [one for one in left.get(pool, ()) if one != rolled]
        found[rolled] = not others
        if pool is not None:
            left[pool] = others
    return found


def _without_peers(plan: Plan, soaks: Mapping[WorkerId, Step], alone: Mapping[WorkerId, bool]) -> Iterator[str]:
    """Say what replaces the comparison with peers."""
    levels = {gate.id for gate in plan.gates.values() if gate.odds is not None and gate.metric in _LEVELS}
    names = [str(worker) for worker, step in soaks.items() if alone[worker] and levels.intersection(step.gates)]
    if not names:
        return
    limits = [
        gate.id for gate in plan.gates.values() if gate.odds is None and gate.max is not None and gate.metric in _LEVELS and gate.acts
    ]
    guards = [guard.guard for guard in plan.guards]
    beside = f"besides, only {', '.join([*limits, *guards])}" if limits or guards else "no absolute limit and no guard stands beside it"
    yield (
        f"{listed(names, _NAMES_MAX)}: nobody of the pool is left to compare with, so it is its own past alone, of which up to "
        f"{GOOD_RATIO_ALONE:g} × counts as good; {beside}"
    )
