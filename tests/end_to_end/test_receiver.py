"""The peer as a process of its own, with events as a homeserver sent them; what it asks for, a stand-in for the homeserver answers."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from rollout.lab.paths import SERVER_NAME, Lab, Ports
from rollout.lab.receiver import peer
from rollout.lab.receiver.receipts import How, Receipt, Receipts

ROOT = Path(__file__).parents[2]
FORK: dict[str, Any] = json.loads((ROOT / "tests/data/federation/fork.json").read_text())
EVENTS: dict[str, dict[str, Any]] = FORK["events"]
# Two that were sent at once, one that follows both, one that follows it.
LEFT, RIGHT, BOTH, LAST = EVENTS
ROOM = EVENTS[LAST]["room_id"]
WAIT_S = 15.0


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "received.jsonl"
    receipts = Receipts(path)
    assert receipts.fresh() == []
    line = json.dumps({"event": "$1", "room": "!a", "how": "pushed", "at_s": 1.0}) + "\n"
    path.write_text(line + line[:20])
    assert receipts.fresh() == [Receipt("$1", "!a", How.PUSHED, 1.0)]
    assert receipts.fresh() == []
    path.write_text(line + line.replace("$1", "$2"))
    assert [one.event for one in receipts.fresh()] == ["$2"]


def test_what_came_before_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "received.jsonl"
    path.write_text(json.dumps({"event": "$1", "room": "!a", "how": "joined", "version": "12", "depth": 3, "at_s": 1.0}) + "\n")
    assert Receipts(path).fresh() == []


class Homeserver(HTTPServer):
    """Answers for single events; the first time that it is asked it is not there."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Homeserver

    def do_GET(self) -> None:
        self.server.asked.append(self.headers["Authorization"].partition(" ")[0] + " " + unquote(self.path.rpartition("/")[2]))
        body = json.dumps({"pdus": [EVENTS[unquote(self.path.rpartition("/")[2])]]}).encode()
        self.send_response(503 if len(self.server.asked) == 1 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def homeserver() -> Iterator[Homeserver]:
    with Homeserver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def alone(tmp_path: Path, homeserver: Homeserver, lab: Lab) -> Iterator[Lab]:
    """Nothing of a lab but its peer, which has joined one room."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    found = Lab(tmp_path, Ports(homeserver.server_port, 0, 0, 0, port, {}, {}))
    (tmp_path / "current/main").mkdir(parents=True)
    (tmp_path / "current/main/venv").symlink_to((lab.target / "current/main/venv").resolve())
    found.receiver.mkdir()
    joined = {"event": "$joined", "room": ROOM, "how": "joined", "version": FORK["version"], "depth": FORK["joined_depth"], "at_s": 1.0}
    found.received.write_text(json.dumps(joined) + "\n")
    with subprocess.Popen(peer.command(found)) as process:
        until(lambda: peer.answers(found))
        yield found
        process.terminate()


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def push(lab: Lab, *events: str) -> requests.Response:
    pdus = [EVENTS[event] for event in events]
    url = f"https://127.0.0.1:{lab.ports.receiver}/_matrix/federation/v1/send/1"
    with requests.Session() as session:
        session.trust_env = False
        return session.put(url, json={"origin": SERVER_NAME, "pdus": pdus}, verify=str(lab.receiver / "certificate.pem"), timeout=5)


def received(lab: Lab) -> list[tuple[str, How]]:
    entries = [json.loads(line) for line in lab.received.read_text().splitlines()]
    return [(one["event"], How(one["how"])) for one in entries[1:]]


def test_an_event_is_kept_by_the_id_that_its_homeserver_gave_it(alone: Lab) -> None:
    """Servers send events without their ids; one that is sent again is kept again."""
    assert push(alone, LEFT, RIGHT).json() == {}
    assert push(alone, LEFT).json() == {}
    assert received(alone) == [(LEFT, How.PUSHED), (RIGHT, How.PUSHED), (LEFT, How.PUSHED)]


def test_what_an_event_refers_to_is_asked_for(alone: Lab, homeserver: Homeserver) -> None:
    """Back to where the peer joined and no further; again, when the homeserver wasn't there."""
    assert push(alone, LAST).json() == {}
    until(lambda: len(received(alone)) == 4)
    assert received(alone) == [(LAST, How.PUSHED), (BOTH, How.FETCHED), (LEFT, How.FETCHED), (RIGHT, How.FETCHED)]
    assert homeserver.asked == [f"X-Matrix {event}" for event in (BOTH, BOTH, LEFT, RIGHT)]


def test_what_came_together_is_not_asked_for(alone: Lab, homeserver: Homeserver) -> None:
    assert push(alone, LAST, BOTH, RIGHT, LEFT).json() == {}
    assert push(alone, LAST).json() == {}
    assert len(received(alone)) == 5
    assert homeserver.asked == []
