"""Watching a worker that has its traffic back, until every gate has ruled: SOAK."""

from rollout.deciding import weighing
from rollout.deciding.acting import condemn, stop
from rollout.deciding.decision import Decision, Note, Wait
from rollout.deciding.index import index_of
from rollout.deciding.seeing import gone_for, is_confirmed, known_of, past_of, unmeasured_by, well, worker_of
from rollout.deciding.state import DeployState, Direction, StepState, StepStatus
from rollout.gating import liveness, recovery, threshold
from rollout.model.event import GateRuled, StepBegan, StepFinished
from rollout.model.gate import Gate, Ruling, Verdict
from rollout.model.ids import GateId, WorkerId
from rollout.model.plan import Duty, Plan, Step


def gates_asked(plan: Plan, step: Step) -> tuple[GateId, ...]:
    """Name the gates that a SOAK passes only by, in their order."""
    recovers = plan.recovery is not None and worker_of(plan, step).duty is Duty.REPLACEABLE
    heeded = tuple(name for name in step.gates if plan.gates[name].acts)
    return (*heeded, *((recovery.GATE,) if recovers else ()), *(() if heeded else (liveness.GATE,)))


def soak(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = worker_of(plan, step), known_of(state, step)
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if gone := gone_for(known, now_s):
        return condemn(plan, state, step, f"{worker.id}: {gone}", now_s)
    verdicts = {name: verdict_of(plan, state, worker.id, plan.gates[name], now_s) for name in step.gates}
    if plan.recovery is not None and worker.duty is Duty.REPLACEABLE:
        verdicts[recovery.GATE] = recovery.rule(
            plan.recovery,
            known.windows,
            known.baseline,
            unmeasured=known.unmeasured,
            admitted_at_s=known.admitted_at_s or now_s,
            now_s=now_s,
        )
    if liveness.GATE in gates_asked(plan, step):
        # One that dies and comes back again and again is alive now and then, never for long.
        since_s = max(known.admitted_at_s or now_s, known.well_since_s or now_s)
        verdicts[liveness.GATE] = liveness.rule(healthy=well(state, known, now_s), since_s=since_s, now_s=now_s)
    for name, verdict in verdicts.items():
        before = known.verdicts.get(name)
        # That nothing is known yet goes without saying.
        if verdict.ruling is not (Ruling.PENDING if before is None else before.ruling):
            return Note(GateRuled(now_s, step.id, worker.id, verdict))
    heeded = tuple(verdict for name, verdict in verdicts.items() if name not in plan.gates or plan.gates[name].acts)
    return _weigh(plan, state, step, at, heeded, now_s)


def _weigh(plan: Plan, state: DeployState, step: Step, at: StepState, verdicts: tuple[Verdict, ...], now_s: float) -> Decision | Wait:
    """Turn the rulings of all gates of one worker into what to do."""
    worker = worker_of(plan, step)
    if failed := [verdict for verdict in verdicts if verdict.ruling is Ruling.FAIL]:
        sentence = f"{worker.id} failed {failed[0].gate}: {failed[0].because}"
        if not is_confirmed(state, state.workers[worker.id], now_s):
            return Wait("database", f"{worker.id} failed {failed[0].gate}; before it is acted on, the database is looked at", now_s + 1.0)
        return condemn(plan, state, step, sentence, now_s)
    if all(verdict.ruling is Ruling.PASS for verdict in verdicts):
        return Note(StepFinished(now_s, step.id, "; ".join(verdict.because for verdict in verdicts)))
    began_at_s = at.began_at_s or now_s
    for verdict in verdicts:
        gate = plan.gates.get(verdict.gate)
        deadline_s = gate.deadline_s if gate is not None else _deadline_s(plan, step, verdict)
        if now_s < began_at_s + deadline_s or verdict.ruling is Ruling.PASS:
            continue
        policy = "pause"
        if gate is not None:
            policy = gate.on_unmeasurable if verdict.ruling is Ruling.UNMEASURABLE else gate.on_inconclusive
        sentence = f"{worker.id} has no ruling on {verdict.gate} after {deadline_s:.0f} s: {verdict.because}"
        # On the way back the others wait to be taken back as well; that this one wasn't shown to be well is kept for the end.
        goes_on = policy == "rollback" or state.direction is Direction.BACK
        return condemn(plan, state, step, sentence, now_s) if goes_on else stop(now_s, sentence)
    open_ones = [verdict for verdict in verdicts if verdict.ruling is not Ruling.PASS]
    cause = "measurement" if open_ones[0].ruling is Ruling.UNMEASURABLE else "evidence"
    lacking = "; ".join(f"{verdict.gate}: {verdict.because}" for verdict in sorted(open_ones, key=lambda one: one.gate))
    return Wait(cause, f"{worker.id} has yet to pass {lacking}", now_s + plan.sample_s)


def _deadline_s(plan: Plan, step: Step, verdict: Verdict) -> float:
    """Return by when a gate that no playbook entry describes must have ruled."""
    return plan.recovery.deadline_s if plan.recovery is not None and verdict.gate == recovery.GATE else step.deadline_s


def verdict_of(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate, now_s: float) -> Verdict:
    """Rule now. Decisions come oftener than measurements, so what these were compared to be is kept."""
    if gate.odds is not None:
        return weighing.verdict(plan, state, worker, gate, now_s)
    known = state.workers[worker]
    compared: threshold.Compared | None = None
    if known.after is not None:
        kept = index_of(plan).compared
        compared = kept.get((worker, gate.id))
        if compared is None or not compared.is_of(known.after, known.baseline, known.controls):
            past = past_of(plan, state, worker, gate)
            compared = kept[worker, gate.id] = threshold.compare(gate, known.after, past.own, known.controls, past.pool)
    admitted_at_s = known.admitted_at_s or now_s
    return threshold.rule_on(gate, compared, unmeasured=unmeasured_by(known, gate), admitted_at_s=admitted_at_s, now_s=now_s)
