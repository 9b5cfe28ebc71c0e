"""The journal's database between processes, after SIGKILL, and when it can't be used."""

import itertools
import os
import random
import signal
import sqlite3
import time
from contextlib import ExitStack, closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.journal import places
from rollout.adapters.journal.sql import open_journal
from rollout.adapters.journal.tables import SCHEMA_VERSION
from rollout.model.errors import DriverError, PermanentDriverError, TransientDriverError
from rollout.model.event import Command
from rollout.model.ids import DeployId
from rollout.ports.journal import Request
from tests.adapters.journal.rollouts import ONE, began, some_plan, wait
from tests.adapters.processes import WAIT_S, another, heard, kill

KILLS = 4
REQUESTS = 40
OPENINGS = 12


def _append_for_ever(connection: Connection, place: str, deploy_id: DeployId) -> None:
    journal = open_journal(place)
    journal.begin(deploy_id, some_plan(), began(deploy_id))
    for first in itertools.count(step=3):
        journal.append(deploy_id, [wait(number) for number in range(first, first + 3)])
        connection.send(first + 3)


def _open_each(connection: Connection, place: Path, deploy_id: DeployId) -> None:
    connection.send("ready")
    for round_ in range(OPENINGS):
        connection.recv()
        open_journal(str(place / f"{round_}.db")).begin(deploy_id, some_plan(), began(deploy_id))
        connection.send("done")


def _hold(connection: Connection, place: str, log: str) -> None:
    with closing(sqlite3.connect(place)) as held:
        held.execute(f"PRAGMA journal_mode = {log}")
        held.execute("BEGIN IMMEDIATE")
        held.execute("UPDATE schema SET version = version")
        connection.send("held")
        connection.recv()


def _ask(connection: Connection, place: str) -> None:
    journal = open_journal(place)
    for number in range(REQUESTS):
        journal.ask(ONE, Request(Command.ABORT, "bob", f"request {number}"))
    connection.send(journal.events(ONE)[-1][0])


def test_what_append_returned_from_is_there_after_sigkill(tmp_path: Path) -> None:
    """
    Killed again and again at any moment, in one journal: nothing that was promised is missing, nothing is half there.

    Three events go into each append: they are there together or not at all.
    """
    place = str(tmp_path / "journal.db")
    chance = random.Random(7)
    for round_ in range(KILLS):
        deploy_id = DeployId(f"d-{round_}")
        with another(_append_for_ever, place, deploy_id) as (process, connection):
            promised = heard(connection)
            time.sleep(chance.uniform(0.0, 0.3))
            kill(process)
            with suppress(EOFError, ConnectionError):
                while True:
                    promised = heard(connection)
        assert isinstance(promised, int)
        kept = [event for _, event in open_journal(place).events(deploy_id)]
        # One append more may have reached the disk before it could be said.
        assert len(kept) - 1 in {promised, promised + 3}
        assert kept == [began(deploy_id), *(wait(number) for number in range(len(kept) - 1))]
    assert [line.deploy_id for line in open_journal(place).deploys("simulated.localhost", 99)] == [f"d-{n}" for n in reversed(range(KILLS))]


def test_a_rollout_hears_what_another_process_asks(tmp_path: Path) -> None:
    """While it goes on writing: each request once, in order; the other sees what was written meanwhile."""
    place = str(tmp_path / "journal.db")
    journal = open_journal(place)
    journal.begin(ONE, some_plan(), began())
    taken: list[str] = []
    end_s = time.monotonic() + WAIT_S
    with another(_ask, place) as (_, connection):
        while len(taken) < REQUESTS and time.monotonic() < end_s:
            taken += [request.why for request in journal.take_requests(ONE)]
            journal.append(ONE, [wait(0)])
        assert taken == [f"request {number}" for number in range(REQUESTS)]
        seen = heard(connection)
    assert isinstance(seen, int)
    assert seen <= len(journal.events(ONE))
    assert journal.take_requests(ONE) == []


def test_processes_that_open_a_new_journal_at_once_all_get_one(tmp_path: Path) -> None:
    """`status` may be called in the same moment as the first `deploy`; again and again, for chance."""
    names = [DeployId(f"d-{number}") for number in range(3)]
    with ExitStack() as stack:
        others = [stack.enter_context(another(_open_each, tmp_path, name))[1] for name in names]
        assert [heard(other) for other in others] == ["ready"] * 3
        for _ in range(OPENINGS):
            for other in others:
                other.send("go")
            assert [heard(other) for other in others] == ["done"] * 3
    for round_ in range(OPENINGS):
        history = open_journal(str(tmp_path / f"{round_}.db")).deploys("simulated.localhost", 9)
        assert {line.deploy_id for line in history} == set(names)


def test_a_journal_of_a_newer_rollout_is_left_alone(tmp_path: Path) -> None:
    """Both versions are named, and what to do."""
    path = tmp_path / "journal.db"
    open_journal(str(path)).begin(ONE, some_plan(), began())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE schema SET version = ?", (SCHEMA_VERSION + 1,))
    with pytest.raises(PermanentDriverError) as refused:
        open_journal(str(path))
    assert f"has schema {SCHEMA_VERSION + 1}, and this rollout knows {SCHEMA_VERSION}" in refused.value.what
    assert "use the release of rollout that wrote it" in refused.value.remedy


@pytest.mark.parametrize("content", [b"homeserver: example.org\n" * 500, b"SQLite format 3\0" + b"\7" * 8_000, b"half"])
def test_what_is_no_journal_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    """Whatever else stands there; and it is not written to."""
    path = tmp_path / "journal.db"
    if content == b"half":
        open_journal(str(tmp_path / "whole.db")).begin(ONE, some_plan(), began())
        with closing(sqlite3.connect(tmp_path / "whole.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        whole = (tmp_path / "whole.db").read_bytes()
        content = whole[: len(whole) // 2]
    path.write_bytes(content)
    with pytest.raises(PermanentDriverError) as refused:
        open_journal(str(path)).events(ONE)
    assert str(path) in refused.value.where
    assert path.read_bytes() == content


def test_a_journal_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    """An append to it fails, and keeps nothing."""
    path = tmp_path / "journal.db"
    open_journal(str(path)).begin(ONE, some_plan(), began())
    journal = open_journal(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(DriverError, match="readonly"):
        journal.append(ONE, [wait(0)])
    assert journal.events(ONE) == [(1, began())]


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("{}", id="a directory"),
        pytest.param("{}/file/journal.db", id="below a file"),
        pytest.param("nonsense://{}", id="an unknown kind of database"),
        pytest.param("://", id="no URL"),
        pytest.param("postgresql+nonsense://alice:sesame@host/{}", id="an unknown driver"),
        pytest.param("postgresql://alice@host:sesame/{}", id="no port"),
    ],
)
def test_a_place_where_no_journal_can_be_is_refused(tmp_path: Path, place: str) -> None:
    """Before a rollout begins, in a driver's words; a URL is not repeated, because a password may stand in it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DriverError) as refused:
        open_journal(place.format(tmp_path))
    assert "sesame" not in str(refused.value)


def test_a_journal_that_somebody_else_holds_is_waited_for_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing was kept, and it may be free again later."""
    monkeypatch.setattr(places, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "journal.db"
    journal = open_journal(str(path))
    journal.begin(ONE, some_plan(), began())
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientDriverError, match="locked"):
            journal.append(ONE, [wait(0)])
        # Reading goes on meanwhile.
        assert journal.events(ONE) == [(1, began())]
        other.rollback()
    journal.append(ONE, [wait(0)])
    assert journal.events(ONE) == [(1, began()), (2, wait(0))]


@pytest.mark.parametrize("log", ["wal", "delete"])
def test_who_was_stopped_while_it_wrote_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str) -> None:
    """Nobody else can write until it goes on or is ended, so one is told which process it is and how either is done; both help."""
    monkeypatch.setattr(places, "BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "journal.db"
    journal = open_journal(str(path))
    journal.begin(ONE, some_plan(), began())
    journal.close()
    with another(_hold, str(path), log) as (process, connection):
        assert heard(connection) == "held"
        assert process.pid is not None
        with sqlite3.connect(path, timeout=0.1) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TransientDriverError) as stopped:
                open_journal(str(path)).append(ONE, [wait(0)])
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert f"process {process.pid} (" in stopped.value.why
        assert "which is stopped" in stopped.value.why
        assert f"kill -CONT {process.pid} " in stopped.value.remedy
        assert f"kill -KILL {process.pid};" in stopped.value.remedy
        with pytest.raises(TransientDriverError, match=f"process {process.pid} .* is writing to it") as writing:
            open_journal(str(path)).append(ONE, [wait(0)])
        assert writing.value.remedy == "again"
        kill(process)
    journal.append(ONE, [wait(0)])
    assert journal.events(ONE) == [(1, began()), (2, wait(0))]
