"""What a look reads besides: pages that say how old they are, and file handles of workers that nobody measures."""

from dataclasses import replace

from rollout.engine.files import FRESH_S
from rollout.engine.survey import PAGE_AGE_MAX_S, Surveyor
from rollout.model.ids import WorkerId
from rollout.model.sample import Page, Sample
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


def test_a_page_that_says_that_it_is_old_is_not_believed() -> None:
    stage = seven_workers()
    now_s = stage.clock.now_s()
    dated = Dated(stage, now_s - PAGE_AGE_MAX_S)
    stage.drivers = replace(stage.drivers, metrics=dated)  # type: ignore[arg-type]
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    assert surveyor.measure([SYNC1], with_canaries=False).unmeasured == {}
    dated.at_s -= 5.0
    assert surveyor.measure([SYNC1], with_canaries=False).unmeasured == {SYNC1: "its page says itself that it is 65 s old"}


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
