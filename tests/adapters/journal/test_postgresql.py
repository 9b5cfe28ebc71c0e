"""The journal in a real PostgreSQL that is restarted, killed, stopped, full of others or not ours to write to."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from rollout.adapters.journal import database, places
from rollout.adapters.journal.sql import SqlJournal, open_journal
from rollout.adapters.journal.tables import SCHEMA_VERSION
from rollout.lab.database import answers
from rollout.lab.paths import NOBODY, Lab, load_lab
from rollout.lab.processes import wait_until
from rollout.model.codec import event_kind
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.event import Command, DeployBegan, Event, WaitBegan
from rollout.model.ids import DeployId, EffectNumber
from rollout.model.plan import Plan
from rollout.ports.journal import Baseline, Request
from tests.contracts.database import Server, end, postgresql
from tests.simulation.stages import PLAYBOOK, seven_workers

ONE = DeployId("d-1")
AWAY_S = 10.0
WRITERS, APPENDS = 2, 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all; a test that ends it starts it again."""
    with postgresql(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """An empty database for each test."""
    return server.new_database(f"d{abs(hash(request.node.name))}")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return seven_workers().plan(PLAYBOOK)


@contextmanager
def opened(url: str) -> Iterator[SqlJournal]:
    journal = open_journal(url)
    try:
        yield journal
    finally:
        journal.close()


def _execute(url: str, *statements: LiteralString) -> list[tuple[object, ...]]:
    """Run them as somebody who may do everything, and return what the last one gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        *others, last = statements
        for statement in others:
            connection.execute(statement)
        cursor = connection.execute(last)
        return cursor.fetchall() if cursor.description else []


def _began(deploy_id: DeployId = ONE) -> DeployBegan:
    return DeployBegan(100.0, deploy_id, "plan", 3, "alice", EffectNumber(0))


def _wait(number: int) -> WaitBegan:
    return WaitBegan(101.0 + number, "drain", f"event {number}")


def _losing_the_answer(monkeypatch: pytest.MonkeyPatch, server: Server, when: str, spared: int = 0) -> list[str]:
    """Let the next commit after *spared* ones be made, or not, and its connection end before anybody hears of it."""
    done: list[str] = []
    genuine: Callable[[Any, Any], None] = sa.engine.default.DefaultDialect.do_commit

    def commit(self: object, connection: Any) -> None:  # noqa: ANN401  (as the dialect has it)
        nonlocal spared
        if done or spared:
            spared -= not done
            genuine(self, connection)
            return
        done.append(when)
        if when == "after":
            genuine(self, connection)
        with server.connected() as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.driver_connection.info.backend_pid,))
        if when == "before":
            genuine(self, connection)
        else:
            # What the commit's answer would have been: the line is dead.
            connection.driver_connection.execute("SELECT 1")

    monkeypatch.setattr(sa.engine.default.DefaultDialect, "do_commit", commit)
    return done


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("act", ["append", "begin", "keep_baseline", "take_requests"])
def test_a_commit_whose_answer_is_lost_is_looked_for_and_never_repeated(
    server: Server, url: str, plan: Plan, monkeypatch: pytest.MonkeyPatch, act: str, when: str
) -> None:
    """Whether it came to pass or not: what was to be kept is there once."""
    with opened(url) as journal:
        two = DeployId("d-2")
        journal.begin(ONE, plan, _began())
        journal.ask(ONE, Request(Command.ABORT, "bob", "why"))
        # Whether there are any requests is asked first, in a transaction that has a commit as well, and nothing to lose.
        lost = _losing_the_answer(monkeypatch, server, when, spared=1 if act == "take_requests" else 0)
        kept = Baseline("h", 5.0, {})
        acts: dict[str, Callable[[], object]] = {
            "append": lambda: journal.append(ONE, [_wait(0), _wait(1)]),
            "begin": lambda: journal.begin(two, plan, _began(two)),
            "keep_baseline": lambda: journal.keep_baseline(kept),
            "take_requests": lambda: journal.take_requests(ONE),
        }
        answer = acts[act]()
        assert lost == [when]
        journal.append(ONE, [_wait(2)])
        waits = [_wait(0), _wait(1), _wait(2)] if act == "append" else [_wait(2)]
        assert [event for _, event in journal.events(ONE)] == [_began(), *waits]
        assert journal.events(two) == ([(1, _began(two))] if act == "begin" else [])
        assert journal.baselines("h", 0.0) == ([kept] if act == "keep_baseline" else [])
        taken = [Request(Command.ABORT, "bob", "why")]
        assert (answer, journal.take_requests(ONE)) == ((taken, []) if act == "take_requests" else (None, taken))


def test_a_request_whose_answer_is_lost_is_not_asked_again(server: Server, url: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been heard and forgotten meanwhile: whoever asks is told that nobody knows."""
    with opened(url) as journal:
        journal.begin(ONE, plan, _began())
        _losing_the_answer(monkeypatch, server, "after")
        with pytest.raises(OutcomeUnknownError):
            journal.ask(ONE, Request(Command.ABORT, "bob", ""))
        assert len(journal.take_requests(ONE)) == 1


def _start_again(server: Server, lab: Lab) -> subprocess.Popen[bytes]:
    root = os.geteuid() == 0
    return subprocess.Popen(
        server.process.args,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=lab.runtime,
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        extra_groups=[] if root else None,
    )


def test_a_server_that_is_restarted_in_mid_rollout_is_waited_for(tmp_path: Path, plan: Plan) -> None:
    """Away for ten seconds, by SIGQUIT, while two write: every event is there, once, in order."""
    with postgresql(tmp_path) as server:
        place = server.new_database("journal")
        errors: list[Exception] = []

        def write(deploy_id: DeployId) -> None:
            try:
                with opened(place) as journal:
                    journal.begin(deploy_id, plan, _began(deploy_id))
                    for number in range(APPENDS):
                        journal.append(deploy_id, [_wait(number)])
                        time.sleep(0.02)
            except Exception as error:  # noqa: BLE001  (told by the test)
                errors.append(error)

        names = [DeployId(f"d-{number}") for number in range(WRITERS)]
        threads = [threading.Thread(target=write, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        lab = load_lab(tmp_path)
        assert lab is not None
        end(server.process)
        time.sleep(AWAY_S)
        again = _start_again(server, lab)
        try:
            wait_until(lambda: answers(lab), 30, "PostgreSQL answers")
            for thread in threads:
                thread.join(90)
            assert errors == []
            with opened(place) as journal:
                for name in names:
                    assert journal.events(name) == list(enumerate([_began(name), *map(_wait, range(APPENDS))], start=1))
        finally:
            end(again)


def test_two_who_write_one_rollout_do_not_mix_their_numbers(url: str, plan: Plan) -> None:
    """One after the other, without a gap and without a double; each one's events stay in order and together."""
    with opened(url) as journal, opened(url) as other:
        journal.begin(ONE, plan, _began())

        def write(by: SqlJournal, first: int) -> None:
            for number in range(first, first + 2 * APPENDS, 2):
                by.append(ONE, [_wait(number), _wait(number + 1)])

        threads = [threading.Thread(target=write, args=(by, first)) for by, first in ((journal, 0), (other, 1000))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        events = journal.events(ONE)
        assert [number for number, _ in events] == list(range(1, 4 * APPENDS + 2))
        said = [int(event.why.removeprefix("event ")) for _, event in events if isinstance(event, WaitBegan)]
        assert [number for number in said if number < 1000] == list(range(2 * APPENDS))
        assert [number for number in said if number >= 1000] == list(range(1000, 1000 + 2 * APPENDS))
        assert all(said[at + 1] == said[at] + 1 for at in range(0, len(said), 2))


def test_a_server_that_stays_away_is_given_up(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded time, with its name; one that was never there is not waited for at all."""
    monkeypatch.setattr(database, "AWAY_MAX_S", 2.0)
    with postgresql(tmp_path) as server:
        with opened(server.new_database("journal")) as journal:
            journal.begin(ONE, plan, _began())
            end(server.process)
            began_s = time.monotonic()
            with pytest.raises(TransientDriverError, match="has been away for 2 s") as given_up:
                journal.append(ONE, [_wait(0)])
            assert 2.0 <= time.monotonic() - began_s < 15.0
            assert f"127.0.0.1:{server.port}/journal" in given_up.value.where
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError, match="can't be reached"):
            open_journal(server.url("journal"))
        assert time.monotonic() - began_s < 10.0


def test_a_server_that_is_stopped_is_hung_up_on(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP: its kernel still takes what we say, and no timeout of its own passes."""
    monkeypatch.setattr(database, "AWAY_MAX_S", 1.0)
    monkeypatch.setattr(database, "TRANSACTION_TIMEOUT_S", 1.0)
    with postgresql(tmp_path) as server, opened(server.new_database("journal")) as journal:
        journal.begin(ONE, plan, _began())
        with server.connected() as connection:
            pids = [row[0] for row in connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'journal'")]
        stopped = [server.process.pid, *pids]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            with pytest.raises(TransientDriverError):
                journal.append(ONE, [_wait(0)])
            assert time.monotonic() - began_s < 20.0
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
        monkeypatch.setattr(database, "AWAY_MAX_S", 30.0)
        journal.append(ONE, [_wait(1)])
        # What the stopped server was told before we hung up, it may still have done: then it is there, and once.
        said = [event for _, event in journal.events(ONE)]
        assert said in ([_began(), _wait(1)], [_began(), _wait(0), _wait(1)])


def test_a_role_that_may_only_read_reads(server: Server, url: str, plan: Plan) -> None:
    """And is told what it lacks when it wants to write."""
    with opened(url) as journal:
        journal.begin(ONE, plan, _began())
    _execute(url, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO stranger")
    with opened(server.url(url.rpartition("/")[2], "stranger")) as journal:
        assert journal.events(ONE) == [(1, _began())]
        with pytest.raises(PermanentDriverError, match="its role may not") as refused:
            journal.append(ONE, [_wait(0)])
        assert "GRANT" in refused.value.remedy
        assert "permission denied" in refused.value.why


def test_a_server_that_is_read_only_is_named_as_such(url: str, plan: Plan) -> None:
    with opened(url) as journal:
        journal.begin(ONE, plan, _began())
    with opened(f"{url}?options=-c%20default_transaction_read_only%3Don") as journal:
        assert journal.events(ONE) == [(1, _began())]
        with pytest.raises(PermanentDriverError, match="the server is read-only"):
            journal.append(ONE, [_wait(0)])


def test_what_would_be_forgotten_is_refused(url: str) -> None:
    """A server that confirms what is not on its disk is no place for a journal."""
    with pytest.raises(PermanentDriverError, match="synchronous_commit is off"):
        open_journal(f"{url}?options=-c%20synchronous_commit%3Doff")


def test_synapse_s_own_database_is_left_alone(url: str) -> None:
    """It has a table `events` as well; nothing is written there."""
    _execute(url, "CREATE TABLE events (event_id text, topological_ordering bigint)", "CREATE TABLE rooms (room_id text)")
    with pytest.raises(PermanentDriverError, match="this is no journal") as refused:
        open_journal(url)
    assert "events" in refused.value.why
    assert "createdb" in refused.value.remedy
    assert _execute(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(2,)]


def test_a_journal_of_a_newer_rollout_is_left_alone(url: str) -> None:
    open_journal(url).close()
    _execute(url, "UPDATE schema SET version = version + 1")
    with pytest.raises(PermanentDriverError, match=f"has schema {SCHEMA_VERSION + 1}"):
        open_journal(url)


def test_a_transaction_that_somebody_holds_is_waited_for_only_so_long(url: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing was kept."""
    monkeypatch.setattr(places, "STATEMENT_TIMEOUT_S", 0.5)
    with opened(url) as journal:
        journal.begin(ONE, plan, _began())
        with psycopg.connect(url) as other:
            other.execute("SELECT 1 FROM deploys FOR UPDATE")
            with pytest.raises(DriverError, match=r"somebody else holds it|takes too long"):
                journal.append(ONE, [_wait(0)])
        journal.append(ONE, [_wait(1)])
        assert [event for _, event in journal.events(ONE)] == [_began(), _wait(1)]


def test_who_stands_still_in_a_transaction_is_hung_up_on(url: str, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that was stopped in the midst of writing: who takes over writes within seconds; the first, woken, finds what was written."""
    monkeypatch.setattr(places, "IDLE_TIMEOUT_S", 0.5)
    asleep, goes_on = threading.Event(), threading.Event()

    def stand_still(event: Event) -> str:
        # It holds the rollout's row by now.
        if threading.current_thread() is writing and not asleep.is_set():
            asleep.set()
            goes_on.wait(30.0)
        return event_kind(event)

    with opened(url) as first, opened(url) as second:
        first.begin(ONE, plan, _began())
        monkeypatch.setattr("rollout.adapters.journal.sql.event_kind", stand_still)
        writing = threading.Thread(target=first.append, args=(ONE, [_wait(0)]))
        writing.start()
        assert asleep.wait(10.0)
        second.append(ONE, [_wait(1)])
        goes_on.set()
        writing.join(30.0)
        assert [event for _, event in second.events(ONE)] == [_began(), _wait(1), _wait(0)]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("postgresql://locked:wrong-sesame@127.0.0.1:{port}/postgres", "password authentication failed"),
        ("postgresql://postgres:sesame@127.0.0.1:{port}/absent", "does not exist"),
        ("postgresql://postgres:se@same@127.0.0.1:{port}/postgres", "%40"),
        ("postgresql://postgres:sesame@127.0.0.1:1/postgres", "refused"),
        ("mysql://alice:sesame@127.0.0.1/x", "of this kind"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_without_its_password(server: Server, place: str, what: str) -> None:
    with pytest.raises(DriverError) as refused:
        open_journal(place.format(port=server.port))
    assert what in str(refused.value)
    assert "same" not in str(refused.value)


def test_the_password_comes_from_where_the_url_is_kept(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment variable or a file; where it is told, it is not shown."""
    with server.connected() as connection:
        connection.execute(sql.SQL("CREATE DATABASE ofme OWNER locked"))
    monkeypatch.setenv("JOURNAL", f"postgresql://locked:se-cret@127.0.0.1:{server.port}/ofme")
    (tmp_path / "url").write_text(f"postgres://locked:se-cret@127.0.0.1:{server.port}/ofme\n")
    for reference in ("env:JOURNAL", f"file:{tmp_path}/url"):
        with opened(reference) as journal:
            assert journal.keeping().where == f"postgresql+psycopg://locked:***@127.0.0.1:{server.port}/ofme"
            assert journal.keeping().file is None
