"""A page reaches a real webhook, and one that is ill is told as such, in time, without its address."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rollout.adapters.notifier.webhook import Webhook, build
from rollout.model.errors import InvalidFileError, TransientDriverError
from rollout.model.ids import DeployId
from rollout.ports.notifier import Page, Severity
from tests.simulation.stages import seven_workers

SECRET = "se-cret-path"
PAGE = Page("finished", Severity.CRITICAL, "example.org", DeployId("20261123-1"), 0.0, "halted: sync1 is out", "what next: rollout why")


class _Hook(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of somebody who didn't wait."""

    def __init__(self, behaviour: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.behaviour = behaviour
        self.bodies: list[dict[str, object]] = []
        self.asked: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        match self.server.behaviour:
            case "hangs":
                time.sleep(30)
            case "drips":
                for letter in b"HTTP/1.1 200 OK":
                    self.wfile.write(bytes([letter]))
                    time.sleep(0.3)
            case "redirects":
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case status:
                self.send_response(int(status))
                self.send_header("Content-Length", "0")
                self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _hook(behaviour: str) -> Iterator[tuple[_Hook, Webhook]]:
    server = _Hook(behaviour)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/{SECRET}"
    try:
        yield server, Webhook(address, f"{address}/beat")
    finally:
        server.shutdown()
        server.server_close()


def test_a_page_arrives_with_a_text_for_people_and_its_parts_for_programs() -> None:
    with _hook("200") as (server, webhook):
        webhook.tell(PAGE, 5.0)
        webhook.beat(5.0)
    (body,) = server.bodies
    assert body["text"] == "[critical] example.org, rollout 20261123-1: halted: sync1 is out\nwhat next: rollout why"
    assert (body["kind"], body["severity"], body["deploy_id"], body["at"]) == (
        "finished",
        "critical",
        "20261123-1",
        "1970-01-01T00:00:00+00:00",
    )
    assert server.asked == [f"POST /{SECRET}", f"GET /{SECRET}/beat"]


@pytest.mark.parametrize("behaviour", ["hangs", "drips", "redirects", "500", "404"])
def test_one_that_is_ill_is_told_in_time_and_without_its_address(behaviour: str) -> None:
    with _hook(behaviour) as (_, webhook):
        acts: tuple[Callable[[], None], ...] = (lambda: webhook.tell(PAGE, 1.0), lambda: webhook.beat(1.0))
        for act in acts:
            began_s = time.monotonic()
            with pytest.raises(TransientDriverError) as raised:
                act()
            assert time.monotonic() - began_s < 6.0
            assert SECRET not in str(raised.value)
            assert raised.value.__cause__ is None


def test_one_that_is_not_there_is_told_without_its_address() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    with pytest.raises(TransientDriverError) as raised:
        Webhook(f"http://127.0.0.1:{port}/{SECRET}", None).tell(PAGE, 1.0)
    assert SECRET not in str(raised.value)


def test_without_a_heartbeat_nothing_is_asked() -> None:
    Webhook("http://127.0.0.1:1/", None).beat(1.0)


def test_what_is_no_address_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    with pytest.raises(InvalidFileError) as raised:
        build({"url": "env:HOOK"}, seven_workers().inventory)
    assert raised.value.what == "what env:HOOK holds is no address"
    assert SECRET not in str(raised.value)
