"""What happens to a rollout at night: the others, the machine and the parts beneath it. Whatever it is, nothing is cut by our hand."""

import fcntl
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.lab import database
from rollout.lab.load.records import Record, window
from rollout.lab.processes import Supervisor, listens, wait_until
from tests.end_to_end.site import Command, Site, begun, cut, intent
from tests.end_to_end.test_releases import configuration

# One pool: what is shown is the same for any other. That of the client workers takes half the time, unless sessions shall last.
CLIENTS = ("deploy", "--restart", "--only", "role=client", "--yes")
SYNCS = ("deploy", "--restart", "--only", "role=sync", "--yes")
# What fails while the database is away fails everywhere, and for some seconds after it is back.
RECOVERY_S = 15.0
DRAIN_SEEN_S = 20.0


@contextmanager
def rolling(site: Site, *arguments: str) -> Iterator[Command]:
    """Roll the client workers, and hand out the command while it runs."""
    with site.start(*arguments, "--events", "ndjson") as command:
        yield command


def test_two_tools_at_once(site: Site, tmp_path_factory: Any) -> None:  # noqa: ANN401  (pytest's own)
    """The second is told who is at it, on which host and why; it has touched nobody, and the first ends as if nothing had been."""
    other = Site(site.lab, tmp_path_factory.mktemp("elsewhere"))
    with site.load() as records, rolling(site, *CLIENTS) as first:
        first.await_event(intent("drain", "client1"))
        second = other.run(*CLIENTS)
        held_by = site.tool.ask("status")["lease"]
        done = first.end()

    assert second.code == 5, second.text
    assert held_by["holder"] in second.text
    assert held_by["host"] in second.text
    assert done.code == 0, done.text
    assert other.tool.ask("history") == []
    site.assert_whole()
    assert cut(records) == []


@pytest.mark.long
def test_the_journal_is_deleted_while_a_worker_is_out(site: Site) -> None:
    """Whoever comes next has nothing but what is to be seen: it plans anew, begins with the worker that is out, and ends it."""
    before = site.started()
    with site.load() as records:
        with rolling(site, *CLIENTS) as command:
            command.await_event(intent("restart", "client1"))
            for file in site.place.glob("journal.db*"):
                file.unlink()
            command.send(signal.SIGKILL)
            command.end()
        again = site.run(*CLIENTS)

    assert again.code == 0, again.text
    assert {worker for worker, at_s in site.started().items() if at_s > before[worker]} == {"client1", "client2"}
    assert len(site.tool.ask("history")) == 1
    site.assert_whole()
    assert cut(records) == []


@pytest.mark.long
def test_the_proxy_is_reloaded_in_a_drain(site: Site) -> None:
    """A reload forgets what was drained: it is drained again before anything else, and its sessions in the old process are waited for."""
    with site.load() as records:
        with rolling(site, *SYNCS) as command:
            command.await_event(intent("drain", "sync1"))
            # Long-polls keep its drain from ending before the reload.
            wait_until(lambda: not site.proxy()["sync1"].admitted, DRAIN_SEEN_S, "sync1 is drained")
            Supervisor(site.lab).kill("haproxy", signal.SIGUSR2)
            done = command.end()
        drains = [one for one in command.events() if intent("drain", "sync1")(one)]
        restart = next(one for one in command.events() if intent("restart", "sync1")(one))

    assert done.code == 0, done.text
    assert len(drains) >= 2, "the reload came too late to show anything"
    assert drains[-1]["effect"]["number"] < restart["effect"]["number"]
    site.assert_whole()
    assert cut(records) == []


@pytest.mark.long
def test_valkey_and_postgresql_are_restarted_in_mid_run(site: Site) -> None:
    """While they are away nobody is taken out; what fails then fails by itself, and before and after it nothing is cut."""
    supervisor = Supervisor(site.lab)
    with site.load() as records:
        with rolling(site, *CLIENTS) as command:
            command.await_event(begun("client1/soak"))
            away_s = time.time()
            for name in ("valkey", "postgres"):
                supervisor.stop(name)
            time.sleep(2.0)
            for name in ("valkey", "postgres"):
                supervisor.start(name)
            wait_until(lambda: database.answers(site.lab) and listens(site.lab.ports.valkey), 30, "both are back")
            back_s = time.time()
            done = command.end()
        taken_out_s = [one["at_s"] for one in command.events() if one["kind"] == "EffectIntended" and one["effect"]["verb"] in OUT]

    assert done.code in {0, 3}, done.text
    assert [at_s for at_s in taken_out_s if away_s <= at_s < back_s] == []
    site.assert_whole()
    assert _cut_outside(records, away_s, back_s + RECOVERY_S) == []


OUT = {"drain", "hold", "restart"}


@pytest.mark.long
def test_stopped_between_check_and_act_and_woken_after_a_take_over(site: Site) -> None:
    """
    The first has written its intent and waits for its turn at the worker when it is stopped; its lease runs out, a second takes over and
    ends the rollout. Woken, the first is refused at the target, does nothing to anybody, and says who has taken over.
    """
    ledger = site.lab.target / "rollout/ledger.json"
    with site.load() as records, rolling(site, *CLIENTS) as first:
        with _turn_at(ledger, "client1"):
            first.await_event(intent("drain", "client1"))
            wait_until(lambda: bool(_agents(ledger)), AGENT_SEEN_S, "the first one's agent waits")
            wait_until(lambda: _stopped_between_commits(first.pid, site.place / "journal.db"), AGENT_SEEN_S, "the first one is stopped")
            agents = _agents(ledger)
            for pid in agents:
                os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: site.tool.ask("status")["lease"]["expired"], LEASE_S, "the first one's lease has run out")
        second = site.run("resume")
        whole = {worker: (seen.admitted, seen.weight) for worker, seen in site.proxy().items()}
        started = site.started()
        for pid in (*agents, first.pid):
            os.kill(pid, signal.SIGCONT)
        done = first.end()

    assert second.code == 0, second.text
    assert done.code == 130, done.text
    assert "taken over" in done.text or "took over" in done.text
    assert {worker: (seen.admitted, seen.weight) for worker, seen in site.proxy().items()} == whole
    assert site.started() == started
    assert site.last()["outcome"] == "deployed"
    site.assert_whole()
    assert cut(records) == []


def test_the_tool_is_gone_for_good_and_a_worker_is_out(site: Site) -> None:
    """Nobody comes back: what is well and not condemned is admitted within its time, and somebody is told."""
    with _pages() as (address, pages), site.load() as records:
        inventory = _watched(site, address)
        with rolling(site, *CLIENTS, "-i", str(inventory)) as command:
            command.await_event(intent("drain", "client1"))
            wait_until(lambda: not site.proxy()["client1"].admitted, DRAIN_SEEN_S, "client1 is drained")
            command.send(signal.SIGKILL)
            command.end()
        gone_s = time.monotonic()
        wait_until(lambda: site.proxy()["client1"].admitted, DEAD_MAN_S, "client1 is back")
        took_s = time.monotonic() - gone_s
        wait_until(lambda: site.drivers.ledger.marks() == {}, 5.0, "its mark is gone")
        wait_until(lambda: bool(pages), 5.0, "somebody is told")
        # Harmless when the tool comes back: it finds what is true, and goes on.
        resumed = site.run("resume", "-i", str(inventory))

    assert took_s > READMIT_AFTER_S
    assert "client1" in json.dumps(pages)
    assert resumed.code == 0, resumed.text
    site.assert_whole()
    assert cut(records) == []


@pytest.mark.long
def test_nobody_admits_what_was_being_taken_back(site: Site, tmp_path: Path) -> None:
    """Gone for good on the way back: the release that the worker still runs is condemned, so it stays out, and somebody is told."""
    new = configuration(site, tmp_path / "new", lambda content: content.update(max_upload_size="9M"))
    with _pages() as (address, pages), site.load() as records:
        inventory = _watched(site, address)
        arguments = ("deploy", "--config", str(new), "--only", "role=client", "--yes", "-i", str(inventory))
        with rolling(site, *arguments) as command:
            command.await_event(begun("client1/soak"))
            with site.start("rollback", "--yes", "-i", str(inventory)) as asking:
                command.await_event(lambda event: event["kind"] == "RollbackBegan")
                command.await_event(lambda event: intent("drain", "client1")(event) and event["effect"]["condemned"] is not None)
                wait_until(lambda: not site.proxy()["client1"].admitted, DRAIN_SEEN_S, "client1 is drained")
                command.send(signal.SIGKILL)
                command.end()
                asking.send(signal.SIGKILL)
                asking.end()
        wait_until(lambda: bool(pages), DEAD_MAN_S, "somebody is told")
        time.sleep(READMIT_AFTER_S)
        left_out = not site.proxy()["client1"].admitted
        resumed = site.run("resume", "-i", str(inventory))

    assert left_out, "a condemned release was admitted"
    assert "client1" in json.dumps(pages)
    assert resumed.code == 0, resumed.text
    assert site.last()["outcome"] == "rolled_back_on_request"
    site.assert_whole()
    assert cut(records) == []


AGENT_SEEN_S = 10.0
# A lease is renewed for thirty seconds, as is the word that the tool lives.
LEASE_S = 45.0
READMIT_AFTER_S = 5.0
DEAD_MAN_S = 60.0


@contextmanager
def _turn_at(ledger: Path, worker: str) -> Iterator[None]:
    """Have the turn at a worker, as whoever acts on it has it: others wait."""
    with ledger.with_name(f"{ledger.stem}.{worker}.lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _stopped_between_commits(pid: int, journal: Path) -> bool:
    """Stop a process; one that is just writing to the journal goes on, because nobody else could write."""
    os.kill(pid, signal.SIGSTOP)
    with closing(sqlite3.connect(journal, timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            return False
    return True


def _agents(ledger: Path) -> list[int]:
    """List the processes that are about to act at a ledger's target."""
    wanted = ["act", str(ledger)]
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            words = place.read_bytes().decode(errors="replace").split("\0")
            if any(word.endswith("/agent.py") and words[number + 1 : number + 3] == wanted for number, word in enumerate(words)):
                found.append(int(place.parent.name))
    return found


def _watched(site: Site, address: str) -> Path:
    """Write an inventory in which nobody stays out for long, and somebody is told of it."""
    (site.place / "page").write_text(address)
    inventory = yaml.safe_load(site.lab.inventory.read_text())
    inventory["ledger_driver"] |= {"readmit_after_s": READMIT_AFTER_S, "page": f"file:{site.place}/page"}
    (site.place / "inventory.yaml").write_text(yaml.safe_dump(inventory))
    return site.place / "inventory.yaml"


@contextmanager
def _pages() -> Iterator[tuple[str, list[Any]]]:
    """Listen for pages: the address, and what came."""
    came: list[Any] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/page", came
        finally:
            server.shutdown()
            thread.join()


def _cut_outside(records: list[Record], from_s: float, to_s: float) -> list[Record]:
    """Return what was cut at the clients' pool before and after a disturbance that wasn't ours."""
    outside = [record for record in records if record.pool == "client" and not (record.began_s < to_s and record.ended_s >= from_s)]
    assert window(outside).requests > 100
    return [record for record in outside if record.outcome not in {"ok", "ended"}]
