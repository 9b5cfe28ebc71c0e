"""Pushes that gateways take and don't take, as a real Synapse counts them; in the lab it is main that pushes."""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import requests

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.read import read_inventory
from rollout.engine.survey import Surveyor
from rollout.homeservers.synapse.metrics import Counters
from rollout.lab.demo import restart_without_drain
from rollout.lab.paths import Lab
from rollout.lab.processes import wait_until
from rollout.lab.seeding import User, load_users
from rollout.model.gate import Tally
from rollout.model.ids import WorkerId
from tests.end_to_end.site import Site

MAIN = WorkerId("main")
SENT = 3
TIMEOUT_S = 60.0
# It waits 1, 2 and 4 s between these, which a process of some hours' age would take as many hours for.
TRIED_ANEW = 3
_numbers = itertools.count(int(time.time() * 1000))


class Gateway(BaseHTTPRequestHandler):
    """Takes every push, or none."""

    protocol_version = "HTTP/1.1"
    takes = True

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b'{"rejected": []}' if self.takes else b"{}"
        self.send_response(200 if self.takes else 502)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Away(Gateway):
    takes = False


@contextmanager
def _pushed_to(lab: Lab, user: User, gateway: type[Gateway]) -> Iterator[None]:
    """Let everything that a user is to know be pushed to a gateway of this kind."""
    with ThreadingHTTPServer(("127.0.0.1", 0), gateway) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/_matrix/push/v1/notify"
        wanted = {"app_id": "org.example.test", "pushkey": gateway.__name__, "app_display_name": "test", "device_display_name": "test"}
        _set_pusher(lab, user, {**wanted, "kind": "http", "lang": "en", "data": {"url": url}, "append": True})
        try:
            yield
        finally:
            _set_pusher(lab, user, {**wanted, "kind": None})
            server.shutdown()


def _set_pusher(lab: Lab, user: User, pusher: Mapping[str, object]) -> None:
    _call(lab, user, "POST", "/_matrix/client/v3/pushers/set", pusher)


def _send(lab: Lab, user: User, room: str) -> None:
    body = {"msgtype": "m.text", "body": "hello"}
    _call(lab, user, "PUT", f"/_matrix/client/v3/rooms/{room}/send/m.room.message/push-{next(_numbers)}", body)


def _call(lab: Lab, user: User, method: str, path: str, body: Mapping[str, object]) -> None:
    headers = {"Authorization": f"Bearer {user.access_token}"}
    answer = requests.request(method, f"{lab.base_url}{path}", json=body, headers=headers, timeout=TIMEOUT_S)
    answer.raise_for_status()


def test_a_push_that_is_not_taken_is_counted_but_not_while_the_process_is_young(site: Site) -> None:
    """After a restart what is away is tried again and again at once: that would condemn every good release."""
    surveyor = Surveyor(site.drivers, read_inventory(site.lab.inventory), SystemClock())
    told: list[Tally] = []

    def page() -> Counters:
        told.extend(surveyor.measure([MAIN], with_canaries=False).tallies.values())
        return surveyor.meter.counters()[MAIN]

    users, _ = load_users(site.lab)
    room = users[0].rooms[0]
    receiver, sender = [user for user in users if room in user.rooms][:2]
    before = page()
    with _pushed_to(site.lab, receiver, Gateway), _pushed_to(site.lab, receiver, Away):
        for _ in range(SENT):
            _send(site.lab, sender, room)
        wait_until(lambda: page().pushes_taken - before.pushes_taken >= SENT, TIMEOUT_S, "what was sent is pushed")
        wait_until(lambda: page().push_failures > before.push_failures, TIMEOUT_S, "what isn't taken is counted")
        restart_without_drain(site.lab, MAIN)
        # The first page of a process may tell of nothing: when that began is only known to a second.
        wait_until(lambda: page().started_at_s != before.started_at_s, TIMEOUT_S, "the new process has a page")
        young = page()
        told.clear()
        _send(site.lab, sender, room)
        wait_until(lambda: page().pushes_taken > young.pushes_taken, TIMEOUT_S, "what was sent is pushed")
        wait_until(lambda: page().push_failures >= TRIED_ANEW, TIMEOUT_S, "what isn't taken is tried anew")
    assert sum(tally.work for tally in told) >= 1
    assert [(tally.pushes, tally.push_failures) for tally in told] == [(0, 0)] * len(told)
