"""Gates that don't act, of those whose other gates have passed: they go on ruling until the last watch has ended."""

from typing import Any

import pytest

from rollout.interfaces.narrate import narrate
from rollout.interfaces.paging import Pages
from rollout.model.event import Event, GateRuled, Outcome, StepBegan, StepFinished
from rollout.model.gate import Ruling
from rollout.model.ids import DeployId
from rollout.model.playbook import Playbook
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.deciding.rolled import CLIENT1, client1_first, quick_stage

KINDS: dict[str, dict[str, Any]] = {"threshold": {"max": 0.02}, "sequential": {"test": "sequential"}}


def _playbook(**errors: Any) -> Playbook:  # noqa: ANN401  (any field of an entry)
    """A gate on latency acts, one on errors doesn't; client1 first."""
    latency = {"metric": "latency_p95_s", "ratio_max": 1.5, "slack": 0.05}
    return client1_first(errors={"metric": "error_ratio", "act": False, **errors}, latency=latency)


def _events(stage: Stage) -> list[Event]:
    return [event for _, event in stage.journal.events(DEPLOY)]


def _said(stage: Stage) -> list[GateRuled]:
    """What the gate that doesn't act said of client1."""
    return [event for event in _events(stage) if isinstance(event, GateRuled) and (event.worker, event.verdict.gate) == (CLIENT1, "errors")]


def _passed_at_s(stage: Stage) -> float:
    return next(event.at_s for event in _events(stage) if isinstance(event, StepFinished) and event.step_id == "client1/soak")


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_rules_after_those_that_act_have_passed(kind: str) -> None:
    """Its own soak is longer than theirs: nobody waits for it, and it says PASS all the same."""
    stage = quick_stage()
    plan = stage.plan(_playbook(**KINDS[kind], soak_s=40))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    (said,) = _said(stage)
    assert said.verdict.ruling is Ruling.PASS
    assert said.at_s > _passed_at_s(stage) + 20
    assert (narrate(said, plan) or "").startswith("client1 passes errors, which nobody heeds: ")


@pytest.mark.parametrize(("kind", "rulings"), [("threshold", [Ruling.PASS, Ruling.FAIL]), ("sequential", [Ruling.FAIL])])
def test_it_says_what_became_bad_later_and_nobody_heeds_it(kind: str, rulings: list[Ruling]) -> None:
    """Errors begin when client2 has its turn, and client1 has passed what acts; a sequential gate takes longer to be sure than that."""
    stage = quick_stage()
    plan = stage.plan(_playbook(**KINDS[kind]))

    def spoil(event: Event, _state: object) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/drain":
            stage.world.erring[plan.to_release.id] = 0.3

    state = rehearse(stage, plan, listeners=(spoil,))
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert [event.verdict.ruling for event in _said(stage)] == rulings
    assert _said(stage)[-1].at_s > _passed_at_s(stage)
    # It is told of, and wakes nobody.
    pages = Pages(DeployId("d"), plan)
    assert pages.of(_said(stage)[-1], state) is None
