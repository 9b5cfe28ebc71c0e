"""A baseline of what is kept already: of the same minutes where it can be, and as long as what was measured."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rollout.engine import baseline
from rollout.engine.timings import read_history
from rollout.model.event import GateRuled
from rollout.model.gate import Evidence, Metric, Ruling, Tally, Verdict
from rollout.model.ids import GateId, PoolId, ReleaseId, Role, StepId, WorkerId
from rollout.model.plan import Plan
from rollout.ports.journal import Baseline
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

HOMESERVER = "simulated.localhost"
NOW_S = 1_000_000.0
A, B = WorkerId("a"), WorkerId("b")
RUNS: Mapping[WorkerId, ReleaseId] = {A: ReleaseId("r"), B: ReleaseId("r")}
POOL: Mapping[WorkerId, PoolId | None] = {A: PoolId("pool"), B: PoolId("pool")}


def _did(since_s: float, until_s: float, per_s: float = 2.0) -> Tally:
    return Tally(NOW_S + since_s, NOW_S + until_s, requests=per_s * (until_s - since_s))


def _kept(*occasions: Mapping[WorkerId, Tally]) -> MemoryJournal:
    journal = MemoryJournal()
    for number, tallies in enumerate(occasions):
        runs = {worker: (RUNS[worker], tally) for worker, tally in tallies.items()}
        journal.keep_baseline(Baseline(HOMESERVER, NOW_S - 100.0 + number, runs))
    return journal


def _rate(tally: Tally) -> float:
    return tally.requests / (tally.until_s - tally.since_s)


def test_the_time_between_two_stretches_is_not_counted() -> None:
    """Five minutes each, forty minutes apart, at two requests a second: two a second, over ten minutes that end now."""
    journal = _kept({A: _did(-3000.0, -2700.0)}, {A: _did(-300.0, 0.0)})
    found = baseline.kept_tallies(journal, HOMESERVER, RUNS, NOW_S)[A]
    assert _rate(found) == pytest.approx(2.0)
    assert (found.since_s, found.until_s) == (NOW_S - 600.0, NOW_S)


def test_a_pool_is_told_of_by_the_minutes_that_it_has_in_common() -> None:
    """What only one of two did at another time, when there was more to do, is left out; unless too little were left."""
    both = {A: _did(-600.0, -300.0), B: _did(-600.0, -300.0)}
    journal = _kept({A: _did(-3000.0, -2400.0, per_s=9.0)}, both)
    found = baseline.kept_tallies(journal, HOMESERVER, RUNS, NOW_S, POOL, 300.0)
    assert {worker: _rate(tally) for worker, tally in found.items()} == pytest.approx({A: 2.0, B: 2.0})
    short = baseline.kept_tallies(journal, HOMESERVER, RUNS, NOW_S, POOL, 301.0)
    assert _rate(short[A]) == pytest.approx((9.0 * 600 + 2.0 * 300) / 900)
    alone = baseline.kept_tallies(journal, HOMESERVER, RUNS, NOW_S)
    assert alone == short


@pytest.fixture(scope="module")
def rolled() -> tuple[Stage, Plan]:
    stage = seven_workers()
    stage.sight = Sight.QUICK
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan)
    return stage, plan


def test_what_was_watched_after_a_rollout_counts_from_when_the_last_of_a_pool_was_back(rolled: tuple[Stage, Plan]) -> None:
    """client1 was watched for longer than client2; both are told of by the minutes of both. Alone, each by its own."""
    stage, plan = rolled
    clients = [worker for worker in plan.workers if worker.role == "client"]
    runs = {worker.id: plan.to_release.id for worker in clients}
    pools = {worker.id: worker.pool for worker in clients}
    ended_s = stage.journal.deploys(plan.homeserver, 1)[0].finished_at_s or 0.0
    own = baseline.kept_tallies(stage.journal, plan.homeserver, runs, ended_s)
    shared = baseline.kept_tallies(stage.journal, plan.homeserver, runs, ended_s, pools)
    first, second = runs
    assert own[first].since_s < own[second].since_s - 10
    assert shared[first].since_s == pytest.approx(shared[second].since_s, abs=0.1)
    assert shared[second].since_s == pytest.approx(own[second].since_s, abs=2.1)
    assert _rate(shared[first]) == pytest.approx(_rate(own[first]), rel=0.2)


def test_recoveries_are_learned_by_metric(rolled: tuple[Stage, Plan]) -> None:
    """The newest first as the journal has them; how latency came back says nothing of what requests cost."""
    stage, plan = rolled
    worker = next(worker.id for worker in plan.workers if worker.role == "client")
    gates = {plan.gates[name].metric: name for name in plan.gates}
    assert {Metric.ERRORS, Metric.LATENCY_P95} <= gates.keys()
    passed = [(gates[Metric.ERRORS], "exponential 0.9 30"), (gates[Metric.LATENCY_P95], "plateau 1.8 75"), (GateId("gone"), "none 0 1")]
    journal = MemoryJournal()
    events = [event for _, event in stage.journal.events(DEPLOY)]
    journal.begin(DEPLOY, plan, events[0])
    for gate, curve in passed:
        verdict = Verdict(gate, Ruling.PASS, "", Evidence(1.0, 1.0, 1.0, 1.0, curve=curve))
        journal.append(DEPLOY, [GateRuled(1.0, StepId("x"), worker, verdict)])
    assert baseline.recoveries(journal, plan) == {
        Role("client"): {Metric.ERRORS: ("exponential 0.9 30",), Metric.LATENCY_P95: ("plateau 1.8 75",)}
    }


def test_a_pool_of_which_a_prometheus_knows_only_some_is_told_of_by_the_journal(rolled: tuple[Stage, Plan]) -> None:
    """If that knows all of them; otherwise each has the longer one that there is, as do those in no pool."""
    _, plan = rolled
    clients = [worker.id for worker in plan.workers if worker.role == "client"]
    others = [worker.id for worker in plan.workers if worker.role != "client"]
    of_past = {worker: _did(-600.0, 0.0) for worker in (clients[0], *others)}
    of_journal = {worker: _did(-300.0, 0.0) for worker in clients}
    assert set(baseline.of_whole_pools(of_past, of_journal, plan)) == set(others)
    assert set(baseline.of_whole_pools(of_past, {clients[0]: of_journal[clients[0]]}, plan)) == {clients[0], *others}


def test_what_a_baseline_says_of_the_traffic_is_in_the_forecast(rolled: tuple[Stage, Plan]) -> None:
    """As many requests and long-polls a second as were measured: what a plan's gates see goes by it."""
    stage, plan = rolled
    back = replace(plan, from_releases=dict.fromkeys(plan.from_releases, plan.to_release.id))
    ended_s = stage.journal.deploys(plan.homeserver, 1)[0].finished_at_s or 0.0
    found = baseline.find(stage.drivers, stage.journal, back, ended_s)
    traffic = read_history(stage.drivers, stage.journal, back, ended_s).traffic
    assert found is not None
    assert traffic.keys() == found.tallies.keys()
    for worker, tally in found.tallies.items():
        seconds = tally.until_s - tally.since_s
        assert traffic[worker].requests_per_s == pytest.approx(tally.requests / seconds)
        assert traffic[worker].polls_per_s == pytest.approx(tally.polls / seconds, abs=1e-9)
    assert any(its.requests_per_s > 0 for its in traffic.values())
