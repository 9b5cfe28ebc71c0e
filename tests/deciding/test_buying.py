"""To whom requests are sent that buy evidence: to nobody whom they could harm, and to nobody of whom they would tell a lie."""

from dataclasses import replace

import pytest

from rollout.deciding.buying import asked
from rollout.deciding.state import DeployState, StepStatus
from rollout.model.buying import Buying
from rollout.model.effect import Effect
from rollout.model.event import LeaseLost, LeaseRegained, Outcome, WindDownBegan
from rollout.model.gate import Tally
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Plan, Verb
from tests.deciding.rolled import CLIENT1, fold_all, state_where, with_worker

CLIENT2, SYNC1, MAIN = WorkerId("client2"), WorkerId("sync1"), WorkerId("main")
BUYING = Buying(per_s=1.0, requests_max=100, cpu_max=0.5, workers=(CLIENT1, CLIENT2, SYNC1, MAIN))


def _where(step: str, status: StepStatus = StepStatus.ACTIVE) -> tuple[Plan, DeployState]:
    """Return a state in which everybody asked was measured, at ease, a moment ago."""
    plan, state = state_where(step, status)
    for worker in BUYING.workers:
        known = state.workers[worker]
        since_s = max(state.last_at_s - 2.0, known.admitted_at_s or 0.0)
        at_ease = Tally(since_s, since_s + 2.0, requests=40, cpu_s=0.2)
        state = with_worker(state, worker, replace(known, recent=(at_ease,), unmeasured=None))
    return replace(plan, buying=BUYING), state


def test_all_that_can_be_asked_are_while_the_baseline_is_taken() -> None:
    plan, state = _where("homeserver/survey")
    assert asked(plan, state) == set(BUYING.workers)


def test_who_soaks_and_its_pool_are_asked_and_those_who_passed() -> None:
    plan, state = _where("client1/soak")
    assert asked(plan, state) >= {CLIENT1, CLIENT2}
    assert MAIN not in asked(plan, state)


def test_everybody_is_in_the_last_watch() -> None:
    plan, state = _where("homeserver/watch")
    assert asked(plan, state) == set(BUYING.workers)


def test_nobody_is_asked_where_the_plan_buys_nothing() -> None:
    plan, state = _where("homeserver/survey")
    assert asked(replace(plan, buying=None), state) == frozenset()


def test_nobody_is_asked_without_the_lease_or_when_the_rollout_stops() -> None:
    plan, state = _where("client1/soak")
    at_s = state.last_at_s
    lost = fold_all(plan, state, LeaseLost(at_s, "it has run out", taken_over=False))
    assert asked(plan, lost) == frozenset()
    assert asked(plan, fold_all(plan, lost, LeaseRegained(at_s))) == asked(plan, state)
    assert asked(plan, fold_all(plan, state, WindDownBegan(at_s, Outcome.PAUSED, "asked for"))) == frozenset()
    assert asked(plan, replace(state, outcome=Outcome.PAUSED)) == frozenset()


def test_who_is_drained_or_acted_on_is_left_alone() -> None:
    plan, state = _where("client1/soak")
    known = state.workers[CLIENT1]
    assert CLIENT1 not in asked(plan, with_worker(state, CLIENT1, replace(known, drained_by_us=True)))
    effect = Effect(EffectNumber(999), StepId("client1/soak"), Verb.RESTART, CLIENT1, plan.to_release.id, state.last_at_s + 60)
    for flight in ({"in_flight": {effect.number: effect}}, {"in_doubt": {effect.number: effect}}):
        assert asked(plan, replace(state, **flight)) == asked(plan, state) - {CLIENT1}  # type: ignore[arg-type]


def test_who_was_acted_on_is_asked_again_once_it_was_seen_since() -> None:
    plan, state = _where("client1/soak")
    since = replace(state.workers[CLIENT1], acted_at_s=state.observed_at_s + 1.0)
    assert CLIENT1 not in asked(plan, with_worker(state, CLIENT1, since))


@pytest.mark.parametrize(
    "change",
    [
        {"bought": 100},
        {"unmeasured": "connection refused"},
        {"recent": ()},
        {"well_since_s": None},
        {"missing": "nobody has seen it"},
    ],
    ids=["budget", "unmeasured", "never measured", "not well", "missing"],
)
def test_unknown_is_never_at_ease_and_a_budget_is_kept(change: dict[str, object]) -> None:
    plan, state = _where("client1/soak")
    changed = replace(state.workers[CLIENT1], **change)  # type: ignore[arg-type]
    assert asked(plan, with_worker(state, CLIENT1, changed)) == asked(plan, state) - {CLIENT1}


def test_who_uses_more_than_its_share_of_a_core_is_left_alone() -> None:
    plan, state = _where("client1/soak")
    last = state.workers[CLIENT1].recent[-1]
    busy = replace(state.workers[CLIENT1], recent=(replace(last, cpu_s=1.1),))
    assert CLIENT1 not in asked(plan, with_worker(state, CLIENT1, busy))
    assert CLIENT1 in asked(plan, with_worker(state, CLIENT1, replace(busy, recent=(replace(last, cpu_s=0.9),))))
