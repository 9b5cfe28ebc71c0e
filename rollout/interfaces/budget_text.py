"""How often a plan's gates may take a good rollout back: by which of them, and which of them nobody has reckoned that of."""

from collections.abc import Iterator

from rollout.model.gate import MODEL_MARGIN
from rollout.model.plan import Plan, Verb, steps_of
from rollout.planning.evidence import tests_of


def budget_lines(plan: Plan) -> Iterator[str]:
    """State the budget of false alarms, how it is spent, and what is outside of it; nothing where no gate is sequential."""
    odds = max((gate.odds for gate in plan.gates.values() if gate.odds is not None), default=None)
    if odds is None:
        return
    sequential = [gate.id for gate in plan.gates.values() if gate.odds is not None]
    each = [
        (step.worker, name) for step in steps_of(plan.phases) if step.verb is Verb.SOAK and step.worker is not None for name in step.gates
    ]
    tests = max(1, tests_of(each, plan.gates, {worker.id: worker.role for worker in plan.workers}))
    share = MODEL_MARGIN * tests / odds
    yield (
        f"{', '.join(sequential)}: at most {100 * share:.2g} % of good rollouts are to be taken back by {tests} tests: each needs odds of "
        f"{odds:,.0f} : 1 ({MODEL_MARGIN:g} times the budget's, since how requests vary is a model)"
    )
    outside = [f"{gate.id} (threshold)" for gate in plan.gates.values() if gate.odds is None and gate.acts]
    outside += [] if plan.recovery is None else ["recovery (load)"]
    if outside:
        yield f"not in the budget: {', '.join(outside)}"
