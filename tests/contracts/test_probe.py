"""What every driver of the port `probe` promises: the one over HTTP and the simulated one."""

from collections.abc import Iterator

import pytest

from rollout.adapters.probe.http import HttpProbe
from rollout.model.ids import WorkerId
from rollout.ports.probe import Probe
from rollout.simulation.rehearse import set_stage
from tests.contracts.server import Says, serving

WELL, ILL = WorkerId("sync1"), WorkerId("sync2")


@pytest.fixture(params=["http", "simulated"])
def probe(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """WELL answers, ILL doesn't."""
    if request.param == "simulated":
        stage = set_stage({"sync1": ("sync", "sync"), "sync2": ("sync", "sync")})
        stage.world.stop(ILL)
        yield stage.drivers.probe
    else:
        with serving(Says(b"ok")) as one, serving(Says(b"oh", status=502)) as other:
            yield HttpProbe({WELL: one.url, ILL: other.url}, "secret", "@canary:localhost")


def test_health_is_told_of_each(probe: Probe) -> None:
    answers = probe.health([WELL, ILL], 5.0)
    assert (answers[WELL].ok, answers[ILL].ok) == (True, False)
    assert not answers[WELL].why
    assert answers[ILL].why


def test_canaries_are_for_those_who_were_asked_or_there_are_none(probe: Probe) -> None:
    answers = probe.canary({WELL: "/_matrix/client/v3/joined_rooms", ILL: "/_matrix/client/v3/joined_rooms"}, 5.0)
    assert set(answers) in ({WELL, ILL}, set())
    assert not any(answer.ok for worker, answer in answers.items() if worker == ILL)


def test_nobody_is_asked_for_nothing(probe: Probe) -> None:
    assert (probe.health([], 5.0), probe.canary({}, 5.0)) == ({}, {})
