"""The states of whole rollouts, to ask what would be decided if one thing about them were otherwise."""

import functools
import itertools
from dataclasses import replace
from typing import Any

from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState, StepStatus, WorkerState
from rollout.model.event import DeployFinished, Event
from rollout.model.ids import Role, StepId, WorkerId
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1 = WorkerId("client1")
# The lab's roles, with syncs and clients side by side.
_ORDER = (Role("event_persister"), (Role("sync"), Role("client")), Role("federation_sender"), Role("main"))


@functools.cache
def rolled() -> tuple[Plan, tuple[DeployState, ...]]:
    """Roll out, and return each state but the last, in which it has ended."""
    stage = quick_stage()
    strategy = PLAYBOOK.strategy.model_copy(update={"role_order": _ORDER})
    plan = stage.plan(PLAYBOOK.model_copy(update={"strategy": strategy}))
    rehearse(stage, plan)
    events = [event for _, event in stage.journal.events(DEPLOY)]
    assert isinstance(events[-1], DeployFinished)
    return plan, tuple(itertools.accumulate(events[:-1], functools.partial(fold, plan), initial=start(plan)))[1:]


def state_where(step: str, status: StepStatus) -> tuple[Plan, DeployState]:
    """Return the first state in which a step has got there."""
    plan, states = rolled()
    return plan, next(state for state in states if state.steps[StepId(step)].status is status)


def client1_first(**gates: dict[str, Any]) -> Playbook:
    """Return a playbook whose gates are these, by their ids, with times of their own; client1 goes first."""
    timing = {"samples_min": 50, "soak_s": 10, "deadline_s": 200}
    plain = PLAYBOOK.model_dump(mode="json")
    entries = [{"id": name, **timing, **entry} for name, entry in gates.items()]
    return Playbook.model_validate({**plain, "gates": entries, "strategy": {**plain["strategy"], "canary": "client1"}})


def quick_stage() -> Stage:
    """Return seven workers that are looked at straight in their world."""
    stage = seven_workers()
    stage.sight = Sight.QUICK
    return stage


def fold_all(plan: Plan, state: DeployState, *events: Event) -> DeployState:
    """Take events in, one after the other."""
    return functools.reduce(functools.partial(fold, plan), events, state)


def with_worker(state: DeployState, worker: WorkerId, known: WorkerState) -> DeployState:
    """Know something else of one worker."""
    return replace(state, workers={**state.workers, worker: known})
