"""What becomes of a worker by what its gates rule."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from rollout.deciding import soaking
from rollout.deciding.decide import FIGURES_EVERY_S, decide
from rollout.deciding.decision import Decision, Note, WaitUntil
from rollout.deciding.state import DeployState, Direction, without_figures
from rollout.model.event import GateRuled, RollbackBegan, StepFinished, WaitBegan
from rollout.model.gate import Evidence, Metric, Ruling, Verdict
from rollout.model.ids import StepId
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import DEPLOY, rehearse
from tests.deciding.rolled import CLIENT1, fold_all, rolled, with_worker
from tests.gating import evidence_at_hand
from tests.simulation.stages import PLAYBOOK, seven_workers


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


def _evidence_waits() -> list[WaitBegan]:
    """What is waited for where a gate wants more requests than come before its deadline."""
    stage = seven_workers()
    stage.sight = Sight.QUICK
    gates = [{"id": "errors", "metric": "error_ratio", "max": 0.02, "samples_min": 3000, "soak_s": 10, "deadline_s": 100}]
    plan = stage.plan(Playbook.model_validate(PLAYBOOK.model_dump(mode="json") | {"gates": gates}))
    rehearse(stage, plan)
    return [event for _, event in stage.journal.events(DEPLOY) if isinstance(event, WaitBegan) and event.cause == "evidence"]


def test_what_a_gate_lacks_is_said_while_it_is_waited_for() -> None:
    """Each reason once, and anew with its latest figures every half minute: a line for each measurement would fill the journal."""
    waits = _evidence_waits()
    assert all(re.fullmatch(r"\w+ has yet to pass errors: it has \d+ of the 3000 requests needed", wait.why) for wait in waits[1:]), waits
    assert len({wait.why for wait in waits}) == len(waits) >= 3
    same = [(one, other) for one, other in pairwise(waits) if without_figures(one.why) == without_figures(other.why)]
    assert same
    assert all(FIGURES_EVERY_S <= other.at_s - one.at_s < FIGURES_EVERY_S + 5 for one, other in same)


def test_the_name_of_a_worker_is_no_figure() -> None:
    assert without_figures("client1: 12 of 30, 1.25 × (3.2 : 1); p95 of 5,000") == "client1:  of ,  × ( : ); p95 of "


@pytest.mark.parametrize("odds", [None, 1000.0], ids=["threshold", "sequential"])
@pytest.mark.parametrize(
    ("unseen", "why"),
    [({"proxy": None}, "its proxy can't be seen"), ({"cuts": None}, "its proxy doesn't count requests")],
    ids=["away", "uncounted"],
)
def test_what_fails_at_a_proxy_that_can_not_be_asked_is_unmeasurable(odds: float | None, unseen: dict[str, Any], why: str) -> None:
    """Its metrics page is read all the while, and what it was given before is no news."""
    plan, state = _about_to_pass()
    known = state.workers[CLIENT1]
    sighting = known.sighting
    assert sighting is not None
    assert sighting.proxy is not None
    gate = evidence_at_hand.gate(Metric.PROXY_FAILURES, max=0.05, odds=odds)
    assert soaking.verdict_of(plan, state, CLIENT1, gate, state.last_at_s).ruling is not Ruling.UNMEASURABLE
    blind = replace(sighting, proxy=None) if "proxy" in unseen else replace(sighting, proxy=replace(sighting.proxy, **unseen))
    verdict = soaking.verdict_of(plan, with_worker(state, CLIENT1, replace(known, sighting=blind)), CLIENT1, gate, state.last_at_s)
    assert verdict.ruling is Ruling.UNMEASURABLE
    assert verdict.because.endswith(why)


@pytest.mark.parametrize("acts", [True, False])
def test_on_the_way_back_only_a_gate_that_acts_says_that_somebody_is_not_well(*, acts: bool) -> None:
    plan, state = _about_to_pass()
    name = next(iter(plan.gates))
    plan = replace(plan, gates={**plan.gates, name: replace(plan.gates[name], acts=acts)})
    failed = Verdict(name, Ruling.FAIL, "too slow", Evidence(1.0, None, None, None))
    state = fold_all(
        plan, replace(state, direction=Direction.BACK), GateRuled(state.last_at_s, StepId("rollback/client1/soak"), CLIENT1, failed)
    )
    assert state.rollback_failures == (("client1: too slow",) if acts else ())
    assert (state.workers[CLIENT1].failed_at_s is not None) is acts
