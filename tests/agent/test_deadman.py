"""The dead-man: who is admitted when nobody lives any more, who isn't, and who is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rollout.adapters.ledger.file import FileLedger
from rollout.adapters.traffic.haproxy import Haproxy
from rollout.agent.book import Book
from rollout.agent.deadman import OWNER, Duty, sweep
from rollout.model.effect import NEXT, Effect
from rollout.model.errors import StaleEffectError
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.ports.acts import WayBack, Work
from rollout.ports.traffic import Server
from tests.agent.processes import done, until, write
from tests.contracts.proxy import haproxy
from tests.contracts.server import Says, serving

SYNC1 = WorkerId("sync1")
GOOD, BAD = ReleaseId("1.0.0-00000000"), ReleaseId("2.0.0-0a1b2c3d")
SECRET = "se-cret-path"
AFTER_S = 120.0


class _Hook(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 200
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"


class _Answer(BaseHTTPRequestHandler):
    server: _Hook

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Hook]:
    """A webhook whose address is in the environment."""
    server = _Hook()
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("ROLLOUT_PAGE", server.url)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Place:
    """A ledger with sync1 drained for *why*, whose way back writes "admitted" into *log*; its link names *runs*."""

    def __init__(self, directory: Path, health: str, runs: ReleaseId = GOOD, condemned: ReleaseId | None = None) -> None:
        self.path = directory / "rollout/ledger.json"
        self.log = directory / "log"
        self.link = directory / "current/sync1"
        self.link.parent.mkdir()
        self.link.symlink_to(Path("../releases") / runs)
        self.book = Book(self.path)
        self.ledger = FileLedger(self.path)
        self.said: list[str] = []
        self.back = WayBack((write(self.log, "admitted"),), f"{health}/health", str(self.link))
        self.do(5, Verb.DRAIN, condemned)

    def do(self, number: int, verb: Verb, condemned: ReleaseId | None = None) -> None:
        """Act as a rollout with the id a."""
        effect = Effect(
            EffectNumber(number), StepId(f"sync1/{verb}"), verb, SYNC1, GOOD, 0.0, why="sync first", condemned=condemned, owner="a"
        )
        self.ledger.perform(effect, Work(lambda: None, (write(self.log, verb),), self.back))

    def sweep(self, *, later_s: float = AFTER_S + 1, page: str = "") -> bool:
        """Let the dead-man go through the ledger, so many seconds from now."""
        return sweep(self.book, Duty("example.org", AFTER_S, page), time.time() + later_s, self.said.append)

    @property
    def marks(self) -> dict[str, Any]:
        return self.book.read().marks


@contextmanager
def well() -> Iterator[str]:
    with serving(Says(b"OK")) as server:
        yield server.url


def test_a_good_one_is_admitted_once_nobody_lives_and_its_time_is_over(tmp_path: Path, hook: _Hook) -> None:
    """And somebody is told. Not before: a rollout that lives, or one that comes back within its time, does it itself."""
    with well() as url:
        place = Place(tmp_path, url)
        assert place.sweep(later_s=AFTER_S - 5)
        place.ledger.beat(0, time.time() + 1000)
        assert place.sweep()
        assert (done(place.log), list(place.marks)) == ([Verb.DRAIN], ["sync1"])
        place.ledger.beat(0, time.time())
        assert not place.sweep(page="env:ROLLOUT_PAGE")
    assert (done(place.log), place.marks) == ([Verb.DRAIN, "admitted"], {})
    assert [(body["severity"], body["homeserver"], body["deploy_id"]) for body in hook.bodies] == [("warning", "example.org", "a")]
    assert "sync1: nobody lives who would have done it, so it was admitted again" in hook.bodies[0]["sentence"]


def test_a_way_back_that_nobody_expected_to_break_is_told_of(tmp_path: Path, hook: _Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that ended by it would leave the worker out without a word. It is tried again."""

    def breaks(_acts: object) -> None:
        raise ValueError("1O0")

    with well() as url:
        place = Place(tmp_path, url)
        with monkeypatch.context() as patch:
            patch.setattr("rollout.agent.acts.run", breaks)
            assert place.sweep(page="env:ROLLOUT_PAGE")
        assert list(place.marks) == ["sync1"]
        assert [body["severity"] for body in hook.bodies] == ["critical"]
        assert "it answers, and can't be admitted: ValueError: 1O0" in hook.bodies[0]["sentence"]
        assert not place.sweep()
    assert done(place.log) == [Verb.DRAIN, "admitted"]


def test_a_condemned_one_stays_out_and_somebody_is_told_once(tmp_path: Path, hook: _Hook) -> None:
    """With the same form of a page as the rollout's own; once it runs something else, it comes back."""
    with well() as url:
        place = Place(tmp_path, url, runs=BAD, condemned=BAD)
        for _ in range(3):
            assert place.sweep(page="env:ROLLOUT_PAGE")
        assert (done(place.log), list(place.marks)) == ([Verb.DRAIN], ["sync1"])
        (body,) = hook.bodies
        assert body["text"].startswith(f"[critical] example.org, rollout a: sync1: it runs {BAD}, which was being taken back\n")
        assert set(body) == {"kind", "severity", "homeserver", "deploy_id", "at_s", "at", "sentence", "text", "what_next"}
        place.link.unlink()
        place.link.symlink_to(Path("../releases") / GOOD)
        assert not place.sweep()
    assert done(place.log) == [Verb.DRAIN, "admitted"]


def test_what_it_runs_has_to_be_seen_if_anything_is_condemned(tmp_path: Path) -> None:
    with well() as url:
        place = Place(tmp_path, url, condemned=BAD)
        place.link.unlink()
        assert place.sweep()
    assert done(place.log) == [Verb.DRAIN]
    assert place.said == [f"sync1: {BAD} was being taken back from it, and what it runs can't be seen"]


@pytest.mark.parametrize("answer", [Says(b"no", status=503), Says(b""), None], ids=["503", "empty", "nobody"])
def test_one_that_does_not_answer_stays_out_until_it_does(tmp_path: Path, hook: _Hook, answer: Says | None) -> None:
    with serving(answer or Says()) as server:
        url = server.url if answer is not None else "http://127.0.0.1:1"
        place = Place(tmp_path, url)
        for _ in range(2):
            assert place.sweep(page="env:ROLLOUT_PAGE")
        assert done(place.log) == [Verb.DRAIN]
        assert [body["sentence"].partition(":")[2][:19] for body in hook.bodies] == [" it doesn't answer:"]
        if answer is not None:
            server.answer = Says(b"OK")
            assert not place.sweep()
            assert done(place.log) == [Verb.DRAIN, "admitted"]


def test_a_page_that_reaches_nobody_is_sent_again_and_its_address_is_told_to_nobody(tmp_path: Path, hook: _Hook) -> None:
    """Neither the ledger nor what is said holds the secret."""
    place = Place(tmp_path, "http://127.0.0.1:1")
    hook.status = 500
    place.sweep(page="env:ROLLOUT_PAGE")
    place.sweep(page="env:NOT_THERE")
    hook.status = 200
    place.sweep(page="env:ROLLOUT_PAGE")
    place.sweep(page="env:ROLLOUT_PAGE")
    assert len(hook.bodies) == 2
    assert "env:ROLLOUT_PAGE: the webhook answered 500" in place.said
    assert SECRET not in place.path.read_text() + "".join(place.said)


def test_a_mark_without_a_way_back_is_told_of_and_kept(tmp_path: Path) -> None:
    """Of a rollout with other drivers, or an older one."""
    ledger = FileLedger(tmp_path / "ledger.json")
    with ledger.fence(Effect(EffectNumber(1), StepId("sync1/drain"), Verb.DRAIN, SYNC1, GOOD, 0.0)):
        pass
    said: list[str] = []
    assert sweep(Book(tmp_path / "ledger.json"), Duty("example.org", AFTER_S), time.time() + 1000, said.append)
    assert said == ["sync1: it doesn't answer: nobody wrote down where it can be asked"]


def test_when_the_tool_comes_back_it_is_refused_once_and_goes_on_above(tmp_path: Path) -> None:
    """What it had on its way to the worker (a restart, for it was drained) comes too late: it would have cut what was admitted."""
    with well() as url:
        place = Place(tmp_path, url)
        assert not place.sweep()
    learnt = 0
    for late in (6, 7, 25):
        with pytest.raises(StaleEffectError, match=f"done already by {OWNER}") as refused:
            place.do(late, Verb.RESTART)
        learnt = refused.value.number
    assert done(place.log) == [Verb.DRAIN, "admitted"]
    place.do(learnt + 1, Verb.DRAIN)
    assert (done(place.log)[2:], list(place.marks)) == ([Verb.DRAIN], ["sync1"])


def test_whoever_is_faster_than_the_dead_man_is_not_undone(tmp_path: Path) -> None:
    """It asks the worker; meanwhile the tool comes back, admits it and drains it anew: that mark isn't the one that was ruled on."""
    with serving(Says(b"OK")) as server:
        place = Place(tmp_path, server.url)
        says = server.answer

        def answer(handler: Any) -> None:  # noqa: ANN401  (of the server)
            place.do(6, Verb.DRAIN)
            says(handler)

        server.answer = answer
        assert place.sweep()
    assert done(place.log) == [Verb.DRAIN, Verb.DRAIN]
    assert place.marks["sync1"]["number"] == 6


def test_by_hand_and_the_dead_man_do_not_undo_one_another(tmp_path: Path) -> None:
    with well() as url:
        place = Place(tmp_path, url)
        effect = Effect(NEXT, StepId("sync1/safety"), Verb.ADMIT, SYNC1, GOOD, 0.0, owner="rollout admit")
        place.ledger.perform(effect, Work(lambda: None, (write(place.log, "by hand"),)))
        assert not place.sweep()
    assert done(place.log) == [Verb.DRAIN, "by hand"]


def test_a_tool_that_is_killed_leaves_one_behind_who_admits_at_the_real_proxy(tmp_path: Path, hook: _Hook) -> None:
    """SIGKILL of the process that began it; one is there however often it is asked for; it ends when nothing is left to do."""
    with haproxy(tmp_path) as proxy:
        server, health = Server("sync", "sync1"), f"http://127.0.0.1:{proxy.backends['sync1'].server_port}/health"
        driver = Haproxy((proxy.admin,), proxy.master)
        path = tmp_path / "rollout/ledger.json"
        tool = subprocess.Popen([sys.executable, "-c", _TOOL, str(path), str(proxy.admin), health], stdout=subprocess.PIPE, text=True)
        assert tool.stdout is not None
        with tool, tool.stdout:
            assert tool.stdout.readline() == "drained\n"
            assert not driver.look({SYNC1: server}, 5.0)[SYNC1].admitted
            tool.send_signal(signal.SIGKILL)
        watcher = int(path.with_suffix(".watch.lock").read_text().split()[1])
        command = Path(f"/proc/{watcher}/cmdline").read_text()
        assert (SECRET in command, "env:ROLLOUT_PAGE" in command) == (False, True)
        assert os.getsid(watcher) == watcher
        until(lambda: driver.look({SYNC1: server}, 5.0)[SYNC1].admitted, "it was admitted")
        until(lambda: not Path(f"/proc/{watcher}").exists(), "the dead-man has ended")
    assert Book(path).read().marks == {}
    log = path.with_suffix(".watch.log").read_text()
    assert "sync1: nobody lives who would have done it" in log
    assert SECRET not in log + path.read_text()
    assert [body["severity"] for body in hook.bodies] == ["warning"]


_TOOL = """
import sys, time
from pathlib import Path
from rollout.adapters.ledger.file import FileLedger
from rollout.adapters.traffic.haproxy import Haproxy
from rollout.model.effect import Effect
from rollout.model.plan import Verb
from rollout.ports.acts import WayBack, Work
from rollout.ports.traffic import Server
path, admin, health = sys.argv[1:]
ledger = FileLedger(Path(path), 1.0, "env:ROLLOUT_PAGE")
ledger.beat(0, time.time() + 8)
for _ in range(2):
    ledger.guard("example.org")
proxy = Haproxy((Path(admin),), None)
server = Server("sync", "sync1")
back = WayBack(proxy.admit_acts(server, 100, 5.0), health, None)
effect = Effect(1, "sync1/drain", Verb.DRAIN, "sync1", "1.0.0-00000000", 0.0, owner="a")
ledger.perform(effect, Work(lambda: None, proxy.drain_acts(server, 5.0), back))
while not Path(path).with_suffix(".watch.lock").read_text():
    time.sleep(0.01)
print("drained", flush=True)
time.sleep(60)
"""
