"""What a probe may meet: an answer that isn't ok, in time, without a secret in it; never an exception."""

import socket
import time

import pytest

from rollout.adapters.probe.http import HttpProbe
from rollout.model.ids import WorkerId
from rollout.ports.probe import Answer
from tests.contracts.server import Says, serving

SYNC1 = WorkerId("sync1")
PATH = "/_matrix/client/v3/joined_rooms"


def canary(url: str, timeout_s: float = 5.0) -> Answer:
    return HttpProbe({SYNC1: url}, "se-cret", "@canary:localhost").canary({SYNC1: PATH}, timeout_s)[SYNC1]


def test_a_canary_asks_as_the_user_with_the_token_and_health_without() -> None:
    with serving(Says(b"{}")) as server:
        probe = HttpProbe({SYNC1: server.url}, "se-cret", "@canary:localhost")
        found = probe.canary({SYNC1: PATH}, 5.0)[SYNC1]
        probe.health([SYNC1], 5.0)
    assert found.ok
    assert 0 < found.seconds < 5
    assert server.asked == [(f"{PATH}?user_id=%40canary%3Alocalhost", "Bearer se-cret"), ("/health", None)]


def test_without_credentials_there_are_no_canaries() -> None:
    assert HttpProbe({SYNC1: "http://127.0.0.1:1"}, None, None).canary({SYNC1: PATH}, 5.0) == {}


@pytest.mark.parametrize(
    "answer",
    [
        Says(b"no", status=401),
        Says(b"se-cret", status=500),
        Says(b"", status=302),
        Says(b"half", length=100),
        Says(b"", bare=True),
        Says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", bare=True),
        Says(b"HTTP/1.1 200 OK\r\nServer: Syna", bare=True),
        Says(b"x" * 60_000_000),
    ],
    ids=["refused", "ill", "elsewhere", "half", "closed", "ssh", "half a header", "endless"],
)
def test_whatever_comes_is_an_answer(answer: Says) -> None:
    with serving(answer) as server:
        found = canary(server.url)
    assert not found.ok
    assert found.why
    assert "se-cret" not in found.why
    assert 0 < found.seconds < 5


@pytest.mark.parametrize(
    "answer",
    [
        Says(b"x" * 200, pause_s=0.05),
        Says(b"HTTP/1.1 200 OK\r\nX-Y: " + b"z" * 60 + b"\r\nContent-Length: 0\r\n\r\n", pause_s=0.05, bare=True),
        Says(b"x", length=100, pause_s=60),
    ],
    ids=["body", "header", "nothing"],
)
def test_an_answer_that_does_not_come_is_not_waited_for_any_longer(answer: Says) -> None:
    with serving(answer) as server:
        began_s = time.monotonic()
        found = canary(server.url, 1.0)
        assert time.monotonic() - began_s < 4
    assert (found.ok, found.why) == (False, "no answer in time")
    assert 0.9 < found.seconds < 4


def test_seconds_are_counted_until_the_last_byte() -> None:
    with serving(Says(b"{}", pause_s=0.2)) as server:
        found = canary(server.url)
    assert found.ok
    assert found.seconds > 0.2


@pytest.mark.parametrize("token", ["se-cret\u2026", "se-cret\nX-Y: z"], ids=["not latin", "two lines"])
def test_a_token_that_was_copied_badly_is_an_answer_too(token: str) -> None:
    with serving(Says(b"no", status=401)) as server:
        found = HttpProbe({SYNC1: server.url}, token, "@canary:localhost").canary({SYNC1: PATH}, 5.0)[SYNC1]
    assert not found.ok
    assert found.why in {"answered 401", "InvalidHeader"}


def test_who_is_asked_as_must_be_known_to_the_homeserver() -> None:
    with serving(Says(b"{}")) as ill, serving(Says(b'{"user_id": "@canary:localhost"}')) as well:
        ill.answer = Says(b"oh", status=502)
        probe = HttpProbe({SYNC1: ill.url, WorkerId("sync2"): well.url}, "se-cret", "@canary:localhost")
        assert probe.unavailable(5.0) == ""
        assert well.asked == [("/_matrix/client/v3/account/whoami?user_id=%40canary%3Alocalhost", "Bearer se-cret")]
        well.answer = Says(b"no", status=403)
        assert probe.unavailable(5.0) == (
            "the homeserver doesn't know the application service, or @canary:localhost (answered 403): register it, and restart"
        )
        well.answer = Says(b"oh", status=502)
        assert probe.unavailable(5.0) == "no worker said whether the homeserver knows the application service"


def test_without_credentials_it_says_what_is_missing() -> None:
    why = HttpProbe({SYNC1: "http://127.0.0.1:1"}, "se-cret", None).unavailable(5.0)
    assert why == "probe_driver in the inventory has no as_token and user: those of an application service that is registered"


def test_nobody_there_and_nobody_known() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found = canary(f"http://127.0.0.1:{one.getsockname()[1]}")
    assert (found.ok, "se-cret" in found.why) == (False, False)
    assert not HttpProbe({}, None, None).health([SYNC1], 5.0)[SYNC1].ok
