"""What became of a restart of which nothing was heard: it is seen by when the process began."""

import pytest

from rollout.deciding.doubt import happened
from rollout.deciding.state import StepStatus
from rollout.model.effect import Effect
from rollout.model.ids import EffectNumber, StepId
from rollout.model.plan import Verb
from tests.deciding.rolled import CLIENT1, state_where

WHEN = {"before it was begun": True, "after it had begun": False, "after it had begun, which isn't over": None, "after the last look": None}


@pytest.mark.parametrize("when", list(WHEN))
def test_a_restart_has_happened_if_a_later_look_shows_a_later_process(when: str) -> None:
    """That the release is the right one shows nothing: an earlier restart may have put it there."""
    plan, state = state_where("client1/await_healthy", StepStatus.DONE)
    sighting = state.workers[CLIENT1].sighting
    assert sighting is not None
    assert sighting.process is not None
    started_at_s = sighting.process.started_at_s
    assert started_at_s is not None
    assert started_at_s + 0.1 < state.observed_at_s
    deadline_at_s = state.observed_at_s + (0.1 if "isn't over" in when else 0.0)
    effect = Effect(EffectNumber(9), StepId("client1/restart"), Verb.RESTART, CLIENT1, plan.to_release.id, deadline_at_s)
    intended_at_s = {
        "before it was begun": started_at_s - 0.1,
        "after it had begun": started_at_s + 0.1,
        "after it had begun, which isn't over": started_at_s + 0.1,
        "after the last look": state.observed_at_s,
    }[when]
    assert happened(plan, state, effect, intended_at_s) is WHEN[when]
