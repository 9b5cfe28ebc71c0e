"""What a plan says of its budget of false alarms, and what is outside of it."""

from dataclasses import replace
from typing import Any

import pytest

from rollout.interfaces.budget_text import budget_lines
from rollout.model.plan import Plan, Verb, steps_of
from rollout.model.playbook import Playbook
from tests.simulation.stages import PLAYBOOK, seven_workers

TIMING = {"samples_min": 50, "soak_s": 10, "deadline_s": 1200}
ERRORS = {"id": "errors", "metric": "error_ratio", "test": "sequential", **TIMING}
LATENCY = {"id": "latency", "metric": "latency_p95_s", "test": "sequential", **TIMING}
CPU = {"id": "poll-cpu", "metric": "poll_cpu_s", "ratio_max": 2.0, **TIMING}


def _plan(*gates: dict[str, Any], **changed: Any) -> Plan:  # noqa: ANN401  (keys of a playbook)
    plain = PLAYBOOK.model_dump(mode="json")
    # Who can't be shown to be well by these is watched for being alive.
    return seven_workers().plan(Playbook.model_validate({**plain, "gates": list(gates), **changed}))


def test_the_budget_is_stated_with_what_it_is_spent_over() -> None:
    """Two gates of each worker, and both of each role; four times so many over one in a hundred are the odds."""
    plan = _plan(ERRORS, LATENCY, recovery=None)
    (said,) = budget_lines(plan)
    assert said == (
        "errors, latency: at most 1 % of good rollouts are to be taken back by 13 tests: each needs odds of 5,200 : 1 "
        "(4 times the budget's, since how requests vary is a model)"
    )
    soaks = [step for step in steps_of(plan.phases) if step.verb is Verb.SOAK]
    roles = {worker.id: worker.role for worker in plan.workers}
    alone = [(step.worker, gate) for step in soaks for gate in step.gates]
    together = {(roles[worker], gate) for worker, gate in alone if worker is not None}
    assert len(alone) + len(together) == 13
    assert [gate.odds for gate in plan.gates.values()] == [pytest.approx(4 * 13 / 0.01)] * 2


def test_a_budget_of_one_s_own_is_the_one_that_is_stated() -> None:
    plan = _plan(ERRORS, recovery=None, false_alarms=0.002)
    (said,) = budget_lines(plan)
    assert said.startswith("errors: at most 0.2 % of good rollouts are to be taken back by ")


def test_what_is_outside_of_the_budget_is_named() -> None:
    """Thresholds and the load-recovery gate; not one that nobody heeds."""
    recovery = {"share_min": 0.5, "level_ratio_max": 2.0, "recovery_s": 120, "deadline_s": 600}
    assert list(budget_lines(_plan(ERRORS, CPU, recovery=recovery)))[1:] == ["not in the budget: poll-cpu (threshold), recovery (load)"]
    assert list(budget_lines(_plan(ERRORS, CPU, recovery=None)))[1:] == ["not in the budget: poll-cpu (threshold)"]
    plan = _plan(ERRORS, CPU, recovery=None)
    silent = {name: replace(gate, acts=gate.odds is not None) for name, gate in plan.gates.items()}
    assert list(budget_lines(replace(plan, gates=silent)))[1:] == []


def test_without_sequential_gates_there_is_no_budget() -> None:
    assert list(budget_lines(_plan({**ERRORS, "test": "threshold", "max": 0.01}, CPU))) == []
