"""What becomes of a worker by what its gates rule."""

from dataclasses import replace

from rollout.deciding.decide import decide
from rollout.deciding.decision import Decision, Note, WaitUntil
from rollout.deciding.state import DeployState
from rollout.model.event import GateRuled, RollbackBegan, StepFinished, WaitBegan
from rollout.model.gate import Ruling
from rollout.model.plan import Plan
from tests.deciding.rolled import CLIENT1, fold_all, rolled, with_worker


def _about_to_pass() -> tuple[Plan, DeployState]:
    """Return the first state in which client1 has passed all its gates."""
    plan, states = rolled()
    return plan, next(state for state in states if _passes(decide(plan, state, state.last_at_s)))


def _passes(decision: Decision) -> bool:
    return isinstance(decision, Note) and isinstance(decision.event, StepFinished) and decision.event.step_id == "client1/soak"


def _rule(plan: Plan, state: DeployState) -> DeployState:
    """Let every gate say what it rules now, and the database be there afterwards."""
    while isinstance(decision := decide(plan, state, state.last_at_s), Note) and isinstance(decision.event, GateRuled):
        state = fold_all(plan, state, decision.event)
    return replace(state, guards_seen_at_s=state.last_at_s + 0.1)


def test_who_fails_one_gate_is_taken_back_at_once() -> None:
    """With every other gate passed, and long before the deadline."""
    plan, state = _about_to_pass()
    known = state.workers[CLIENT1]
    assert known.after is not None
    failed = _rule(plan, with_worker(state, CLIENT1, replace(known, after=replace(known.after, errors=known.after.requests))))
    assert Ruling.FAIL in {verdict.ruling for verdict in failed.workers[CLIENT1].verdicts.values()}
    decision = decide(plan, failed, failed.last_at_s)
    assert isinstance(decision, Note)
    assert isinstance(decision.event, RollbackBegan)


def test_who_can_not_be_measured_neither_passes_nor_fails() -> None:
    plan, state = _about_to_pass()
    dark = _rule(plan, with_worker(state, CLIENT1, replace(state.workers[CLIENT1], after=None, unmeasured="its metrics don't answer")))
    assert Ruling.UNMEASURABLE in {verdict.ruling for verdict in dark.workers[CLIENT1].verdicts.values()}
    decision = decide(plan, dark, dark.last_at_s)
    assert isinstance(decision, WaitUntil) or (isinstance(decision, Note) and isinstance(decision.event, WaitBegan))
