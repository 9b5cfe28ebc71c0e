"""Evidence that is bought: on a homeserver where users ask for next to nothing, canary requests decide, and nothing is harmed by them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest

from rollout.deciding.state import DeployState
from rollout.engine import baseline
from rollout.homeservers.synapse.canaries import canary_path
from rollout.model.event import Event, Outcome, SamplesTaken, StepBegan, StepFinished, WindDownBegan
from rollout.model.ids import Role, WorkerId
from rollout.model.playbook import Playbook
from rollout.model.profiles import completed
from rollout.ports.probe import Answer, Probe
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse, set_stage
from tests.simulation.safety import assert_safe

MAIN, CLIENT1, CLIENT2, SYNC1 = WorkerId("main"), WorkerId("client1"), WorkerId("client2"), WorkerId("sync1")
ROLES = {"main": ("main", "main"), "client1": ("client", "client"), "client2": ("client", "client")}
ORDINARY = {"latency": "latency_p95_s", "errors": "error_ratio"}
# Seconds that a request takes in the middle.
MEDIAN_S = 0.04


@dataclass
class Watched:
    """A probe that keeps when it asked whom for what, and what had been served at its ports by then."""

    stage: Stage
    probe: Probe
    asked: list[tuple[float, WorkerId, str]] = field(default_factory=list)
    out: list[WorkerId] = field(default_factory=list)

    def health(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, Answer]:
        return self.probe.health(workers, timeout_s)

    def unavailable(self, timeout_s: float) -> str:
        return self.probe.unavailable(timeout_s)

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        world = self.stage.world
        for worker, path in paths.items():
            if path == canary_path(Role("client"), 0):
                # A sweep's own, by which is told whether a worker has come up.
                continue
            self.asked.append((world.clock.now_s(), worker, path))
            if world.workers[worker].proxied and not world.takes_requests(worker):
                self.out.append(worker)
        return self.probe.canary(paths, timeout_s)


def small(**changes: object) -> Playbook:
    return Playbook.model_validate(completed({"name": "small", "profile": "small", **changes}))


def quiet(per_s: float = 0.2, times: float = 1.0) -> tuple[Stage, Watched]:
    """A homeserver with *per_s* requests a second, whose new release takes *times* as long for each."""
    stage = set_stage(ROLES)
    for it in stage.world.workers.values():
        it.requests_per_s = per_s / len(ROLES)
    stage.world.application_service = True
    new = stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False)
    stage.world.median_s = {stage.old.id: MEDIAN_S, new.id: MEDIAN_S * times}
    watched = Watched(stage, stage.drivers.probe)
    stage.drivers = replace(stage.drivers, probe=watched)
    return stage, watched


def events(stage: Stage) -> list[Event]:
    return [event for _, event in stage.journal.events(DEPLOY)]


def bought(stage: Stage, worker: WorkerId) -> int:
    return sum(
        event.measured.tallies[worker].bought
        for event in events(stage)
        if isinstance(event, SamplesTaken) and worker in event.measured.tallies
    )


def test_a_good_release_passes_on_a_homeserver_with_next_to_no_requests() -> None:
    stage, watched = quiet()
    plan = stage.plan(small())
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)
    assert watched.out == []
    assert {worker for _, worker, _ in watched.asked} == {MAIN, CLIENT1, CLIENT2}


def test_a_release_that_takes_twice_as_long_is_taken_back_there() -> None:
    stage, _ = quiet(times=2.0)
    plan = stage.plan(small())
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert "requests take" in state.rollback_why
    assert "as much as before" in state.rollback_why
    assert [worker for worker, known in state.workers.items() if known.touched] == [CLIENT1]
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_without_canary_requests_nothing_can_be_told_and_it_pauses(times: float) -> None:
    stage, watched = quiet(times=times)
    # Gates as anybody would write them, and not those of the profile, which want more requests.
    gates = [{"id": name, "metric": metric, "test": "sequential", "deadline_s": 1200} for name, metric in ORDINARY.items()]
    plan = stage.plan(small(canary_requests=None, gates=gates))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.PAUSED, state.outcome_why
    assert "has no ruling on latency after 1200 s" in state.outcome_why
    assert watched.asked == []


def test_requests_that_fail_take_it_back_though_no_user_has_met_them() -> None:
    stage, _ = quiet(per_s=0.0)
    plan = stage.plan(small())
    stage.world.erring[plan.to_release.id] = 0.2
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert "5xx" in state.rollback_why or "canar" in state.rollback_why


def test_no_answer_is_never_a_pass() -> None:
    """Once the homeserver forgets the application service, nothing is shown any more, and it pauses."""
    stage, _ = quiet(per_s=0.0)
    plan = stage.plan(small())

    def forget(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == "client1/soak":
            stage.world.application_service = False

    state = rehearse(stage, plan, listeners=(forget,))
    assert state.outcome is Outcome.PAUSED, state.outcome_why
    assert "needed" in state.outcome_why


def test_they_come_at_the_rate_that_was_asked_for_and_no_oftener() -> None:
    stage, watched = quiet()
    plan = stage.plan(small(canary_requests={"per_s": 0.5}))
    rehearse(stage, plan)
    at_s = [when_s for when_s, worker, _ in watched.asked if worker == MAIN]
    assert min(later - earlier for earlier, later in pairwise(at_s)) >= 2.0 - 0.2
    surveyed_s = next(event.at_s for event in events(stage) if isinstance(event, StepFinished) and event.step_id == "homeserver/survey")
    during = [when_s for when_s in at_s if when_s < surveyed_s]
    assert 0.9 * 150 <= len(during) <= 151
    # What was asked is what the journal knows of, but for what came after the last measurement.
    assert 0 <= len(at_s) - bought(stage, MAIN) <= 20


def test_nobody_is_sent_more_than_the_budget() -> None:
    stage, watched = quiet()
    plan = stage.plan(small(canary_requests={"requests_max": 40}))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.PAUSED, state.outcome_why
    for worker in (MAIN, CLIENT1, CLIENT2):
        # What has yet to be measured isn't counted yet.
        assert 40 <= sum(its == worker for _, its, _ in watched.asked) <= 40 + plan.sample_s * 1.0 + 1


def test_a_busy_worker_is_left_alone() -> None:
    stage, watched = quiet()
    stage.world.workers[CLIENT2].requests_per_s = 30.0
    stage.world.workers[CLIENT2].request_cpu_s = 0.02
    rehearse(stage, stage.plan(small(capacity={"utilisation_max": 1.0, "p95_ratio_max": None})))
    asked = [worker for _, worker, _ in watched.asked]
    assert CLIENT1 in asked
    assert CLIENT2 not in asked


def test_a_rollout_that_pauses_asks_no_more() -> None:
    stage, watched = quiet()
    plan = stage.plan(small(gates=[{"id": "latency", "metric": "latency_p95_s", "test": "sequential", "samples_min": 5000}]))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.PAUSED, state.outcome_why
    stopped_s = next(event.at_s for event in events(stage) if isinstance(event, WindDownBegan))
    assert max(when_s for when_s, _, _ in watched.asked) <= stopped_s


def test_a_baseline_of_users_alone_is_not_compared_with() -> None:
    """Canary requests are answered sooner than users' requests; a kept baseline without them would make any release look quick."""
    stage, _ = quiet()
    rehearse(stage, stage.plan(small(canary_requests=None, gates=[], liveness_only=["client", "main"], watch={"watch_s": 300})))
    plain = stage.plan(small(canary_requests=None), next_generation=True, version=None)
    buys = stage.plan(small(), next_generation=True, version=None)
    now_s = stage.clock.now_s()
    assert baseline.find(stage.drivers, stage.journal, plain, now_s) is not None
    found = baseline.find(stage.drivers, stage.journal, buys, now_s)
    assert found is None or not found.tallies
