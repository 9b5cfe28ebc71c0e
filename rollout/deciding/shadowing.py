"""
Gates that don't act, of those who have passed the others: they go on ruling until the last watch has ended, and nobody heeds them.

They are asked as one that acts would be: until it has ruled as in its SOAK, then, once it has passed, for what the watch would go back for
(watching.py): one FAIL of a sequential gate, two windows of a threshold. What failed has failed.
"""

from rollout.deciding import soaking, watching, weighing
from rollout.deciding.agenda import Agenda
from rollout.deciding.decision import Note
from rollout.deciding.state import DeployState
from rollout.model.event import GateRuled
from rollout.model.gate import Gate, Ruling, Verdict
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan


def ruled(plan: Plan, state: DeployState, agenda: Agenda, now_s: float) -> Note | None:
    """Note the next ruling that has changed; None when none has."""
    shadows = agenda.index.shadow_gates
    if not shadows:
        return None
    for step, worker in agenda.passed:
        known = state.workers[worker]
        for gate in shadows.get(worker, ()):
            before = known.verdicts.get(gate.id)
            ruling = Ruling.PENDING if before is None else before.ruling
            if ruling is Ruling.FAIL:
                continue
            verdict = _again(plan, state, worker, gate) if ruling is Ruling.PASS else soaking.verdict_of(plan, state, worker, gate, now_s)
            if verdict is not None and verdict.ruling is not ruling:
                return Note(GateRuled(now_s, step.id, worker, verdict))
    return None


def _again(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate) -> Verdict | None:
    """Rule on one that has passed: a FAIL, or nothing."""
    if gate.odds is None:
        return watching.failed_in_windows(plan, state, worker, gate)
    return weighing.failed_by(plan, state, worker, gate)
