"""Who is found in the middle of a start is waited for, if it was an earlier rollout of ours that left it there; nobody else is."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from rollout.engine.readiness import START_WAIT_S, Readiness
from rollout.engine.strain import REACTOR_TICK, REPLICATION_LAG
from rollout.homeservers.synapse.metrics import TICK_EDGES_S
from rollout.model.effect import Effect
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.model.sample import Page, Sample
from rollout.simulation.rehearse import Stage
from tests.simulation.stages import seven_workers

CLIENT1 = WorkerId("client1")


def _restart(stage: Stage, boots_in_s: float, *, marked: bool) -> None:
    world = stage.world
    if marked:
        effect = Effect(EffectNumber(1), StepId("client1/drain"), Verb.DRAIN, CLIENT1, stage.old.id, stage.clock.now_s())
        with stage.drivers.ledger.fence(effect):
            world.drain(CLIENT1)
    world.stop(CLIENT1)
    world.workers[CLIENT1].next_boot_s = boots_in_s
    world.start(CLIENT1)


def _ready(stage: Stage, said: list[str]) -> Readiness:
    """Let it wait by the stage's clock."""
    readiness = Readiness(stage.drivers, stage.inventory, stage.clock, said.append)

    def wait(timeout: float | None = None) -> bool:
        stage.clock.advance_to(stage.clock.now_s() + (timeout or 0.0))
        return False

    readiness._wait = wait  # noqa: SLF001
    return readiness


def _look(stage: Stage) -> tuple[str | None, float, list[str]]:
    """Return the version that is seen of it, how long that took, and what was said."""
    said: list[str] = []
    readiness = _ready(stage, said)
    began_s = stage.clock.now_s()
    seen = readiness.look(warming=False)
    return seen.observation.sightings[CLIENT1].version, stage.clock.now_s() - began_s, said


def test_one_that_starts_is_waited_for() -> None:
    stage = seven_workers()
    _restart(stage, 20.0, marked=True)
    version, took_s, said = _look(stage)
    assert version == "1.0.0"
    assert 20.0 <= took_s <= 22.0
    assert said == ["waiting for client1, which an earlier rollout took out: the version that runs can't be read yet"]


def test_one_that_never_comes_is_judged_as_it_is() -> None:
    stage = seven_workers()
    _restart(stage, 10 * START_WAIT_S, marked=True)
    version, took_s, _ = _look(stage)
    assert version is None
    assert START_WAIT_S <= took_s <= START_WAIT_S + 2.0


def test_one_that_others_restart_is_not_waited_for() -> None:
    stage = seven_workers()
    _restart(stage, 20.0, marked=False)
    version, took_s, said = _look(stage)
    assert (version, said) == (None, [])
    assert took_s <= 2.0


def test_whether_evidence_can_be_bought_is_asked_where_that_is_wanted() -> None:
    stage = seven_workers()
    readiness = _ready(stage, [])
    assert readiness.look(warming=False).observation.no_canaries == ""
    assert "no application service" in readiness.look(warming=False, buying=True).observation.no_canaries
    stage.world.application_service = True
    assert readiness.look(warming=False, buying=True).observation.no_canaries == ""


class Turning:
    """Pages of workers that turn a thousand times between two readings, a millisecond each, and know all that there is."""

    def __init__(self, stage: Stage) -> None:
        self._metrics = stage.drivers.metrics
        self._clock = stage.clock

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        pages = self._metrics.read(workers, prefixes, timeout_s)
        turns = 1000.0 * self._clock.now_s()
        ticks = [Sample("python_twisted_reactor_tick_time_bucket", {"le": str(edge)}, turns) for edge in (*TICK_EDGES_S, "+Inf")]
        known = Sample("synapse_storage_stream_current_position", {"stream_name": "events"}, 7.0)
        return {worker: page if isinstance(page, str) else Page((*page.samples, *ticks, known)) for worker, page in pages.items()}


@pytest.mark.parametrize(("watch_s", "told"), [(0.0, False), (20.0, True)])
def test_how_workers_keep_up_is_told_by_the_last_reading(watch_s: float, *, told: bool) -> None:
    stage = seven_workers()
    stage.drivers = replace(stage.drivers, metrics=Turning(stage))
    seen = _ready(stage, []).look(warming=False, watch_s=watch_s)
    readings = {reading.guard: reading for reading in seen.observation.guards}
    for guard in (REACTOR_TICK, REPLICATION_LAG):
        assert (readings[guard].value is not None, readings[guard].short) == (told, not told)
