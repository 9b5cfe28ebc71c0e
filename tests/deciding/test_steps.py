"""What the steps of one worker wait for, in the order of its turn."""

from dataclasses import replace
from typing import Any

import pytest

from rollout.deciding.decide import decide
from rollout.deciding.decision import Note, Perform
from rollout.deciding.seeing import seen_after
from rollout.deciding.state import DeployState
from rollout.model.event import Event, StepFinished
from rollout.model.ids import StepId
from rollout.model.plan import Plan, Verb
from tests.deciding.rolled import CLIENT1, rolled, with_worker


def _about_to(step: str, event: type[Event] | Verb) -> tuple[Plan, DeployState]:
    """Return the first state in which a step of client1 is noted to have ended, or done."""
    plan, states = rolled()
    return plan, next(state for state in states if _answer(plan, state, step) is event)


def _answer(plan: Plan, state: DeployState, step: str) -> type[Event] | Verb | None:
    """Say what is decided about a step; None while it waits, or another has something to do first."""
    match decide(plan, state, state.last_at_s):
        case Note(StepFinished(step_id=step_id)) if step_id == step:
            return StepFinished
        case Perform(effect) if effect.step_id == step:
            return effect.verb
        case _:
            return None


def _seeing(state: DeployState, part: str, changes: dict[str, Any]) -> DeployState:
    """Let the last look have shown something else of client1."""
    known = state.workers[CLIENT1]
    sighting = known.sighting
    assert sighting is not None
    shown = changes if part == "" else {part: replace(getattr(sighting, part), **changes)}
    return with_worker(state, CLIENT1, replace(known, sighting=replace(sighting, **shown)))


@pytest.mark.parametrize(
    ("shown", "answer"),
    [({"sessions": 0}, StepFinished), ({"sessions": 1}, None), ({"sessions": None}, None), ({"admitted": True}, Verb.DRAIN)],
)
def test_a_drain_ends_with_the_last_session(shown: dict[str, Any], answer: type[Event] | Verb | None) -> None:
    """A proxy that has forgotten it is told once more."""
    plan, state = _about_to("client1/drain", StepFinished)
    assert _answer(plan, _seeing(state, "proxy", shown), "client1/drain") is answer


@pytest.mark.parametrize("shown", [{"sessions": 1}, {"sessions": None}, {"admitted": True}])
def test_who_has_traffic_again_is_drained_again_before_its_restart(shown: dict[str, Any]) -> None:
    plan, state = _about_to("client1/restart", Verb.RESTART)
    busy = _seeing(state, "proxy", shown)
    assert _answer(plan, busy, "client1/restart") is None
    assert _answer(plan, busy, "client1/drain") is Verb.DRAIN


def test_whose_host_cant_be_asked_is_not_restarted_yet() -> None:
    """An attempt would be lost, and with the last one the rollout would go back for a host that is only away."""
    plan, state = _about_to("client1/restart", Verb.RESTART)
    away = _seeing(state, "", {"process": None, "unseen": ("the host can't be reached",)})
    waits = decide(plan, away, away.last_at_s)
    assert _answer(plan, away, "client1/restart") is None
    assert "how client1 runs can't be seen, so it isn't restarted yet: the host can't be reached" in str(waits)


@pytest.mark.parametrize(
    ("part", "shown"), [("", {"healthy": False}), ("", {"healthy": None}), ("", {"version": "1.0.0"}), ("proxy", {"up": False})]
)
def test_who_was_started_gets_nothing_before_it_answers(part: str, shown: dict[str, Any]) -> None:
    """On the release that it shall run, to its proxy too."""
    plan, state = _about_to("client1/await_healthy", StepFinished)
    assert _answer(plan, _seeing(state, part, shown), "client1/await_healthy") is None


def test_what_was_seen_before_the_start_does_not_count_for_it() -> None:
    plan, state = _about_to("client1/await_healthy", StepFinished)
    await_healthy = StepId("client1/await_healthy")
    began = replace(state.steps[await_healthy], began_at_s=state.observed_at_s)
    assert seen_after(state, state.workers[CLIENT1], None) is not None
    assert _answer(plan, replace(state, steps={**state.steps, await_healthy: began}), "client1/await_healthy") is None
