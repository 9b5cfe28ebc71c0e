"""What forbids taking a worker out: whoever of its pool is out, or isn't seen to be in, and a database that is away."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollout.deciding.blocking import blocker_of
from rollout.deciding.decision import Wait
from rollout.deciding.index import index_of
from rollout.deciding.state import DeployState, Direction, StepStatus, WorkerState
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan
from tests.deciding.rolled import CLIENT1, state_where, with_worker

CLIENT2 = WorkerId("client2")


def _in_turn() -> tuple[Plan, DeployState]:
    """client1, the only other one of its pool, is back, and client2 is about to be drained."""
    plan, state = state_where("client2/drain", StepStatus.ACTIVE)
    assert state.workers[CLIENT1].touched
    return plan, state


def _cause(plan: Plan, state: DeployState) -> str:
    answer = blocker_of(plan, state, index_of(plan).workers[CLIENT2], state.last_at_s)
    assert answer is None or isinstance(answer, Wait)
    return "" if answer is None else answer.cause


def _seen(known: WorkerState, *, admitted: bool = True, up: bool = True) -> WorkerState:
    assert known.sighting is not None
    assert known.sighting.proxy is not None
    return replace(known, sighting=replace(known.sighting, proxy=replace(known.sighting.proxy, admitted=admitted, up=up)))


OUT: dict[str, Callable[[DeployState, WorkerState], WorkerState]] = {
    "drained, which no look has shown yet": lambda _, known: replace(known, drained_by_us=True),
    "restarted, which no look has shown yet": lambda state, known: replace(known, acted_at_s=state.observed_at_s),
    "seen out": lambda _, known: _seen(known, admitted=False),
    "seen down": lambda _, known: _seen(known, up=False),
    "not seen": lambda state, known: replace(known, missing="its host doesn't answer", seen_at_s=state.observed_at_s - 60),
}


@pytest.mark.parametrize("how", list(OUT))
def test_no_more_than_may_be_out_are_taken_out(how: str) -> None:
    plan, state = _in_turn()
    assert _cause(plan, state) == ""
    assert _cause(plan, with_worker(state, CLIENT1, OUT[how](state, state.workers[CLIENT1]))) == "capacity"


@pytest.mark.parametrize("direction", list(Direction))
def test_nobody_goes_down_while_the_database_is_away(direction: Direction) -> None:
    """No release could start, whichever way."""
    plan, state = _in_turn()
    assert _cause(plan, replace(state, direction=direction, no_database="connection refused")) == "database"


@pytest.mark.parametrize("direction", list(Direction))
def test_whose_host_cant_be_asked_stays_in(direction: Direction) -> None:
    """Nobody could restart it there, so it would be out for as long as its host is away."""
    plan, state = _in_turn()
    known = state.workers[CLIENT2]
    assert known.sighting is not None
    unseen = replace(known.sighting, process=None, unseen=("the host can't be reached",))
    away = replace(with_worker(state, CLIENT2, replace(known, sighting=unseen)), direction=direction)
    answer = blocker_of(plan, away, index_of(plan).workers[CLIENT2], away.last_at_s)
    assert isinstance(answer, Wait)
    assert answer.why == "client2 may not go down: how it runs can't be seen (the host can't be reached)"
