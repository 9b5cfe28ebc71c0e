"""Whom a worker is compared with, in what one sweep of the metrics says."""

from collections.abc import Mapping
from dataclasses import replace

from rollout.deciding.noticing import measure
from rollout.deciding.state import StepStatus
from rollout.model.gate import Measured, Tally
from rollout.model.ids import ReleaseId, WorkerId
from tests.deciding.rolled import CLIENT1, state_where, with_worker

CLIENT2 = WorkerId("client2")
SHOWS_ENOUGH, SHOWS_LITTLE = 100.0, 1.0


def _peers_requests(ran_before: Mapping[WorkerId, ReleaseId], past_requests: float) -> float:
    """Say how much of what client2 does is held against client1, which is soaking, after one more sweep."""
    plan, state = state_where("client1/soak", StepStatus.ACTIVE)
    plan = replace(plan, from_releases={**plan.from_releases, **ran_before})
    known = state.workers[CLIENT1]
    assert known.admitted_at_s is not None
    past = Tally(0.0, 10.0, requests=past_requests)
    state = with_worker(state, CLIENT1, replace(known, baseline=past, controls=None))
    since_s = max(state.last_at_s, known.admitted_at_s)
    tallies = {CLIENT1: Tally(since_s, since_s + 2.0, requests=30.0), CLIENT2: Tally(since_s, since_s + 2.0, requests=40.0)}
    controls = measure(plan, state, Measured(tallies)).workers[CLIENT1].controls
    return 0.0 if controls is None else controls.requests


def test_a_worker_is_compared_with_the_others_of_its_pool() -> None:
    assert _peers_requests({}, SHOWS_ENOUGH) == 40.0


def test_who_ran_the_release_before_shows_nothing_of_how_it_was_without_it() -> None:
    """A slow release would be as good as itself. Who has no past of its own has nothing better."""
    plan, _ = state_where("client1/soak", StepStatus.ACTIVE)
    ran_before = {CLIENT2: plan.to_release.id}
    assert _peers_requests(ran_before, SHOWS_ENOUGH) == 0.0
    assert _peers_requests(ran_before, SHOWS_LITTLE) == 40.0
