"""A worker's way out of its traffic and back into it, in parts: by whole rollouts of a simulated homeserver."""

import itertools
from typing import TypeGuard

import pytest

from rollout.deciding.state import DeployState
from rollout.model.effect import Effect
from rollout.model.event import Command, EffectIntended, Event, Outcome
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.model.playbook import Capacity, Playbook, Strategy
from rollout.simulation.rehearse import DEPLOY, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers


def _with_strategy(**changes: object) -> Playbook:
    strategy = PLAYBOOK.strategy.model_dump() | changes
    return PLAYBOOK.model_copy(update={"strategy": Strategy.model_validate(strategy)})


def test_a_ramp_by_utilisation_gives_a_cold_worker_its_traffic_back_in_small_steps() -> None:
    """A cold worker, four times as dear at first, is never given more than it bears, and has all of it in the end."""
    stage = seven_workers()
    stage.world.request_cpu_s, stage.world.cold_factor, stage.world.cold_s = 0.02, 4.0, 60.0
    playbook = _with_strategy(ramp={"weights": [10, 100], "step_s": 4, "utilisation_max": 0.7})
    # Two of .4 each: what one has to bear alone is not what is asked here.
    plan = stage.plan(playbook.model_copy(update={"capacity": Capacity(utilisation_max=1.0, p95_ratio_max=None)}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    weights = [
        event.effect.weight
        for _, event in stage.journal.events(DEPLOY)
        if isinstance(event, EffectIntended) and (event.effect.verb, event.effect.worker) == (Verb.ADMIT, WorkerId("sync1"))
    ]
    assert weights[0] == 10
    assert weights[-1] == 100
    assert len(weights) > 4, weights
    assert all(later <= 2 * earlier + 5 for earlier, later in itertools.pairwise(weights)), weights
    assert_safe(stage, plan, state)


def test_the_way_down_moves_users_in_parts() -> None:
    """Half of the weight first, then the drain; and the users that move are counted."""
    stage = seven_workers()
    plan = stage.plan(_with_strategy(ramp={"weights": [50, 100], "step_s": 3, "down": [50]}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    drains = [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "sync1")]
    assert drains == [50, 0]
    assert state.workers[WorkerId("sync1")].users_moved == 10
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("trouble", ["hangs", "never_boots"])
def test_the_way_down_never_admits_who_is_out_or_dead(trouble: str) -> None:
    """client1 is drained and doesn't come up: on the way back there is nothing to move in parts, and half a weight would cut requests."""
    stage = seven_workers()
    plan = stage.plan(_with_strategy(canary="client1", ramp={"weights": [10, 50, 100], "step_s": 3, "down": [50]}))
    (stage.world.hangs if trouble == "hangs" else stage.world.never_boots).add(plan.to_release.id)
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    drains = [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "client1")]
    assert drains == [50, 0, 0]
    assert_safe(stage, plan, state)


def test_the_way_down_never_admits_who_was_left_out_and_stopped() -> None:
    """An earlier rollout was killed when client1 was drained and stopped; this one takes it as it is."""
    stage = seven_workers()
    client1 = WorkerId("client1")
    with stage.drivers.ledger.fence(Effect(EffectNumber(1), StepId("client1/drain"), Verb.DRAIN, client1, stage.old.id, 0.0)):
        stage.world.drain(client1)
    stage.clock.advance_to(stage.clock.now_s() + 30)
    stage.world.stop(client1)
    plan = stage.plan(_with_strategy(ramp={"weights": [50, 100], "step_s": 3, "down": [50]}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "client1")] == [0]
    assert_safe(stage, plan, state)


def test_the_way_down_begins_below_the_weight_that_a_worker_has() -> None:
    """client1 has a tenth of its weight when it is taken back: it isn't raised to a half on its way out."""
    stage = seven_workers()
    plan = stage.plan(_with_strategy(canary="client1", ramp={"weights": [10, 100], "step_s": 60, "down": [50, 5]}))
    lines: list[int] = []

    def find(_event: Event, state: DeployState) -> None:
        if state.steps[StepId("client1/admit")].weights_applied == 1:
            lines.append(len(stage.journal.events(DEPLOY)))

    rehearse(stage, plan, listeners=(find,))
    stage = seven_workers()
    state = rehearse(stage, plan, speak={lines[0] + 4: Command.ROLLBACK})
    assert state.outcome is Outcome.ROLLED_BACK_ON_REQUEST, state.outcome_why
    drains = [event.effect.weight for _, event in stage.journal.events(DEPLOY) if _is_drain_of(event, "client1")]
    assert drains == [50, 5, 0, 5, 0]
    assert_safe(stage, plan, state)


def _is_drain_of(event: Event, worker: str) -> TypeGuard[EffectIntended]:
    return isinstance(event, EffectIntended) and (event.effect.verb, event.effect.worker) == (Verb.DRAIN, worker)
