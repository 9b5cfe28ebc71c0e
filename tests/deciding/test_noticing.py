"""Whom a worker is compared with, in what one sweep of the metrics says."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import pytest

from rollout.deciding.agenda import agenda_of
from rollout.deciding.decision import Note
from rollout.deciding.noticing import measure
from rollout.deciding.soaking import verdict_of
from rollout.deciding.state import DeployState, StepStatus, WorkerState
from rollout.deciding.watching import alarm, failed_in_windows
from rollout.gating.windows import Window
from rollout.model.changed import changed
from rollout.model.event import GateRuled
from rollout.model.gate import Measured, Ruling, Tally
from rollout.model.ids import GateId, StepId, WorkerId
from rollout.model.plan import Plan
from rollout.model.sighting import ProcessSighting, Sighting
from tests.deciding.rolled import CLIENT1, state_where, with_worker

SOAK = StepId("client1/soak")
CLIENT2 = WorkerId("client2")
# Of another pool; it stands in for a third client.
CLIENT3 = WorkerId("sync2")
SHOWS_ENOUGH, SHOWS_LITTLE = 100.0, 1.0
PAIR = {CLIENT2: 40.0}
THREE = {CLIENT2: 40.0, CLIENT3: 50.0}


class Peers(NamedTuple):
    """
    Who shares client1's pool, with the requests of each in the sweep, and what else is known of them. A process in *began_s* began so long
    after the rollout did; *pasts* are their baselines.
    """

    requests: Mapping[WorkerId, float] = PAIR
    touched: Collection[WorkerId] = ()
    began_s: Mapping[WorkerId, float] = {}
    ran_before: Collection[WorkerId] = ()
    pasts: Mapping[WorkerId, Tally] = {}


def _swept(peers: Peers, past_requests: float = SHOWS_ENOUGH) -> tuple[Plan, DeployState]:
    """Return what is known after one more sweep of client1, which is soaking, and its peers."""
    plan, state = state_where("client1/soak", StepStatus.ACTIVE)
    pool = next(worker.pool for worker in plan.workers if worker.id == CLIENT1)
    workers = tuple(replace(worker, pool=pool) if worker.id in peers.requests else worker for worker in plan.workers)
    plan = replace(plan, workers=workers, from_releases={**plan.from_releases, **dict.fromkeys(peers.ran_before, plan.to_release.id)})
    known = state.workers[CLIENT1]
    assert known.admitted_at_s is not None
    past = Tally(0.0, 10.0, requests=past_requests, latency=_quick(past_requests))
    state = with_worker(state, CLIENT1, replace(known, baseline=past, after=None, controls=None, watched={}))
    for peer in peers.requests:
        started_at_s = state.began_at_s + peers.began_s.get(peer, -900.0)
        process = ProcessSighting(running=True, started_at_s=started_at_s, activated=None, activated_at_s=None)
        its = WorkerState(sighting=Sighting(process), touched=peer in peers.touched, baseline=peers.pasts.get(peer))
        state = with_worker(state, peer, its)
    since_s = max(state.last_at_s, known.admitted_at_s)
    tallies = {
        worker: Tally(since_s, since_s + 2.0, requests=requests, latency=_quick(requests))
        for worker, requests in {CLIENT1: 60.0, **peers.requests}.items()
    }
    return plan, measure(plan, state, Measured(tallies))


def _quick(requests: float) -> tuple[float, ...]:
    return (requests, *(0.0,) * 14)


def _compared_with(peers: Peers, past_requests: float = SHOWS_ENOUGH) -> tuple[float, float]:
    """Say how many requests of others are held against client1: while it soaks, and in the windows by which it is watched on."""
    _, state = _swept(peers, past_requests)
    known = state.workers[CLIENT1]
    window = known.watched[GateId("latency")][-1]
    soaking, watching = [0.0 if controls is None else controls.requests for controls in (known.controls, window.controls)]
    return soaking, watching


def test_a_worker_is_compared_with_the_others_of_its_pool() -> None:
    assert _compared_with(Peers(PAIR)) == (40.0, 40.0)
    assert _compared_with(Peers(THREE)) == (90.0, 90.0)


@pytest.mark.parametrize("peers", [Peers(PAIR, touched={CLIENT2}), Peers(THREE, touched={CLIENT2, CLIENT3})], ids=["of two", "of three"])
@pytest.mark.parametrize("past_requests", [SHOWS_ENOUGH, SHOWS_LITTLE])
def test_who_was_restarted_in_this_rollout_is_no_control(peers: Peers, past_requests: float) -> None:
    """A release that makes both slow would be as good as itself, also where nobody else is left."""
    assert _compared_with(peers, past_requests) == (0.0, 0.0)


def test_of_three_the_one_that_is_left_is_compared_with() -> None:
    assert _compared_with(Peers(THREE, touched={CLIENT2})) == (50.0, 50.0)


def test_who_has_nobody_and_nothing_to_be_compared_with_does_not_pass() -> None:
    """It may be well, but nothing shows it: from the deadline on the gate has no ruling."""
    plan, state = _swept(Peers(PAIR, touched={CLIENT2}), SHOWS_LITTLE)
    gate, admitted_at_s = plan.gates[GateId("latency")], state.workers[CLIENT1].admitted_at_s
    assert admitted_at_s is not None
    soaked_s = {gate.soak_s: Ruling.PENDING, gate.deadline_s: Ruling.INCONCLUSIVE}
    patient = replace(gate, fresh_s=gate.deadline_s)
    verdicts = {after_s: verdict_of(plan, state, CLIENT1, patient, admitted_at_s + after_s) for after_s in soaked_s}
    assert {after_s: verdict.ruling for after_s, verdict in verdicts.items()} == soaked_s
    assert "neither its baseline nor its pool has the 20 requests" in verdicts[gate.soak_s].because


@pytest.mark.parametrize(
    ("peers", "ruling"),
    [
        (Peers(PAIR, touched={CLIENT2}, pasts={CLIENT2: Tally(0.0, 10.0, requests=40.0, latency=_quick(40.0))}), Ruling.PASS),
        (Peers(PAIR, touched={CLIENT2}, pasts={CLIENT2: Tally(0.0, 10.0, requests=3.0, latency=_quick(3.0))}), Ruling.PENDING),
        # It ran the release before, and shows nothing of how it was without it.
        (
            Peers(PAIR, ran_before={CLIENT2}, touched={CLIENT2}, pasts={CLIENT2: Tally(0.0, 10.0, requests=40.0, latency=_quick(40.0))}),
            Ruling.PENDING,
        ),
    ],
    ids=["of its pool", "of nobody", "of the release"],
)
def test_the_last_of_a_pool_with_too_little_past_has_that_of_its_pool(peers: Peers, ruling: Ruling) -> None:
    """While it soaks, and in the windows by which it is watched on."""
    plan, state = _swept(peers, SHOWS_LITTLE)
    gate, admitted_at_s = plan.gates[GateId("latency")], state.workers[CLIENT1].admitted_at_s
    assert admitted_at_s is not None
    patient = replace(gate, fresh_s=gate.deadline_s)
    assert verdict_of(plan, state, CLIENT1, patient, admitted_at_s + gate.soak_s).ruling is ruling
    slow = Tally(admitted_at_s, admitted_at_s + plan.watch.window_s, requests=600.0, latency=(*(0.0,) * 14, 600.0))
    watched: dict[GateId, tuple[Window, ...]] = {gate.id: (Window(slow, (), None), Window(slow, (), None))}
    again = with_worker(state, CLIENT1, replace(state.workers[CLIENT1], watched=watched))
    failed = failed_in_windows(plan, again, CLIENT1, gate)
    assert (failed is not None and failed.ruling is Ruling.FAIL) is (ruling is Ruling.PASS)
    soaked = changed(again.steps[SOAK], status=StepStatus.DONE, finished_at_s=again.last_at_s)
    again = replace(again, steps={**again.steps, SOAK: soaked})
    alarmed = alarm(plan, again, agenda_of(plan, again), again.last_at_s)
    assert (isinstance(alarmed, Note) and isinstance(alarmed.event, GateRuled)) is (ruling is Ruling.PASS)


def test_who_crashed_meanwhile_or_was_restarted_by_somebody_is_no_control() -> None:
    """Its caches are cold, and nobody says what it was started on."""
    began_s = {CLIENT2: 1.0}
    assert _compared_with(Peers(PAIR, began_s=began_s)) == (0.0, 0.0)
    assert _compared_with(Peers(THREE, began_s=began_s)) == (50.0, 50.0)


def test_who_was_restarted_before_the_rollout_is_a_control() -> None:
    """Say this morning, after the baseline that the journal keeps of yesterday had ended."""
    assert _compared_with(Peers(PAIR, began_s={CLIENT2: -1.0})) == (40.0, 40.0)


def test_who_ran_the_release_before_shows_nothing_of_how_it_was_without_it() -> None:
    """A slow release would be as good as itself. Who has no past, and whose pool has none, has nothing better."""
    peers = Peers(PAIR, ran_before={CLIENT2})
    assert _compared_with(peers, SHOWS_ENOUGH) == (0.0, 0.0)
    assert _compared_with(peers, SHOWS_LITTLE) == (40.0, 0.0)
    past = {CLIENT3: Tally(0.0, 10.0, requests=40.0, latency=_quick(40.0))}
    assert _compared_with(Peers(THREE, touched={CLIENT3}, ran_before={CLIENT2}, pasts=past), SHOWS_LITTLE) == (0.0, 0.0)
