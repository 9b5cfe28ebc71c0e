"""Asking a worker's sequential gates: what they are told of it, and what they told last time."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rollout.deciding.index import PlanIndex, Weighed, index_of
from rollout.deciding.seeing import pool_before, unmeasured_by
from rollout.deciding.state import DeployState, Direction, StepStatus, WorkerState
from rollout.gating import excuse, pooled, sequential
from rollout.gating.curves import named
from rollout.gating.evidence import samples
from rollout.gating.excuse import Passed
from rollout.gating.sequential import Seen
from rollout.model.gate import Gate, Verdict
from rollout.model.ids import GateId, Role, WorkerId
from rollout.model.plan import Plan, Step


def verdict(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate, now_s: float) -> Verdict:
    """Rule on a worker now."""
    found, known = weighed(plan, state, worker, gate), state.workers[worker]
    return sequential.rule(gate, found.seen, found.odds, unmeasured=unmeasured_by(known, gate), now_s=now_s)


def failed(plan: Plan, state: DeployState, worker: WorkerId) -> tuple[tuple[Gate, Verdict], ...]:
    """List the sequential gates that say FAIL, however long ago its last measurement was: nothing new can make that better."""
    gates = index_of(plan).weighed_gates.get(worker, ())
    return tuple((gate, verdict) for gate in gates if gate.acts and (verdict := failed_by(plan, state, worker, gate)) is not None)


def failed_by(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate) -> Verdict | None:
    """Return the FAIL of a sequential gate that its worker has passed, as of the last measurement; None where it says none."""
    found = weighed(plan, state, worker, gate, passed=True)
    if not sequential.fails(gate, found.odds):
        return None
    return sequential.rule(gate, found.seen, found.odds, unmeasured=None, now_s=found.seen.blocks[-1].own.until_s)


def failed_together(plan: Plan, state: DeployState, passed: Sequence[tuple[Step, WorkerId]]) -> tuple[Step, WorkerId, Verdict] | None:
    """Say by which gate those of one role who have passed fail when they are looked at together, with the last of them, or None."""
    for role, gate, its, _, left in _over_the_odds(plan, state, passed):
        against, ratio, count = _together(left)
        if against >= math.log(gate.odds or math.inf):
            step, worker = its[-1]
            return step, worker, sequential.failed_together(gate, f"{count} {role} workers", ratio, against)
    return None


def excused_together(plan: Plan, state: DeployState, passed: Sequence[tuple[Step, WorkerId]]) -> list[tuple[Role, Gate]]:
    """List the roles that would fail together, and by which gates, but for what all who have passed show to this moment."""
    return [
        (role, gate)
        for role, gate, _, those, left in _over_the_odds(plan, state, passed)
        if _together(left)[0] < math.log(gate.odds or math.inf)
        and any(set(one.levels[-2:]) - set(its.levels) for one, its in zip(those, left, strict=True))
    ]


class _Over(NamedTuple):
    """Those of a role (*its*) who fail together by a gate: what it has seen of *those*, and what of that is *left* without incidents."""

    role: Role
    gate: Gate
    its: list[tuple[Step, WorkerId]]
    those: list[Passed]
    left: list[Passed]


def _over_the_odds(plan: Plan, state: DeployState, passed: Sequence[tuple[Step, WorkerId]]) -> Iterator[_Over]:
    """Find the roles that fail together, incidents and all. Each worker counts since it passed, so that its recovery is no part of it."""
    index = index_of(plan)
    found: dict[tuple[Role, GateId], list[tuple[Step, WorkerId, Passed]]] = {}
    for step, worker in passed:
        for gate in index.weighed_gates.get(worker, ()):
            is_level = gate.acts and gate.metric not in sequential.SHARES
            if is_level and (one := _has_passed(plan, state, step, worker, gate)) is not None:
                found.setdefault((index.workers[worker].role, gate.id), []).append((step, worker, one))
    for (role, name), its in found.items():
        gate, those = plan.gates[name], [one for _, _, one in its]
        if _together(those)[0] >= math.log(gate.odds or math.inf):
            everybody = [one for (_, other), others in found.items() if other == name for _, _, one in others]
            # Decisions come oftener than measurements.
            kept = index.calm.get((role, name))
            if kept is None or kept[0] != everybody or kept[1] != those:
                kept = index.calm[role, name] = (everybody, those, excuse.calm(those, everybody))
            yield _Over(role, gate, [(step, worker) for step, worker, _ in its], those, kept[2])


def _together(those: Sequence[Passed]) -> tuple[float, float, int]:
    """Return the odds against several, the ratio that fits best, and how many of them have shown something since they passed."""
    levels = [level for one in those if (level := pooled.since(one.levels, one.passed_at_s - one.admitted_at_s)) is not None]
    return *pooled.weigh(levels), len(levels)


def excused(plan: Plan, state: DeployState, worker: WorkerId) -> list[Gate]:
    """List the acting sequential gates by which a worker would fail, but for what all who have passed show to this moment."""
    # A block that has only just begun says little yet.
    until_s = state.workers[worker].blocks[-1].own.since_s if state.workers[worker].blocks else math.inf
    gates = (gate for gate in index_of(plan).weighed_gates.get(worker, ()) if gate.acts)
    found = ((gate, weighed(plan, state, worker, gate, passed=True).odds) for gate in gates)
    return [gate for gate, odds in found if odds is not None and odds.excused_until_s >= until_s]


def blind(plan: Plan, state: DeployState, worker: WorkerId, since_s: float) -> list[Gate]:
    """List the acting sequential gates with nothing to compare with, or not one sample since *since_s*: their silence is not health."""
    known = state.workers[worker]
    # A block may have begun before; of it the last sweeps tell.
    new = [tally for tally in (*(block.own for block in known.blocks), *known.recent) if tally.since_s >= since_s]
    return [
        gate
        for gate in index_of(plan).weighed_gates.get(worker, ())
        if gate.acts
        and (weighed(plan, state, worker, gate, passed=True).odds is None or not any(samples(gate.metric, own) > 0 for own in new))
    ]


def weighed(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate, *, passed: bool = False) -> Weighed:
    """
    Weigh what was seen of a worker; what was worked out for the same blocks is kept, since decisions come oftener than measurements.

    Of one that has *passed* only what tells of a FAIL is asked for (sequential.weigh). Who would fail is asked whether all who have passed
    show the same at the same moment (excuse.py).
    """
    found = _weighed_alone(plan, state, worker, gate, passed=passed)
    if found.odds is None or gate.metric in sequential.SHARES or not sequential.fails(gate, found.odds):
        return found
    others = tuple(_passed(plan, state, worker, gate))
    kept = index_of(plan).excused.get((worker, gate.id))
    if kept is None or kept[0] is not found or kept[1] != others:
        odds = excuse.without_common(gate, found.seen, found.kept, found.odds, others)
        kept = index_of(plan).excused[worker, gate.id] = (found, others, found._replace(odds=odds))
    return kept[2]


def _passed(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate) -> Iterator[Passed]:
    """Return what the same gate has seen of the others who have passed, with whatever it is that they are compared with themselves."""
    index = index_of(plan)
    for step, other in index.soaks if state.direction is Direction.FORWARD else ():
        has_it = other != worker and gate in index.weighed_gates.get(other, ())
        if has_it and (found := _has_passed(plan, state, step, other, gate)) is not None:
            yield found


def _has_passed(plan: Plan, state: DeployState, step: Step, worker: WorkerId, gate: Gate) -> Passed | None:
    """Return what a gate has seen of a worker whose SOAK is done; None where that is nothing, or it isn't done."""
    at, admitted_at_s = state.steps[step.id], state.workers[worker].admitted_at_s
    if at.status is not StepStatus.DONE or at.finished_at_s is None or admitted_at_s is None:
        return None
    odds = _weighed_alone(plan, state, worker, gate, passed=True).odds
    return None if odds is None else Passed(odds.levels, admitted_at_s, at.finished_at_s)


def _weighed_alone(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate, *, passed: bool) -> Weighed:
    index, known = index_of(plan), state.workers[worker]
    before = index.weighed.get((worker, gate.id))
    at_s = _admitted_at_s(known)
    # Two that have no blocks yet have the same ones, so who was admitted again is told by the time.
    in_full = before is not None and (passed or before.in_full)
    if before is not None and in_full and _same_restart(before.seen, known, at_s) and before.seen.blocks is known.blocks:
        return before
    seen = _seen(index, state, worker, gate, None if before is None else before.seen)
    same = before is not None and _same_restart(before.seen, known, at_s)
    odds, kept = sequential.weigh(gate, seen, before.kept if before is not None and same else None, passed=passed)
    found = Weighed(seen, odds, kept, in_full=not passed)
    index.weighed[worker, gate.id] = found
    return found


def _seen(index: PlanIndex, state: DeployState, worker: WorkerId, gate: Gate, before: Seen | None) -> Seen:
    known = state.workers[worker]
    at_s = _admitted_at_s(known)
    pool = before.pool if before is not None and _same_restart(before, known, at_s) else pool_before(index, state, worker)
    # Caches that make requests slow for minutes may cost no more CPU: each metric has recoveries of its own.
    learned = state.recoveries.get(index.workers[worker].role, {}).get(gate.metric, ())
    return Seen(known.blocks, known.baseline, pool, named(learned), at_s)


def _admitted_at_s(known: WorkerState) -> float:
    return math.inf if known.admitted_at_s is None else known.admitted_at_s


def _same_restart(seen: Seen, known: WorkerState, admitted_at_s: float) -> bool:
    return seen.baseline is known.baseline and seen.admitted_at_s == admitted_at_s
