"""What is kept from one decision to the next, to be quick, changes no decision."""

import copy
import itertools
from dataclasses import replace

import pytest

from rollout.deciding.decide import decide, focus, is_eager, open_steps
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState
from rollout.model.event import Command, Event
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.plan import Plan
from rollout.model.playbook import Rollback, Watch
from rollout.simulation.faults import Fault
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import DEPLOY, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

WATCHED = PLAYBOOK.model_copy(update={"watch": Watch(watch_s=40, window_s=6), "rollback": Rollback(scope="blamed")})
SCRIPTS: dict[str, dict[str, object]] = {
    "works": {},
    "fails in the watch": {"bad": 150},
    "is taken back": {"speak": {150: Command.ROLLBACK}},
    "is paused": {"speak": {120: Command.PAUSE}},
    "has a worker skipped": {"speak": {60: (Command.SKIP, WorkerId("sync2"))}},
    "is interrupted and resumed": {"speak": {140: Command.INTERRUPT}, "crash_after": (90,)},
    "has lost effects": {"faults": {EffectNumber(4): Fault.UNKNOWN_DONE, EffectNumber(9): Fault.UNKNOWN_NOT_DONE}},
}


def _rolled(script: dict[str, object]) -> tuple[Plan, list[Event]]:
    """Roll out, and read the journal."""
    stage = seven_workers()
    stage.sight = Sight.QUICK
    plan = stage.plan(WATCHED)
    lines = itertools.count(1)
    bad = script.pop("bad", None)

    def turn_bad(_event: Event, _state: DeployState) -> None:
        if next(lines) == bad:
            stage.world.erring[plan.to_release.id] = 0.5

    rehearse(stage, plan, listeners=(turn_bad,), **script)  # type: ignore[arg-type]
    return plan, [event for _, event in stage.journal.events(DEPLOY)]


def _answers(plan: Plan, state: DeployState, now_s: float) -> tuple[object, ...]:
    if state.outcome is not None:
        return (decide(plan, state, now_s),)
    return decide(plan, state, now_s), focus(plan, state), is_eager(plan, state), open_steps(plan, state)


@pytest.mark.parametrize("script", list(SCRIPTS))
def test_a_plan_that_was_never_asked_decides_the_same(script: str) -> None:
    """At each state of a rollout, the plan that was asked all the time answers as one that is asked for the first time."""
    plan, events = _rolled(dict(SCRIPTS[script]))
    assert len(events) > 100
    state = start(plan)
    for event in events:
        state = fold(plan, state, event)
        for asked in (state, _with_one_more_touched(state), state):
            for now_s in (state.last_at_s, state.last_at_s + 1.0):
                assert _answers(plan, asked, now_s) == _answers(_unasked(plan), asked, now_s), event


def _with_one_more_touched(state: DeployState) -> DeployState:
    """Restart somebody aside from the steps, as is done to leave nothing out."""
    client2 = WorkerId("client2")
    return replace(state, workers={**state.workers, client2: replace(state.workers[client2], touched=True)})


def test_two_rollouts_of_one_plan_do_not_mix() -> None:
    """They are asked by turns."""
    plan, events = _rolled(dict(SCRIPTS["fails in the watch"]))
    states = list(itertools.accumulate(events, lambda state, event: fold(plan, state, event), initial=start(plan)))[1:]
    for one, other in zip(states, reversed(states), strict=True):
        for state in (one, other):
            assert _answers(plan, state, state.last_at_s) == _answers(_unasked(plan), state, state.last_at_s)


def _unasked(plan: Plan) -> Plan:
    """Copy a plan: what is kept is kept by identity."""
    return copy.copy(plan)
