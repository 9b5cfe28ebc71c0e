"""What every driver of the port `probe` promises: the one over HTTP and the simulated one."""

from collections.abc import Iterator

import pytest

from rollout.adapters.probe.http import HttpProbe
from rollout.model.ids import WorkerId
from rollout.ports.probe import Probe
from rollout.simulation.rehearse import set_stage
from tests.contracts.server import Says, serving

WELL, ILL, STRANGER = WorkerId("sync1"), WorkerId("sync2"), WorkerId("stranger")
PATH = "/_matrix/client/v3/joined_rooms"
TIMEOUT_S = 5.0


@pytest.fixture(params=["http", "simulated"])
def stranger(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """A probe that has nobody to ask as."""
    if request.param == "simulated":
        yield set_stage({"sync1": ("sync", "sync")}).drivers.probe
    else:
        with serving(Says(b"ok")) as server:
            yield HttpProbe({WELL: server.url}, None, None)


@pytest.fixture(params=["http", "simulated"])
def probe(request: pytest.FixtureRequest) -> Iterator[Probe]:
    """WELL answers, ILL doesn't, STRANGER isn't known."""
    if request.param == "simulated":
        stage = set_stage({"sync1": ("sync", "sync"), "sync2": ("sync", "sync")})
        stage.world.stop(ILL)
        stage.world.application_service = True
        yield stage.drivers.probe
    else:
        with serving(Says(b"ok")) as one, serving(Says(b"oh", status=502)) as other:
            yield HttpProbe({WELL: one.url, ILL: other.url}, "secret", "@canary:localhost")


def test_health_is_told_of_each_with_what_it_took_and_why_not(probe: Probe) -> None:
    answers = probe.health([WELL, ILL, STRANGER], TIMEOUT_S)
    assert {worker: answer.ok for worker, answer in answers.items()} == {WELL: True, ILL: False, STRANGER: False}
    assert {worker for worker, answer in answers.items() if answer.why} == {ILL, STRANGER}
    assert answers[WELL].seconds > 0
    assert all(0 <= answer.seconds < TIMEOUT_S for answer in answers.values())


def test_canaries_are_for_those_who_were_asked(probe: Probe) -> None:
    answers = probe.canary({WELL: PATH, ILL: PATH, STRANGER: PATH}, TIMEOUT_S)
    assert set(answers) == {WELL, ILL, STRANGER}
    assert {worker for worker, answer in answers.items() if answer.ok} == {WELL}
    assert all(answer.ok != bool(answer.why) for answer in answers.values())


def test_who_has_nobody_to_ask_as_asks_nobody_and_says_so(stranger: Probe) -> None:
    assert stranger.canary({WELL: PATH}, TIMEOUT_S) == {}
    assert "application service" in stranger.unavailable(TIMEOUT_S)


def test_who_can_ask_has_nothing_to_say_about_it(probe: Probe) -> None:
    assert probe.unavailable(TIMEOUT_S) == ""


def test_nobody_is_asked_for_nothing(probe: Probe) -> None:
    assert (probe.health([], TIMEOUT_S), probe.canary({}, TIMEOUT_S)) == ({}, {})
