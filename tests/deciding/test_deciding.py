"""What is decided at each state of a rollout, and what would be if one thing about it were otherwise."""

from dataclasses import replace
from typing import Any

import pytest

from rollout.deciding.agenda import agenda_of
from rollout.deciding.decide import LAST_LOOK_S, decide, open_steps
from rollout.deciding.decision import Decision, Finish, Note, Perform
from rollout.deciding.seeing import LOOK_FRESH_S, UNHEALTHY_GRACE_S
from rollout.deciding.state import DeployState, StepStatus
from rollout.model.effect import Effect
from rollout.model.event import (
    Command,
    DeployResumed,
    OperatorSpoke,
    Outcome,
    RollbackBegan,
    StepBegan,
    StepFinished,
    WaitBegan,
    WindDownBegan,
)
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.plan import Plan, steps_of
from tests.deciding.rolled import CLIENT1, fold_all, rolled, state_where, with_worker


def _done_at(decision: Decision) -> Effect | None:
    """Return what is to be done at a worker."""
    return decision.effect if isinstance(decision, Perform) and decision.effect.worker is not None else None


def _begun(plan: Plan, state: DeployState) -> set[WorkerId | None]:
    return {step.worker for step in steps_of(plan.phases) if state.steps[step.id].status is not StepStatus.PENDING}


def _whose_turn(plan: Plan, decision: Decision) -> WorkerId | None:
    if isinstance(decision, Note) and isinstance(decision.event, StepBegan):
        began = decision.event.step_id
        return next(step.worker for step in steps_of(plan.phases) if step.id == began)
    effect = _done_at(decision)
    return effect.worker if effect is not None else None


def test_after_a_pause_nobody_new_has_a_turn() -> None:
    """Whenever it is asked for, while others are under way too."""
    plan, states = rolled()
    first_of_two = 0
    for state in states:
        begun = _begun(plan, state)
        paused = decide(plan, replace(state, asked=Command.PAUSE), state.last_at_s)
        assert _whose_turn(plan, paused) in {None, *begun}
        first_of_two += bool({step.worker for step in agenda_of(plan, state).ready} - begun and agenda_of(plan, state).begun)
    assert first_of_two > 0


def test_what_was_seen_long_ago_says_nothing_about_now() -> None:
    """Where no look has come for a while nothing is done at any worker, whatever was to be done."""
    plan, states = rolled()
    for state in states:
        assert _done_at(decide(plan, state, state.observed_at_s + LOOK_FRESH_S + 0.1)) is None


def test_who_takes_a_rollout_up_looks_before_it_acts() -> None:
    plan, states = rolled()
    acts = 0
    for state in states:
        decision = decide(plan, state, state.last_at_s)
        acts += _done_at(decision) is not None
        resumed = fold_all(plan, state, DeployResumed(state.last_at_s, 1, "somebody", EffectNumber(0)))
        assert _done_at(decide(plan, resumed, state.last_at_s)) is None
    assert acts > len(plan.workers)


def test_nothing_ends_well_with_somebody_out_by_our_hand() -> None:
    plan, states = rolled()
    last = states[-1]
    done = decide(plan, last, last.last_at_s)
    assert isinstance(done, Finish)
    assert done.outcome is Outcome.DEPLOYED
    out = with_worker(last, CLIENT1, replace(last.workers[CLIENT1], drained_by_us=True))
    assert decide(plan, out, last.last_at_s) == Note(WaitBegan(last.last_at_s, "observation", "a last look at client1"))
    late_s = last.progress_at_s + LAST_LOOK_S + 1
    assert decide(plan, out, late_s) == Finish(Outcome.HALTED, "a last look at client1", drained=(CLIENT1,))


@pytest.mark.parametrize("unknown", [{"healthy": None}, {"version": None}, {"process": None}, {"healthy": False}])
def test_nothing_ends_well_with_somebody_of_whom_too_little_is_seen(unknown: dict[str, Any]) -> None:
    plan, states = rolled()
    last = states[-1]
    known = last.workers[CLIENT1]
    assert known.sighting is not None
    unseen = with_worker(last, CLIENT1, replace(known, sighting=replace(known.sighting, **unknown)))
    assert decide(plan, unseen, last.last_at_s) == Note(WaitBegan(last.last_at_s, "observation", "a last look at client1"))


def test_without_the_lease_nobody_is_taken_out() -> None:
    """Neither forward nor on the way back; and who is taken over does nothing more at all."""
    plan, states = rolled()
    taken_out = 0
    for forward in states:
        for state in (forward, fold_all(plan, forward, RollbackBegan(forward.last_at_s, "it fails", requested=False))):
            decision = decide(plan, state, state.last_at_s)
            taken_out += isinstance(decision, Perform) and decision.effect.takes_out
            unheld = decide(plan, replace(state, lease_lost="it ran out"), state.last_at_s)
            assert not (isinstance(unheld, Perform) and unheld.effect.takes_out)
            assert isinstance(decide(plan, replace(state, lease_lost="bob has it", taken_over=True), state.last_at_s), Finish)
    assert taken_out > len(plan.workers)


def test_who_is_skipped_is_left_alone() -> None:
    plan, states = rolled()
    untouched = next(state for state in states if state.began)
    skipped = fold_all(plan, untouched, OperatorSpoke(untouched.last_at_s, Command.SKIP, "somebody", "it is needed", worker=CLIENT1))
    assert {step.worker for step in open_steps(plan, untouched)} - {step.worker for step in open_steps(plan, skipped)} == {CLIENT1}


def test_a_pause_is_heard_in_the_middle_of_the_last_watch() -> None:
    """Also by who has asked in this state before, and has worked out what is still to be done."""
    plan, state = state_where("homeserver/watch", StepStatus.ACTIVE)
    assert agenda_of(plan, state).watching
    asked = fold_all(plan, state, OperatorSpoke(state.last_at_s, Command.PAUSE, "ann", ""))
    assert decide(plan, asked, asked.last_at_s) == Note(WindDownBegan(asked.last_at_s, Outcome.PAUSED, "paused on request"))


def test_the_last_watch_lasts() -> None:
    """And who stops answering in it is no less gone for having passed."""
    plan, states = rolled()
    watching = next(state for state in states if agenda_of(plan, state).watching)
    ends_at_s = watching.last_at_s + plan.watch.watch_s
    for now_s in (watching.last_at_s, ends_at_s - 1.0):
        decision = decide(plan, watching, now_s)
        assert not isinstance(decision, Note) or isinstance(decision.event, WaitBegan)
    for gone_for_s, gone in ((UNHEALTHY_GRACE_S + 1, True), (UNHEALTHY_GRACE_S - 1, False)):
        known = replace(watching.workers[CLIENT1], unhealthy_since_s=watching.last_at_s - gone_for_s)
        decision = decide(plan, with_worker(watching, CLIENT1, known), watching.last_at_s)
        assert (isinstance(decision, Note) and isinstance(decision.event, RollbackBegan)) is gone


@pytest.mark.parametrize("step", ["release/prepare", "release/migrate"])
def test_what_takes_long_and_succeeds_is_not_stuck(step: str) -> None:
    """Its success is the moment at which the next decision is due, long after the last step has ended."""
    plan, state = state_where(step, StepStatus.APPLIED)
    decision = decide(plan, state, state.progress_at_s + 3 * plan.progress_deadline_s)
    assert isinstance(decision, Note)
    assert isinstance(decision.event, StepFinished)
