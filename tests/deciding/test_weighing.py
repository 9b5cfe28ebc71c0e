"""Whole rollouts by sequential gates: who passes, who is taken back, and who is waited for."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from rollout.deciding import weighing
from rollout.deciding.index import index_of
from rollout.deciding.noticing import observe
from rollout.deciding.state import DeployState, StepStatus
from rollout.gating import pooled
from rollout.gating.curves import name_of
from rollout.gating.latency import Level
from rollout.gating.windows import Window
from rollout.model.event import BaselineFound, Event, GateRuled, Outcome, StepBegan, WaitBegan
from rollout.model.gate import Metric, Ruling, Tally
from rollout.model.ids import GateId, Role, WorkerId
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.model.sighting import Observation
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.deciding.rolled import CLIENT1, client1_first, fold_all, quick_stage, with_worker

LATENCY = GateId("latency")


def _playbook(*, errors: dict[str, Any] | None = None) -> Playbook:
    """Both gates sequential, client1 first."""
    sequential = {"test": "sequential"}
    return client1_first(
        errors={"metric": "error_ratio", **sequential, **(errors or {})}, latency={"metric": "latency_p95_s", **sequential}
    )


def _ruled(stage: Stage) -> list[GateRuled]:
    return [event for _, event in stage.journal.events(DEPLOY) if isinstance(event, GateRuled)]


def test_a_good_release_passes() -> None:
    """Each of the two clients by each gate, and nobody is condemned in the watch."""
    stage = quick_stage()
    state = rehearse(stage, stage.plan(_playbook()))
    assert (state.outcome, state.outcome_why) == (Outcome.DEPLOYED, "7 workers run 2.0.0")
    passed = {(event.worker, event.verdict.gate) for event in _ruled(stage) if event.verdict.ruling is Ruling.PASS}
    assert {(worker, gate) for worker in ("client1", "client2") for gate in ("errors", "latency")} <= passed
    assert {event.verdict.ruling for event in _ruled(stage)} == {Ruling.PASS}


def test_who_fails_after_it_had_passed_is_taken_back() -> None:
    """Errors begin only when client2 has its turn: what client1 had passed by counts no longer."""
    stage = quick_stage()
    plan = stage.plan(_playbook())

    def spoil(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client2/drain":
            stage.world.erring[plan.to_release.id] = 0.3

    state = rehearse(stage, plan, listeners=(spoil,))
    assert state.outcome is Outcome.ROLLED_BACK
    assert "client1 had passed, but then failed errors: the share of 5xx is " in state.outcome_why
    rulings = [event.verdict.ruling for event in _ruled(stage) if event.worker == CLIENT1 and event.verdict.gate == "errors"]
    assert rulings[0] is Ruling.PASS
    assert Ruling.FAIL in rulings


def test_a_gate_that_does_not_act_stops_nobody_and_is_told_of() -> None:
    """One request in three fails; that gate says so in the journal, and the rollout ends well. One that acts takes it back."""
    for acts, outcome in ((False, Outcome.DEPLOYED), (True, Outcome.ROLLED_BACK)):
        stage = quick_stage()
        plan = stage.plan(_playbook(errors={"act": acts}))
        stage.world.erring[plan.to_release.id] = 0.3
        state = rehearse(stage, plan)
        assert state.outcome is outcome
        failed = {(event.worker, event.verdict.gate) for event in _ruled(stage) if event.verdict.ruling is Ruling.FAIL}
        assert (CLIENT1, "errors") in failed


def test_a_watch_without_a_request_is_told_as_one_that_has_shown_nothing() -> None:
    """Nobody asks the clients any more: that neither of their gates failed says nothing."""
    stage = quick_stage()

    def hush(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id.endswith("watch"):
            for worker in ("client1", "client2"):
                stage.world.workers[WorkerId(worker)].requests_per_s = 0.0

    state = rehearse(stage, stage.plan(_playbook()), listeners=(hush,))
    assert state.outcome is Outcome.DEPLOYED
    assert "the last watch had too little to rule twice on errors (client1, client2), latency (client1, client2)" in state.outcome_why


def test_those_who_fail_only_together_are_all_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the two clients have shown since they passed is weighed as one; here it is said to be too much, whatever it is."""
    asked: list[int] = []

    def weigh(levels: Sequence[Level]) -> tuple[float, float]:
        asked.append(len(levels))
        return (math.log(1e6), 1.2) if len(levels) > 1 else (-math.inf, 1.0)

    monkeypatch.setattr(pooled, "weigh", weigh)
    stage = quick_stage()
    state = rehearse(stage, stage.plan(_playbook()))
    assert state.outcome is Outcome.ROLLED_BACK
    assert "latency: 2 client workers together: requests take 1.20 × as much as before since they passed" in state.outcome_why
    assert max(asked) == 2


def test_with_nothing_to_compare_with_it_pauses_at_the_deadline() -> None:
    """Neither client has a past: that is no reason to take anybody back."""
    stage = quick_stage()
    plan = stage.plan(_playbook())
    for worker in ("client1", "client2"):
        stage.world.workers[WorkerId(worker)].requests_per_s = 0.01

    def wake(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client1/soak":
            stage.world.workers[CLIENT1].requests_per_s = 50.0

    state = rehearse(stage, plan, listeners=(wake,))
    assert state.outcome is Outcome.PAUSED
    assert "client1 has no ruling on latency after 200 s: neither it nor its pool had requests enough before" in state.outcome_why
    assert Ruling.INCONCLUSIVE in {event.verdict.ruling for event in _ruled(stage)}
    assert Ruling.FAIL not in {event.verdict.ruling for event in _ruled(stage)}


def _soaking() -> tuple[Plan, DeployState]:
    """Stop in client1's SOAK."""
    stage = quick_stage()
    plan = stage.plan(_playbook())
    kept: list[DeployState] = []

    def keep(_event: Event, state: DeployState) -> None:
        if state.steps[next(step for step in state.steps if step == "client1/soak")].status is StepStatus.ACTIVE:
            kept.append(state)

    rehearse(stage, plan, listeners=(keep,))
    return plan, next(state for state in kept if state.workers[CLIENT1].blocks)


@pytest.fixture(scope="module")
def soaking() -> tuple[Plan, DeployState]:
    return _soaking()


def test_what_earlier_rollouts_saw_is_known(soaking: tuple[Plan, DeployState]) -> None:
    """By role and metric; what is no curve of ours is left out, and another role's or metric's is another's."""
    plan, state = soaking
    learned: dict[Role, dict[Metric, tuple[str, ...]]] = {
        Role("client"): {Metric.LATENCY_P95: ("exponential 0.9 30", "nothing known"), Metric.REQUEST_CPU: ("plateau 1.8 75",)},
        Role("sync"): {Metric.LATENCY_P95: ("none 0 1",)},
    }
    told = fold_all(plan, state, BaselineFound(state.last_at_s, "", {}, (), learned))
    told = with_worker(told, CLIENT1, replace(told.workers[CLIENT1], blocks=(*told.workers[CLIENT1].blocks,)[:1]))
    known = replace(told.workers[CLIENT1], baseline=replace(_sure(told.workers[CLIENT1].baseline)))
    found = weighing.weighed(plan, with_worker(told, CLIENT1, known), CLIENT1, plan.gates[LATENCY])
    assert [name_of(index) for index in found.seen.earlier] == ["exponential 0.9 30"]


def _sure(tally: Tally | None) -> Tally:
    assert tally is not None
    return tally


def test_what_was_measured_while_the_database_was_away_counts_neither_way(soaking: tuple[Plan, DeployState]) -> None:
    """Every worker fails then; blocks begin anew when it is back, as windows do."""
    plan, state = soaking
    away = observe(plan, state, Observation(state.last_at_s, {}, guards=state.guards, no_database="it does not answer"))
    assert away.workers[CLIENT1].blocks == ()
    assert weighing.weighed(plan, away, CLIENT1, plan.gates[LATENCY]).seen.blocks == ()


def test_who_is_admitted_again_is_weighed_anew(soaking: tuple[Plan, DeployState]) -> None:
    """Also before anything was measured of it: its time begins again."""
    plan, state = soaking
    for admitted_at_s in (1e6, 2e6):
        known = replace(state.workers[CLIENT1], blocks=(), admitted_at_s=admitted_at_s)
        again = with_worker(state, CLIENT1, known)
        assert weighing.weighed(plan, again, CLIENT1, plan.gates[LATENCY]).seen.admitted_at_s == admitted_at_s
    not_yet = with_worker(state, CLIENT1, replace(state.workers[CLIENT1], blocks=(), admitted_at_s=None))
    assert weighing.weighed(plan, not_yet, CLIENT1, plan.gates[LATENCY]).seen.admitted_at_s == math.inf


def test_a_failure_counts_however_long_ago_it_was_measured(soaking: tuple[Plan, DeployState]) -> None:
    """And only that of a gate that acts."""
    plan, state = soaking
    known = state.workers[CLIENT1]
    own = known.blocks[-1].own
    failing = Window(replace(own, requests=1000.0, errors=500.0), ())
    spoiled = with_worker(state, CLIENT1, replace(known, blocks=(failing,), unmeasured="connection refused"))
    found = weighing.failed(plan, spoiled, CLIENT1)
    assert [(gate.id, verdict.ruling) for gate, verdict in found] == [("errors", Ruling.FAIL)]
    silent = replace(plan, gates={name: replace(gate, acts=False) for name, gate in plan.gates.items()})
    assert weighing.failed(silent, spoiled, CLIENT1) == ()


def test_who_was_only_asked_for_a_failure_is_weighed_in_full_when_it_is_ruled_on(soaking: tuple[Plan, DeployState]) -> None:
    """What is kept of the quick answer isn't taken for the whole one, and the whole one does for both."""
    plan, state = soaking
    # As if it had just been measured, so that nothing is kept.
    fresh = with_worker(
        state, CLIENT1, replace(state.workers[CLIENT1], blocks=(*state.workers[CLIENT1].blocks, Window(_nothing(state), ())))
    )
    gate = plan.gates[LATENCY]
    assert not weighing.weighed(plan, fresh, CLIENT1, gate, passed=True).in_full
    full = weighing.weighed(plan, fresh, CLIENT1, gate)
    assert full.in_full
    assert weighing.weighed(plan, fresh, CLIENT1, gate, passed=True) is full


def _nothing(state: DeployState) -> Tally:
    last = state.workers[CLIENT1].blocks[-1].own
    return Tally(last.until_s, last.until_s + 5.0)


def test_of_a_gate_that_does_not_act_nobody_says_that_it_had_too_little_to_rule(soaking: tuple[Plan, DeployState]) -> None:
    plan, state = soaking
    assert {gate.id for gate in weighing.blind(plan, state, CLIENT1, math.inf)} == {"errors", LATENCY}
    silent = replace(plan, gates={name: replace(gate, acts=False) for name, gate in plan.gates.items()})
    assert weighing.blind(silent, state, CLIENT1, math.inf) == []


def _watched_long(watch_s: float) -> Playbook:
    """Let the syncs be looked at as well, and all be watched for long."""
    plain = _playbook().model_dump(mode="json")
    changed = {"liveness_only": ["event_persister", "federation_sender"], "watch": {**plain["watch"], "watch_s": watch_s}}
    return Playbook.model_validate({**plain, **changed})


def _struck(who: str, after_s: float, lasts_s: float = 270.0, watch_s: float = 900.0) -> tuple[Stage, DeployState, float]:
    """Let *who* be slow from *after_s* of the last watch on; return besides when that is over."""
    stage = quick_stage()
    plan = stage.plan(_watched_long(watch_s))
    watch = index_of(plan).watch
    assert watch is not None
    ends: list[float] = []

    def strike(_event: Event, state: DeployState) -> None:
        began_at_s = state.steps[watch.id].began_at_s
        if began_at_s is not None and stage.clock.now_s() > began_at_s + after_s and not ends:
            ends.append(stage.clock.now_s() + lasts_s)
            for worker in stage.world.workers if who == "all" else [WorkerId(who)]:
                stage.world.workers[WorkerId(worker)].slow_until_s = ends[0]

    state = rehearse(stage, plan, listeners=(strike,))
    return stage, state, ends[0]


@pytest.mark.parametrize(("who", "lasts_s", "outcome"), [("all", 270.0, Outcome.DEPLOYED), ("client2", 400.0, Outcome.ROLLED_BACK)])
def test_an_incident_while_nobody_runs_the_old_release_takes_nobody_back(who: str, lasts_s: float, outcome: Outcome) -> None:
    """All are slow in the midst of the last watch; or one of them alone, and then for longer than an incident, which is its release."""
    _, state, _ = _struck(who, 450.0, lasts_s=lasts_s)
    assert state.outcome is outcome, (state.rollback_why, state.outcome_why)


def test_nothing_is_called_deployed_in_the_midst_of_an_incident() -> None:
    """Whether it passes has to show first, however long the watch was to be."""
    stage, state, ends_s = _struck("all", 380.0, lasts_s=240.0, watch_s=600.0)
    assert state.outcome is Outcome.DEPLOYED
    events = [event for _, event in stage.journal.events(DEPLOY)]
    waits = [event.why for event in events if isinstance(event, WaitBegan)]
    assert any(why.startswith("all are slower than usual at the end of the watch, ") for why in waits)
    assert events[-1].at_s > ends_s


def test_nor_where_only_all_together_would_be_taken_back_but_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each had too few requests to fail by itself, and the drift were known."""
    monkeypatch.setattr(weighing, "excused", lambda *_: [])
    monkeypatch.setattr(pooled, "STRAYS", 0.02)
    stage, state, ends_s = _struck("all", 380.0, lasts_s=240.0, watch_s=600.0)
    assert state.outcome is Outcome.DEPLOYED
    events = [event for _, event in stage.journal.events(DEPLOY)]
    waits = [event.why for event in events if isinstance(event, WaitBegan)]
    assert any("all client workers together (latency)" in why for why in waits)
    assert events[-1].at_s > ends_s


def test_what_lasts_is_taken_back_though_all_are_slow() -> None:
    """A release may wear a shared database down."""
    _, state, _ = _struck("all", 450.0, lasts_s=900.0)
    assert state.outcome in {Outcome.ROLLED_BACK, Outcome.HALTED}
    assert "failed latency" in state.rollback_why or "together" in state.rollback_why
