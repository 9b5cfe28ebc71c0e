"""What a baseline is made of that others have kept: what the release that runs now did, and nothing else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pytest

from rollout.engine import baseline, past
from rollout.engine.past import HOUR_S, Runs
from rollout.engine.survey import Surveyor
from rollout.interfaces.narrate import narrate
from rollout.model.event import BaselineFound, StepFinished
from rollout.model.gate import LATENCY_EDGES_S, Metric, Tally
from rollout.model.ids import ReleaseId, StepId, WorkerId
from rollout.model.plan import Plan, steps_of
from rollout.model.sample import Page, Sample
from rollout.planning.preflight import Findings, Question, Result, of_past
from rollout.ports.history import Life
from rollout.ports.journal import Baseline
from rollout.ports.probe import Answer
from rollout.simulation.rehearse import Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

NOW_S = 1_700_000_000.0
SYNC1, CLIENT1 = WorkerId("sync1"), WorkerId("client1")
LABELS = {"method": "GET", "servlet": "RoomRestServlet", "tag": "RoomRestServlet"}
RUNS = Runs("1.0.0", NOW_S - 30 * HOUR_S)


def page(requests: float, *, version: str = "1.0.0", started_at_s: float = NOW_S - 29 * HOUR_S, without: str = "nothing") -> Page:
    """Write one of a worker whose requests take 20 ms of time and 10 ms of CPU each."""
    time = "synapse_http_server_response_time_seconds"
    samples = [
        Sample("synapse_build_info", {"version": version}, 1.0),
        Sample("process_start_time_seconds", {}, started_at_s),
        Sample("process_cpu_seconds_total", {}, 0.02 * requests),
        Sample(f"{time}_count", LABELS, requests),
        Sample("synapse_http_server_response_ru_utime_seconds_total", LABELS, 0.01 * requests),
        *(
            Sample(f"{time}_bucket", {**LABELS, "le": edge}, requests if float(edge) > 0.02 else 0.0)
            for edge in (*map(str, LATENCY_EDGES_S), "+Inf")
        ),
    ]
    return Page(tuple(one for one in samples if without not in one.name))


def life(since_s: float, until_s: float, requests: float, before: float = 1000.0, **others: object) -> Life:
    """Return one with *requests* between its pages, *since_s* and *until_s* before now."""
    return Life(NOW_S - since_s, NOW_S - until_s, page(before, **others), page(before + requests, **others))  # type: ignore[arg-type]


@dataclass
class Kept:
    """What somebody has kept, by how long ago the range began; *asked* are the ranges."""

    lives_: Mapping[float, tuple[Life, ...] | str] = field(default_factory=dict)
    asked: list[tuple[float, float]] = field(default_factory=list)

    def lives(
        self, workers: Collection[WorkerId], prefixes: Collection[str], since_s: float, until_s: float, now_s: float, timeout_s: float
    ) -> dict[WorkerId, tuple[Life, ...] | str]:
        del prefixes, timeout_s
        self.asked.append((now_s - since_s, now_s - until_s))
        return {worker: self.lives_.get(now_s - since_s, "nothing was kept") for worker in workers}


def told(last_hour: tuple[Life, ...] | str, yesterday: tuple[Life, ...] | str = "nothing was kept", runs: Runs = RUNS) -> Tally | str:
    return past.tallies(Kept({HOUR_S: last_hour, 24 * HOUR_S: yesterday}), [SYNC1], {SYNC1: runs}, NOW_S)[SYNC1]


def test_the_last_hour_and_the_one_of_yesterday_that_now_begins_are_added() -> None:
    """A tally is as long as what it is made of, not as the day that lies between: or its rates would be a tenth of the truth."""
    kept = Kept()
    past.tallies(kept, [SYNC1], {SYNC1: RUNS}, NOW_S)
    assert kept.asked == [(HOUR_S, 0.0), (24 * HOUR_S, 23 * HOUR_S)]
    found = told((life(3590, 10, 3000),), (life(24 * HOUR_S - 5, 23 * HOUR_S + 15, 6000),))
    assert isinstance(found, Tally)
    assert (found.requests, found.until_s - found.since_s, found.until_s) == (9000, 3580 + 3580, NOW_S)
    assert found.latency[2] == 9000
    assert found.cpu_s == pytest.approx(180)
    assert found.request_cpu_s == pytest.approx(90)


def test_what_a_process_did_before_and_after_a_restart_is_added() -> None:
    """Its counters began anew; the time while nobody was there is nobody's."""
    second = life(1500, 0, 1500, before=20.0, started_at_s=NOW_S - 1530)
    found = told((life(3600, 1600, 2000), second))
    assert isinstance(found, Tally)
    assert (found.requests, found.until_s - found.since_s) == (3500, 3500)


def test_another_release_is_no_baseline() -> None:
    """Neither by its version, nor by when it began: a configuration is a release too."""
    ours = life(600, 0, 600, started_at_s=NOW_S - 700)
    other = life(3600, 700, 90_000, version="0.9.0")
    found = told((other, ours))
    assert isinstance(found, Tally)
    assert (found.requests, found.until_s - found.since_s) == (600, 600)
    assert told((other,)) == "what was kept of it is of version 0.9.0, and it runs 1.0.0"
    before = "what was kept of it is of a process that began 3000 s before what it runs now was activated"
    assert told((life(3600, 700, 90_000, started_at_s=NOW_S - 3700),), runs=Runs("1.0.0", NOW_S - 700)) == before


@pytest.mark.parametrize(
    ("without", "why"),
    [
        ("_count", "how long requests took is kept, and not how many there were"),
        ("_bucket", "synapse_http_server_response_time_seconds has other buckets than are known"),
        ("ru_utime", "it answered requests, and what they cost isn't kept"),
        ("process_cpu", "it used no CPU time at all: process_cpu_seconds_total isn't kept, or stands still"),
        ("synapse_http", "it did nothing at all: the families that tell what it does aren't kept, or have other names"),
        ("process_start", "the page has no process_start_time_seconds"),
        ("build_info", "the page has no synapse_build_info"),
    ],
)
def test_families_that_are_not_kept_are_no_zeros(without: str, why: str) -> None:
    """Renamed by a release, or left out by whoever wants to save space."""
    found = told((life(3600, 0, 3000, without=without),))
    # A sum without its histogram's own count has neither requests nor anything else that it did.
    assert found in {why, "it did nothing at all: the families that tell what it does aren't kept, or have other names"}
    assert without == "_count" or found == why


def test_counters_that_went_back_within_one_process_are_not_believed() -> None:
    broken = Life(NOW_S - 600, NOW_S, page(5000), page(10))
    assert told((broken,)) == "its counters began anew, but its process did not start between the two measurements"


def test_of_whom_nothing_is_known_it_is_said_why() -> None:
    assert told("Prometheus can't be asked: no answer in time") == "Prometheus can't be asked: no answer in time"
    found = past.tallies(Kept(), [SYNC1], {}, NOW_S)
    assert found == {SYNC1: "what it runs isn't known, or not since when"}


class Everybody(Kept):
    """The same hour of everybody but *without*, who has nothing."""

    def __init__(self, without: Collection[WorkerId] = ()) -> None:
        super().__init__()
        self.without = without

    def lives(
        self, workers: Collection[WorkerId], prefixes: Collection[str], since_s: float, until_s: float, now_s: float, timeout_s: float
    ) -> dict[WorkerId, tuple[Life, ...] | str]:
        del prefixes, timeout_s, until_s
        first, last = (page(requests, started_at_s=now_s - 800) for requests in (100.0, 800.0))
        its = (Life(now_s - 700, now_s, first, last),) if now_s - since_s == HOUR_S else "nothing was kept"
        return {worker: "it is away" if worker in self.without else its for worker in workers}


def _restart(stage: Stage) -> Plan:
    return stage.plan(PLAYBOOK, version=None, next_generation=True)


def _events(stage: Stage) -> list[object]:
    return [event for _, event in stage.journal.events(stage.deploy_id)]


def test_a_rollout_compares_with_what_prometheus_has_and_needs_no_survey() -> None:
    stage = seven_workers()
    stage.drivers = replace(stage.drivers, history=Everybody())
    plan = _restart(stage)
    rehearse(stage, plan)
    events = _events(stage)
    (found,) = (event for event in events if isinstance(event, BaselineFound))
    assert (found.source, found.partly) == ("Prometheus", ())
    assert found.tallies.keys() == plan.from_releases.keys()
    assert {(tally.requests, tally.until_s - tally.since_s) for tally in found.tallies.values()} == {(700.0, 700.0)}
    (survey,) = (event for event in events if isinstance(event, StepFinished) and event.step_id == StepId("homeserver/survey"))
    assert survey.why == "the baseline of Prometheus serves"
    assert survey.at_s - found.at_s < plan.baseline_s


def test_of_whom_prometheus_has_nothing_the_journal_comes_next_and_then_the_survey() -> None:
    stage = seven_workers()
    stage.drivers = replace(stage.drivers, history=Everybody({SYNC1, CLIENT1}))
    plan, now_s = _restart(stage), stage.clock.now_s()
    observed = Tally(now_s - 900, now_s - 600, requests=50, cpu_s=1)
    stage.journal.keep_baseline(Baseline(plan.homeserver, now_s, {SYNC1: (plan.from_releases[SYNC1], observed)}))
    found = baseline.find(stage.drivers, stage.journal, plan, now_s)
    assert found is not None
    assert found.source == "Prometheus, and for sync1 the journal of the last 24 h"
    assert found.tallies.keys() == plan.from_releases.keys() - {CLIENT1}
    # As if it had been taken just now: what is surveyed besides touches it.
    assert found.tallies[SYNC1] == replace(observed, since_s=now_s - 300, until_s=now_s)


def test_what_is_shorter_than_a_survey_is_none() -> None:
    stage = seven_workers()
    plan = replace(_restart(stage), baseline_s=701.0)
    stage.drivers = replace(stage.drivers, history=Everybody())
    assert baseline.find(stage.drivers, stage.journal, plan, stage.clock.now_s()) is None


def test_what_somebody_has_activated_since_the_plan_is_not_compared_with() -> None:
    stage = seven_workers()
    plan = _restart(stage)
    plan = replace(plan, from_releases={**plan.from_releases, SYNC1: ReleaseId("another")})
    stage.drivers = replace(stage.drivers, history=Everybody())
    found = baseline.find(stage.drivers, stage.journal, plan, stage.clock.now_s())
    assert found is not None
    assert SYNC1 not in found.tallies


class Canaries:
    """A probe that answers canaries, and keeps whom it was asked for."""

    def __init__(self) -> None:
        self.asked: set[WorkerId] = set()

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        del timeout_s
        self.asked |= set(paths)
        return {worker: Answer(worker != CLIENT1, 0.02) for worker in paths}


def test_everybody_is_asked_for_one_canary() -> None:
    """Or a worker that answered them before its restart would be taken for well without one after it."""
    stage = seven_workers()
    probe, plan = Canaries(), _restart(stage)
    stage.drivers = replace(stage.drivers, history=Everybody(), probe=probe)  # type: ignore[arg-type]
    found = baseline.find(stage.drivers, stage.journal, plan, stage.clock.now_s())
    assert found is not None
    asked = baseline.with_canaries(stage.drivers, plan, found)
    answered = asked.tallies[SYNC1]
    assert (answered.canaries, answered.canary_failures, answered.canary_latency[2], answered.requests) == (1, 0, 1, 700)
    assert (asked.tallies[CLIENT1].canaries, asked.tallies[CLIENT1].canary_failures) == (1, 1)
    assert {worker for worker, tally in asked.tallies.items() if tally.canaries} == probe.asked


def test_who_is_compared_by_canaries_is_surveyed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the survey sees is added to what was there, and nobody is told that it isn't needed."""
    monkeypatch.setattr(baseline, "_compares_ours", lambda _, worker: worker == SYNC1)
    stage = seven_workers()
    stage.drivers = replace(stage.drivers, history=Everybody())
    plan = _restart(stage)
    state = rehearse(stage, plan)
    events = _events(stage)
    (found,) = (event for event in events if isinstance(event, BaselineFound))
    assert found.partly == (SYNC1,)
    (survey,) = (event for event in events if isinstance(event, StepFinished) and event.step_id == StepId("homeserver/survey"))
    assert survey.why == "baseline taken"
    assert survey.at_s - found.at_s >= plan.baseline_s
    joined = state.workers[SYNC1].baseline
    assert joined is not None
    assert joined.requests > 700
    assert joined.until_s - joined.since_s == pytest.approx(700 + survey.at_s - found.at_s, abs=2 * plan.sample_s)
    assert "what only we count isn't in that of sync1, and is surveyed" in (narrate(found, plan) or "")


def test_a_gate_that_compares_canaries_needs_some_of_before() -> None:
    """One with a limit of its own doesn't."""
    stage = seven_workers()
    plan = _restart(stage)
    (step,) = (step for step in steps_of(plan.phases) if step.worker == SYNC1 and step.gates)
    gate = replace(plan.gates[step.gates[0]], metric=Metric.CANARY_P95, ratio_max=2.0)
    for ratio_max, partly in ((2.0, True), (None, False)):
        planned = replace(plan, gates={**plan.gates, gate.id: replace(gate, ratio_max=ratio_max)})
        stage.drivers = replace(stage.drivers, history=Everybody())
        found = baseline.find(stage.drivers, stage.journal, planned, stage.clock.now_s())
        assert found is not None
        assert (SYNC1 in found.partly) is partly


def test_preflight_warns_of_who_has_no_baseline_and_refuses_nothing() -> None:
    stage = seven_workers()
    seen = Surveyor(stage.drivers, stage.inventory, stage.clock).look(thorough=True)
    plan = _restart(stage)

    def checks(past_s: Mapping[WorkerId, float | str] | None) -> list[tuple[Result, str]]:
        question = Question(stage.inventory, (), Findings(seen, past_s=past_s), None, plan)
        return [(check.result, check.why) for check in of_past(question)]

    assert checks(None) == []
    assert checks({SYNC1: 7000.0, CLIENT1: 3600.0}) == [(Result.OK, "Prometheus has 60 min or more of each worker")]
    away = "Prometheus can't be asked: no answer in time"
    assert checks({SYNC1: away, CLIENT1: away}) == [
        (Result.WARNING, f"Prometheus has none for sync1, client1 (the journal or a survey has to do): {away}")
    ]
    needed = f"{plan.baseline_s:g}"
    assert checks({SYNC1: 7000.0, CLIENT1: 3.0}) == [
        (Result.WARNING, f"Prometheus has none for client1 (the journal or a survey has to do): 3 s of the {needed} s that are needed")
    ]
