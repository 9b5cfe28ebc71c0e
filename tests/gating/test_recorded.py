"""A restart that is taken out of a journal is what a gate saw of it, and those that are kept are judged as they should be."""

import functools
from collections.abc import Iterable
from operator import add
from pathlib import Path

import pytest

from rollout.adapters.journal.sql import open_journal
from rollout.deciding.fold import fold, start
from rollout.model.event import EffectIntended, Event, RollbackBegan, SamplesTaken
from rollout.model.gate import Ruling, Tally
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan
from rollout.simulation.rehearse import DEPLOY, rehearse
from tests.benchmarks.gates import contest, probes, recorded, table
from tests.benchmarks.gates.draw import STEP_S
from tests.benchmarks.gates.ours import PER_RESTART, UNLEARNED, Judge
from tests.benchmarks.gates.record import main, write
from tests.benchmarks.gates.record import recorded as taken
from tests.benchmarks.gates.traces import Restart
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")
BYTES_MAX = 60_000
# Times were moved, and moved back.
EXACT_S = 1e-3
KEPT = recorded.restarts()


@functools.cache
def rolled() -> tuple[Plan, tuple[Event, ...]]:
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan)
    return plan, tuple(event for _, event in stage.journal.events(DEPLOY))


@functools.cache
def client1() -> Restart:
    restart = taken(*rolled(), CLIENT1, healthy=True)
    assert restart is not None
    return restart


def _total(tallies: Iterable[Tally | None]) -> Tally:
    return functools.reduce(add, (tally for tally in tallies if tally is not None))


def _measured(worker: WorkerId, since_s: float, until_s: float) -> list[Tally]:
    """List what the journal has of a worker within a stretch of time."""
    sweeps = [event.measured.tallies for event in rolled()[1] if isinstance(event, SamplesTaken)]
    found = [tallies[worker] for tallies in sweeps if worker in tallies]
    return [tally for tally in found if since_s - EXACT_S <= tally.since_s and tally.until_s <= until_s + EXACT_S]


@functools.cache
def _zero_s() -> float:
    """Return when, in the journal's time, the recording begins: at its worker's baseline."""
    return _baseline_since_s(*rolled())


def _baseline_since_s(plan: Plan, events: Iterable[Event]) -> float:
    baseline = functools.reduce(functools.partial(fold, plan), events, start(plan)).workers[CLIENT1].baseline
    assert baseline is not None
    return baseline.since_s


def test_its_baselines_are_those_of_the_survey() -> None:
    restart, zero_s = client1(), _zero_s()
    until_s = zero_s + restart.baseline.until_s
    assert restart.baseline.since_s == 0
    assert restart.baseline.requests == _total(_measured(CLIENT1, zero_s, until_s)).requests > 0
    assert restart.controls_baseline is not None
    assert restart.controls_baseline.latency == _total(_measured(CLIENT2, zero_s, until_s)).latency
    assert _total(restart.baseline_scrapes).requests == pytest.approx(restart.baseline.requests)
    assert restart.rate == pytest.approx(restart.baseline.requests / restart.baseline.until_s, abs=0.01)


def test_its_scrapes_hold_all_that_came_with_the_full_share() -> None:
    """And nothing of the ramp; each stands where it ended."""
    restart, zero_s = client1(), _zero_s()
    own = _total(scrape.own for scrape in restart.scrapes)
    assert own.since_s >= restart.admitted_s
    assert own.requests == pytest.approx(_total(_measured(CLIENT1, zero_s + own.since_s, zero_s + own.until_s)).requests)
    assert own.until_s - restart.admitted_s > PLAYBOOK.gates[0].soak_s
    assert [scrape.at_s for scrape in restart.scrapes] == [STEP_S * (step + 1) for step in range(len(restart.scrapes))]
    for scrape in restart.scrapes:
        assert scrape.own is None or scrape.at_s - STEP_S < scrape.own.until_s - restart.admitted_s <= scrape.at_s + EXACT_S


def test_who_was_restarted_is_compared_with_no_longer() -> None:
    """client2 follows client1: there are controls until then, and none afterwards. For client2 there are none at all."""
    with_controls = [scrape.controls is not None for scrape in client1().scrapes]
    assert with_controls[0]
    assert not with_controls[-1]
    assert with_controls == sorted(with_controls, reverse=True)
    second = taken(*rolled(), CLIENT2, healthy=True)
    assert second is not None
    assert all(scrape.controls is None for scrape in second.scrapes)
    assert second.controls_baseline is not None


def test_it_ends_when_the_worker_is_drained_again() -> None:
    """What it does on the way back, on the release before, says nothing about the one that was taken back."""
    stage = seven_workers()
    plan = stage.plan(PLAYBOOK)
    stage.world.erring[plan.to_release.id] = 0.2
    rehearse(stage, plan)
    events = [event for _, event in stage.journal.events(DEPLOY)]
    back = next(place for place, event in enumerate(events) if isinstance(event, RollbackBegan))
    restart = taken(plan, events, CLIENT1, healthy=False)
    assert restart is not None
    own = [scrape.own for scrape in restart.scrapes if scrape.own is not None]
    assert min(tally.errors / tally.requests for tally in own) > 0.1
    drained_at_s = next(event.at_s for event in events[back:] if isinstance(event, EffectIntended) and event.effect.worker == CLIENT1)
    assert own[-1].until_s <= drained_at_s - _baseline_since_s(plan, events)


def test_who_was_not_restarted_is_not_recorded() -> None:
    plan, events = rolled()
    assert taken(plan, events[:20], CLIENT1, healthy=True) is None


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(client1(), tmp_path / "one.json")
    again = recorded.read(tmp_path / "one.json")
    assert (again.truth, again.rate) == (client1().truth, client1().rate)
    assert again.baseline.latency == pytest.approx(client1().baseline.latency)
    assert [scrape.at_s for scrape in again.scrapes] == [scrape.at_s for scrape in client1().scrapes]
    assert _total(scrape.own for scrape in again.scrapes).requests == pytest.approx(_total(s.own for s in client1().scrapes).requests)


def test_the_command_takes_one_out_of_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, events = rolled()
    place = str(tmp_path / "journal.db")
    journal = open_journal(place)
    journal.begin(DEPLOY, plan, events[0])
    journal.append(DEPLOY, events[1:])
    journal.close()
    main([place, DEPLOY, "client1", str(tmp_path / "one.json"), "--bad"])
    found = recorded.read(tmp_path / "one.json")
    assert (found.truth.scenario, found.truth.healthy) == (f"recorded, {plan.to_release.version}", False)
    begun = str(tmp_path / "begun.db")
    journal = open_journal(begun)
    journal.begin(DEPLOY, plan, events[0])
    journal.close()
    with pytest.raises(SystemExit):
        main([begun, DEPLOY, "client1", str(tmp_path / "none.json")])
    assert "nothing to judge" in capsys.readouterr().err


def _last(contender: Judge, restart: Restart) -> list[Ruling]:
    rulings: list[Ruling] = []
    for scrape in restart.scrapes:
        if Ruling.FAIL not in rulings:
            rulings.append(contender.see(scrape))
    return rulings


@pytest.mark.parametrize("name", KEPT)
def test_ours_is_right_about_what_was_recorded(name: str) -> None:
    """A good one passes, within its first minute, and is not taken back after that; a bad one fails."""
    restart = KEPT[name]
    for ours in (UNLEARNED, PER_RESTART):
        rulings = _last(ours.judge(restart, 20.0), restart)
        assert rulings[-1] is (Ruling.PASS if restart.truth.healthy else Ruling.FAIL)
        if restart.truth.healthy:
            assert restart.scrapes[rulings.index(Ruling.PASS)].at_s < 60


def test_recordings_are_small_and_there_are_good_and_bad_ones() -> None:
    assert {restart.truth.healthy for restart in KEPT.values()} == {True, False}
    assert all(place.stat().st_size < BYTES_MAX for place in recorded.PLACE.iterdir())


def test_each_contender_has_a_row_for_each_recording() -> None:
    rows = table.recorded_rows([probes.DEFAULT, UNLEARNED])
    assert [(row["restart"], row["gate"]) for row in rows] == [(name, gate) for name in KEPT for gate in ("probes", UNLEARNED.name)]
    assert {row["seeds"] for row in rows} == {contest.RECORDED}
    bad = next(name for name, restart in KEPT.items() if not restart.truth.healthy)
    # A probe never takes anybody back, however long the recording is.
    row = next(row for row in rows if (row["restart"], row["gate"]) == (bad, "probes"))
    assert row["fail s"] == f">{KEPT[bad].scrapes[-1].at_s:.0f}"
