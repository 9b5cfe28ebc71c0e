"""What a look reads besides: pages that say how old they are, and file handles of workers that nobody measures."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rollout.engine.files import FRESH_S
from rollout.engine.metering import PAGE_AGE_MAX_S
from rollout.engine.survey import Surveyor
from rollout.model.ids import WorkerId
from rollout.model.sample import Page, Sample
from rollout.model.sighting import ProxySighting
from rollout.ports.probe import Answer
from rollout.ports.traffic import Server
from rollout.simulation.rehearse import Stage
from tests.simulation.stages import seven_workers

SYNC1, CLIENT1, FEDSENDER1 = (WorkerId(name) for name in ("sync1", "client1", "fedsender1"))


class Dated:
    """Pages that say when they were written."""

    def __init__(self, stage: Stage, at_s: float) -> None:
        self._metrics = stage.drivers.metrics
        self.at_s = at_s

    def read(self, workers: tuple[WorkerId, ...], prefixes: tuple[str, ...], timeout_s: float) -> dict[WorkerId, Page | str]:
        pages = self._metrics.read(workers, prefixes, timeout_s)
        return {worker: self._dated(page) for worker, page in pages.items()}

    def _dated(self, page: Page | str) -> Page | str:
        if isinstance(page, str):
            return page
        return Page(tuple(Sample(one.name, one.labels, one.value, self.at_s) for one in page.samples))


class Answering:
    """Canaries that are all answered, or none of them; and who is asked for its health is well."""

    ok = True

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        del timeout_s
        return {worker: Answer(self.ok, 0.01) for worker in paths}


def test_a_page_that_says_that_it_is_old_is_not_believed() -> None:
    stage = seven_workers()
    now_s = stage.clock.now_s()
    dated = Dated(stage, now_s - PAGE_AGE_MAX_S)
    stage.drivers = replace(stage.drivers, metrics=dated)  # type: ignore[arg-type]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    assert surveyor.measure([SYNC1], with_canaries=False).unmeasured == {}
    dated.at_s -= 5.0
    assert surveyor.measure([SYNC1], with_canaries=False).unmeasured == {SYNC1: "its page says itself that it is 65 s old"}
    dated.at_s = now_s + PAGE_AGE_MAX_S + 5.0
    sentence = "its page says itself that it was written 65 s from now: that clock is ahead of ours"
    assert surveyor.measure([SYNC1], with_canaries=False).unmeasured == {SYNC1: sentence}


def test_what_is_read_twice_between_two_scrapes_is_nothing_new() -> None:
    """A tally is of the time between two pages, not between two readings; canaries that were asked meanwhile are in the next one."""
    stage = seven_workers()
    began_s = stage.clock.now_s()
    dated = Dated(stage, began_s - 10.0)
    probe = Answering()
    stage.drivers = replace(stage.drivers, metrics=dated, probe=probe)  # type: ignore[arg-type]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    surveyor.measure([SYNC1], with_canaries=True)
    for _ in range(3):
        stage.clock.advance_to(stage.clock.now_s() + 5.0)
        measured = surveyor.measure([SYNC1], with_canaries=True)
        assert (measured.tallies, measured.unmeasured) == ({}, {})
        probe.ok = False
    dated.at_s = stage.clock.now_s() - 2.0
    tally = surveyor.measure([SYNC1], with_canaries=True).tallies[SYNC1]
    assert (tally.since_s, tally.until_s) == (began_s - 10.0, began_s + 13.0)
    assert (tally.canaries, tally.canary_failures, sum(tally.canary_latency)) == (4, 3, 1)


def test_a_page_from_before_a_restart_says_nothing_about_the_version_that_runs() -> None:
    """A Prometheus has the old one until it scrapes the next; what was learnt of it would be believed as long as the process lives."""
    stage = seven_workers()
    before = stage.drivers.metrics.read([SYNC1], ("synapse_build_info", "process_start"), 1.0)
    stage.world.stop(SYNC1)
    stage.clock.advance_to(stage.clock.now_s() + 30.0)
    stage.world.start(SYNC1)
    stage.clock.advance_to(stage.clock.now_s() + 60.0)
    dated = Dated(stage, stage.clock.now_s() - 1.0)
    kept = dated.read
    dated.read = lambda *_: {worker: dated._dated(page) for worker, page in before.items()}  # type: ignore[method-assign]  # noqa: SLF001
    stage.drivers = replace(stage.drivers, metrics=dated)  # type: ignore[arg-type]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    assert surveyor.look(thorough=False).sightings[SYNC1].version is None
    dated.read = kept  # type: ignore[method-assign]
    assert surveyor.look(thorough=False).sightings[SYNC1].version == "1.0.0"


def test_the_file_handles_of_workers_out_of_focus_are_read_all_the_same() -> None:
    """A guard on them is about every worker, and old figures are no figures."""
    stage = seven_workers()
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    surveyor.measure([SYNC1], with_canaries=False)
    stage.world.files[WorkerId("client2")] = (0.0, 900.0, 0.0)
    readings = {reading.guard: reading for reading in surveyor.look(thorough=True).guards}
    assert readings["files_used"].detail == "client2: 900 of 1024"
    stage.world.files[WorkerId("client2")] = (0.0, 300.0, 0.0)
    stage.clock.advance_to(stage.clock.now_s() + FRESH_S + 1)
    readings = {reading.guard: reading for reading in surveyor.look(thorough=True).guards}
    assert readings["files_used"].detail == "client2: 300 of 1024"
    stage.world.dark.add(WorkerId("client2"))
    stage.clock.advance_to(stage.clock.now_s() + FRESH_S + 1)
    readings = {reading.guard: reading for reading in surveyor.look(thorough=True).guards}
    assert (readings["files_used"].value, readings["files_used"].detail) == (None, "client2: connection refused")


def test_who_ended_by_itself_is_asked_once_for_its_last_words() -> None:
    """And not who is acted on, nor who was never seen to run."""
    stage = seven_workers()
    asked: list[WorkerId] = []
    workers = stage.drivers.workers
    last_lines = workers.last_lines

    def ask(worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        asked.append(worker)
        return last_lines(worker, lines_max)

    workers.last_lines = ask  # type: ignore[method-assign]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)

    def last_words() -> dict[WorkerId, tuple[str, ...]]:
        seen = surveyor.look(thorough=False, heeded=[SYNC1, FEDSENDER1]).sightings
        return {worker: one.process.last_words for worker, one in seen.items() if one.process and one.process.last_words}

    stage.world.die(FEDSENDER1)
    assert last_words() == {}
    stage.world.die(SYNC1)
    stage.world.die(CLIENT1)
    for _ in range(2):
        assert last_words() == {SYNC1: ("sync1: exited with status 1",)}
    assert asked == [SYNC1]
    stage.world.start(SYNC1)
    assert last_words() == {}


class Counting:
    """A proxy whose counts a test says."""

    def __init__(self, stage: Stage) -> None:
        self._traffic = stage.drivers.traffic
        self.requests: int | None = 1000
        self.counters = {"hrsp_5xx": 10}
        self.cuts: int | None = 5

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        seen = self._traffic.look(servers, timeout_s)
        return {worker: replace(one, requests=self.requests, cuts=self.cuts, counters=self.counters) for worker, one in seen.items()}


@pytest.mark.parametrize(
    ("now", "proxied", "failures"),
    [
        ((1100, 5, 10), 100.0, 0.0),
        # What HAProxy answers itself for a server that hangs up is counted in both: the greater one is as much as is certain.
        ((1100, 8, 12), 100.0, 3.0),
        ((1100, 6, 14), 100.0, 4.0),
        # A reload: it counts from nought.
        ((40, 1, 2), 40.0, 2.0),
        # What failed had come before.
        ((1001, 8, 10), 3.0, 3.0),
        # One that doesn't count.
        ((None, None, 0), 0.0, 0.0),
    ],
)
def test_what_the_proxy_counts_is_part_of_what_a_worker_did(
    now: tuple[int | None, int | None, int], proxied: float, failures: float
) -> None:
    stage = seven_workers()
    proxy = Counting(stage)
    stage.drivers = replace(stage.drivers, traffic=proxy)  # type: ignore[arg-type]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    surveyor.look(thorough=False)
    assert surveyor.measure([SYNC1, FEDSENDER1], with_canaries=False).tallies == {}
    stage.clock.advance_to(stage.clock.now_s() + 5.0)
    proxy.requests, proxy.cuts, proxy.counters = now[0], now[1], {"hrsp_5xx": now[2]}
    surveyor.look(thorough=False)
    tallies = surveyor.measure([SYNC1, FEDSENDER1], with_canaries=False).tallies
    assert (tallies[SYNC1].proxied, tallies[SYNC1].proxy_failures) == (proxied, failures)
    assert (tallies[FEDSENDER1].proxied, tallies[FEDSENDER1].proxy_failures) == (0.0, 0.0)


def test_what_a_proxy_counted_while_a_worker_could_not_be_measured_is_in_its_next_tally() -> None:
    stage = seven_workers()
    proxy = Counting(stage)
    stage.drivers = replace(stage.drivers, traffic=proxy)  # type: ignore[arg-type]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    surveyor.look(thorough=False)
    surveyor.measure([SYNC1], with_canaries=False)
    stage.world.dark.add(SYNC1)
    stage.clock.advance_to(stage.clock.now_s() + 5.0)
    proxy.requests = 1100
    surveyor.look(thorough=False)
    assert SYNC1 in surveyor.measure([SYNC1], with_canaries=False).unmeasured
    stage.world.dark.discard(SYNC1)
    stage.clock.advance_to(stage.clock.now_s() + 5.0)
    proxy.requests = 1200
    surveyor.look(thorough=False)
    assert surveyor.measure([SYNC1], with_canaries=False).tallies[SYNC1].proxied == 200.0
