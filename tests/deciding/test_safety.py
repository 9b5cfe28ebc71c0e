"""What is done with a worker that is out when a rollout has to stop."""

from dataclasses import replace

from rollout.deciding.decide import decide
from rollout.deciding.decision import Decision, Finish, Perform
from rollout.deciding.safety import SAFE_WITHIN_S
from rollout.deciding.state import DeployState, StepStatus
from rollout.model.event import Outcome, RollbackBegan, WindDownBegan
from rollout.model.ids import ReleaseId
from rollout.model.plan import Plan, Verb, goes_back_to
from tests.deciding.rolled import CLIENT1, fold_all, state_where, with_worker


def _stopped(*, back: bool) -> tuple[Plan, DeployState]:
    """client1 runs the new release and answers, but has yet to be admitted; *back* from that release, or not."""
    plan, state = state_where("client1/admit", StepStatus.ACTIVE)
    at_s = state.last_at_s
    condemned = (RollbackBegan(at_s, "it fails", requested=False),) if back else ()
    return plan, fold_all(plan, state, *condemned, WindDownBegan(at_s, Outcome.INTERRUPTED, "interrupted"))


def _done(decision: Decision) -> tuple[Verb, ReleaseId] | None:
    """Say what is done with client1."""
    if not isinstance(decision, Perform) or decision.effect.worker != CLIENT1:
        return None
    return decision.effect.verb, decision.effect.release


def test_who_answers_is_let_back_in() -> None:
    plan, state = _stopped(back=False)
    assert _done(decide(plan, state, state.last_at_s)) == (Verb.ADMIT, plan.to_release.id)


def test_nobody_is_let_back_in_on_what_is_taken_back() -> None:
    """It is started on what it ran before, which was restarted already, with the requests that it has left to their end, and once."""
    plan, state = _stopped(back=True)
    assert _done(decide(plan, state, state.last_at_s)) == (Verb.RESTART, goes_back_to(plan, CLIENT1))
    known = state.workers[CLIENT1]
    assert known.sighting is not None
    assert known.sighting.proxy is not None
    for sessions in (3, None):
        busy = replace(known, sighting=replace(known.sighting, proxy=replace(known.sighting.proxy, sessions=sessions)))
        assert _done(decide(plan, with_worker(state, CLIENT1, busy), state.last_at_s)) is None
    once = with_worker(state, CLIENT1, replace(known, restarts_to_safety=1))
    assert _done(decide(plan, once, state.last_at_s)) is None


def test_who_could_not_be_brought_back_is_named() -> None:
    plan, state = _stopped(back=False)
    end = decide(plan, state, state.wind_down_at_s + 2 * SAFE_WITHIN_S)
    assert isinstance(end, Finish)
    assert (end.outcome, CLIENT1 in end.drained) == (Outcome.HALTED, True)
    assert "client1" in end.why


def test_who_bears_our_mark_is_out_unless_the_proxy_says_otherwise() -> None:
    """What was said to be an admission doesn't count, nor does a proxy that says nothing."""
    plan, state = _stopped(back=False)
    known = replace(state.workers[CLIENT1], drained_by_us=False)
    assert known.sighting is not None
    assert known.sighting.drain is not None
    for proxy in (known.sighting.proxy, None):
        marked = with_worker(state, CLIENT1, replace(known, sighting=replace(known.sighting, proxy=proxy)))
        end = decide(plan, marked, state.wind_down_at_s + 2 * SAFE_WITHIN_S)
        assert isinstance(end, Finish)
        assert (end.outcome, CLIENT1 in end.drained) == (Outcome.HALTED, True)


def test_who_was_restarted_is_not_back_while_its_proxy_is_silent() -> None:
    plan, state = state_where("client1/soak", StepStatus.ACTIVE)
    stopped = fold_all(plan, state, WindDownBegan(state.last_at_s, Outcome.INTERRUPTED, "interrupted"))
    known = stopped.workers[CLIENT1]
    assert known.sighting is not None
    assert isinstance(decide(plan, stopped, stopped.last_at_s), Finish)
    unseen = with_worker(stopped, CLIENT1, replace(known, sighting=replace(known.sighting, proxy=None)))
    assert not isinstance(decide(plan, unseen, stopped.last_at_s), Finish)
    end = decide(plan, unseen, stopped.wind_down_at_s + 2 * SAFE_WITHIN_S)
    assert isinstance(end, Finish)
    assert (end.outcome, CLIENT1 in end.drained) == (Outcome.HALTED, True)
