"""Nobody is there any more: what the dead-man does to a simulated homeserver, and what a tool makes of it that comes back."""

from collections.abc import Sequence

import pytest

from rollout.agent.rule import Ruling
from rollout.deciding.state import DeployState
from rollout.engine.leasing import ALIVE_FOR_S
from rollout.engine.rescue import admit_ours
from rollout.model.effect import Effect
from rollout.model.event import DeployFinished, EffectFailed, EffectIntended, EffectSucceeded, Event, Outcome
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.simulation.drivers import READMIT_AFTER_S, SimulatedLedger
from rollout.simulation.rehearse import DEPLOY, SWEEP_EVERY_S, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1, MAIN = WorkerId("client1"), WorkerId("main")


def _journal() -> Sequence[Event]:
    stage = seven_workers()
    rehearse(stage, stage.plan(PLAYBOOK))
    return [event for _, event in stage.journal.events(DEPLOY)]


def _line_after(verb: Verb) -> int:
    """Count the lines until *verb* was done to client1."""
    events = _journal()
    number = next(
        event.effect.number
        for event in events
        if isinstance(event, EffectIntended) and event.effect.verb is verb and event.effect.worker == CLIENT1
    )
    return next(line for line, event in enumerate(events, 1) if isinstance(event, EffectSucceeded) and event.number == number)


@pytest.mark.parametrize("verb", [Verb.DRAIN, Verb.RESTART])
def test_a_rollout_that_is_gone_leaves_nobody_out_for_long_and_may_come_back(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after it drained, or restarted, a worker; taken up ten minutes later it ends as if nothing had been."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    line = _line_after(verb)
    admitted_after_s: list[float] = []
    gone_at_s = 0.0

    def listen(_event: Event, _state: DeployState) -> None:
        nonlocal gone_at_s
        gone_at_s = stage.clock.now_s()

    def sweep(now_s: float) -> dict[WorkerId, Ruling]:
        rulings = SimulatedLedger.sweep(stage.ledger, now_s)
        if CLIENT1 in rulings and stage.world.workers[CLIENT1].admitted and not admitted_after_s:
            admitted_after_s.append(now_s - gone_at_s)
        return rulings

    monkeypatch.setattr(stage.ledger, "sweep", sweep)
    state = rehearse(stage, plan, crash_after=(line,), nobody_for_s=600.0, listeners=(listen,))
    # Its mark may be some minutes old already; whoever beat last is believed for half a minute.
    assert [ALIVE_FOR_S < seconds <= READMIT_AFTER_S + SWEEP_EVERY_S for seconds in admitted_after_s] == [True]
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    # Main isn't held, and its restart cuts what is under way.
    assert set(stage.world.cuts) <= {MAIN}
    assert_safe(stage, plan, state)


def test_it_leaves_alone_what_others_drained_and_what_is_condemned() -> None:
    """Only what has our mark is ours; and never on the release that it was being taken back from."""
    stage = seven_workers()
    stage.world.drain(WorkerId("sync1"))
    effect = Effect(EffectNumber(1), StepId("client1/drain"), Verb.DRAIN, CLIENT1, stage.old.id, 0.0, condemned=stage.old.id)
    with stage.ledger.fence(effect):
        stage.world.drain(CLIENT1)
    rulings = stage.ledger.sweep(stage.clock.now_s() + 1000.0)
    assert {worker: ruling.state for worker, ruling in rulings.items()} == {CLIENT1: "condemned"}
    assert not stage.world.workers[CLIENT1].admitted
    assert not stage.world.workers[WorkerId("sync1")].admitted


@pytest.mark.parametrize("verb", [Verb.DRAIN, Verb.ADMIT])
def test_by_hand_in_the_middle_of_a_rollout_is_survived(verb: Verb) -> None:
    """`rollout admit` takes a number that the rollout doesn't know; it is refused once, and goes on above it without cutting anybody."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    line, count = _line_after(verb), 0

    def listen(_event: Event, _state: DeployState) -> None:
        nonlocal count
        count += 1
        if count == line:
            admit_ours(stage.drivers, stage.inventory, pause=lambda _: None)

    state = rehearse(stage, plan, listeners=(listen,))
    events = [event for _, event in stage.journal.events(DEPLOY)]
    refused = [event for event in events if isinstance(event, EffectFailed)]
    assert refused
    assert all(not event.permanent and event.ledger_number > event.number for event in refused)
    assert isinstance(events[-1], DeployFinished)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    # Main isn't held, and its restart cuts what is under way.
    assert set(stage.world.cuts) <= {MAIN}
    assert_safe(stage, plan, state)


def test_a_rollout_that_was_taken_over_says_so() -> None:
    """Somebody took a higher token: the next that this one does, an act or only a beat, is refused, and it stops there."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    line, count = _line_after(Verb.DRAIN), 0

    def listen(_event: Event, _state: DeployState) -> None:
        nonlocal count
        count += 1
        if count == line:
            stage.ledger.take(2, "bob's rollout")

    state = rehearse(stage, plan, listeners=(listen,))
    assert state.outcome is Outcome.INTERRUPTED
    assert "bob's rollout has taken over" in state.outcome_why
