"""What the gates of a plan can see and can't, at the traffic of those who are rolled, as far as that was measured."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from rollout.gating.detectable import USUAL, at_traffic, detectable, passes_in_time
from rollout.gating.evidence import SAMPLES
from rollout.gating.foreseen import Facing
from rollout.gating.latency import GOOD_RATIO_ALONE
from rollout.homeservers.synapse.canaries import bought_metrics, bought_path
from rollout.model.gate import Gate, Metric
from rollout.model.ids import PoolId, Role, WorkerId
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
    """
    A worker that is rolled, with its samples a second (None: nobody has measured that), those of its pool's others whom it is compared with
    (*peers_per_s*; 0: nobody) and how many these are, and which share of them usually fails (None: not known, or not asked).
    """

    worker: Worker
    per_s: float | None
    peers_per_s: float
    peers: int
    failed: float | None


def gate_lines(plan: Plan) -> Iterator[str]:
    """Say of each gate what it sees, or what passes it unseen; workers of a role with about the same traffic are told of together."""
    soaks = {step.worker: step for step in steps_of(plan.phases) if step.verb is Verb.SOAK and step.worker is not None}
    left, workers = _left(plan, soaks), {worker.id: worker for worker in plan.workers}
    silent, alone = set[WorkerId](), {worker for worker, others in left.items() if not others}
    for gate in plan.gates.values():
        if gate.odds is None:
            yield detectable(gate)
            continue
        ones = [_one(plan, gate, worker, left[worker], workers) for worker, step in soaks.items() if gate.id in step.gates]
        yield from _sequential(plan, gate, gate.odds, ones, silent)
        alone |= {one.worker.id for one in ones if gate.metric in _LEVELS and one.per_s and one.peers_per_s == 0}
    if silent:
        names = listed([str(worker) for worker in soaks if worker in silent], _NAMES_MAX)
        yield f"{names}: users ask too little; evidence can be bought there with requests of our own (canary_requests: {{per_s: 1}})"
    if levels := [gate.id for gate in plan.gates.values() if gate.odds is not None and gate.metric in _LEVELS]:
        yield f"{', '.join(levels)}: in a first rollout, which knows of no recovery yet, up to half as long again"
        yield from _without_peers(plan, soaks, alone)


def _one(plan: Plan, gate: Gate, worker_id: WorkerId, left: Sequence[WorkerId], workers: Mapping[WorkerId, Worker]) -> _One:
    worker = workers[worker_id]
    per_s = _samples_per_s(plan, gate, worker)
    # Of whom nobody has measured anything, there is as much to see as of the worker itself.
    theirs = [_samples_per_s(plan, gate, workers[other]) for other in left]
    peers_per_s = sum((per_s or 1.0) if rate is None else rate for rate in theirs)
    traffic = plan.forecast.traffic.get(worker_id)
    return _One(worker, per_s, peers_per_s, len(theirs), traffic.failed if traffic is not None and gate.metric is Metric.ERRORS else None)


def _sequential(plan: Plan, gate: Gate, odds: float, ones: Sequence[_One], silent: set[WorkerId]) -> Iterator[str]:
    """Say what one gate sees; who could be asked by us, and of whom it sees too little, is added to *silent*."""
    of_role: dict[Role, list[_One]] = {}
    for one in ones:
        of_role.setdefault(one.worker.role, []).append(one)
    said: dict[str, list[str]] = {}
    unknown = not of_role
    for its in of_role.values():
        groups: dict[tuple[bool, int, int | None], list[_One]] = {}
        for one in its:
            if one.per_s:
                is_alone = one.peers_per_s == 0 and gate.metric in _LEVELS
                groups.setdefault((is_alone, round(math.log2(one.per_s)), _size(one.failed)), []).append(one)
        for group in groups.values():
            facing = _facing(plan, group, its)
            if _buyable(plan, gate, group[0].worker.role) and not passes_in_time(gate, odds, facing):
                silent |= {one.worker.id for one in group}
            said.setdefault(_told(gate, odds, facing, group), []).extend(str(one.worker.id) for one in group)
        if unasked := [one.worker.id for one in its if one.per_s == 0]:
            said.setdefault(": nothing came while that was measured, so there may be no ruling", []).extend(map(str, unasked))
            silent |= {worker for worker in unasked if _buyable(plan, gate, its[0].worker.role)}
        unknown = unknown or any(one.per_s is None for one in its)
    yield from (f"{gate.id} of {listed(names, _NAMES_MAX)}{told}" for told, names in said.items())
    if unknown:
        yield detectable(gate)


def _told(gate: Gate, odds: float, facing: Facing, group: Sequence[_One]) -> str:
    usual = ""
    if gate.metric is Metric.ERRORS:
        known = group[0].failed is not None
        usual = f", of which {100 * facing.usual:.1g} % fail now" if known else f", if {100 * facing.usual:g} % of them fail usually"
    return f" at {facing.per_s:.2g} {SAMPLES[gate.metric]} a second{usual}: {at_traffic(gate, odds, facing)}"


def _facing(plan: Plan, group: Sequence[_One], role: Sequence[_One]) -> Facing:
    """Say what the one in the middle of a *group* faces, which is of a *role*. What is said is not more exact than what it is said for."""
    known = [one.failed for one in group if one.failed is not None]
    return Facing(
        _rounded(fmean(one.per_s or 0.0 for one in group)),
        plan.baseline_s,
        _rounded(median(one.peers_per_s for one in group)),
        len(role),
        1 + max(one.peers for one in role),
        _turn_s(plan, [one.worker.id for one in role]),
        plan.watch.watch_s,
        _rounded(fmean(known)) if known else USUAL,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _size(share: float | None) -> int | None:
    """Return the order of a share, by which those are told of together who fail about as often."""
    return None if share is None else round(math.log2(max(share, USUAL)))


def _buyable(plan: Plan, gate: Gate, role: Role) -> bool:
    """Tell whether evidence for a gate could be bought of such workers, and isn't."""
    if plan.buying is not None or not gate.acts or gate.metric in _CANARIES:
        return False
    return bought_path(role, 0) is not None and gate.metric in bought_metrics(role)


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
    those, steps = set(workers), plan.forecast.steps
    return sum(steps[step.id].mean_s for step in steps_of(plan.phases) if step.worker in those and step.id in steps) / len(workers)


def _left(plan: Plan, soaks: Mapping[WorkerId, Step]) -> dict[WorkerId, list[WorkerId]]:
    """Tell who of its pool is left, when a worker is rolled, and runs what it ran before: nobody where it is the last, or the only one."""
    left: dict[PoolId, list[WorkerId]] = {}
    for worker in plan.workers:
        if worker.pool is not None and plan.from_releases.get(worker.id) != plan.to_release.id:
            left.setdefault(worker.pool, []).append(worker.id)
    pools = {worker.id: worker.pool for worker in plan.workers}
    found: dict[WorkerId, list[WorkerId]] = {}
    for rolled in soaks:
        pool = pools[rolled]
        found[rolled] = [] if pool is None else [one for one in left.get(pool, ()) if one != rolled]
        if pool is not None:
            left[pool] = found[rolled]
    return found


def _without_peers(plan: Plan, soaks: Mapping[WorkerId, Step], alone: Collection[WorkerId]) -> Iterator[str]:
    """Say what replaces the comparison with peers."""
    levels = {gate.id for gate in plan.gates.values() if gate.odds is not None and gate.metric in _LEVELS}
    names = [str(worker) for worker, step in soaks.items() if worker in alone and levels.intersection(step.gates)]
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
