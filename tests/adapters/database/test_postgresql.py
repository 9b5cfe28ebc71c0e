"""PostgreSQL's own: roles without rights, secrets, and a server that is slow, silent or gone."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from rollout.adapters.database.postgresql import Postgresql
from rollout.model.errors import TransientDriverError
from rollout.model.gate import GuardReading
from tests.contracts.database import PASSWORD, Server, end, postgresql

TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@pytest.fixture
def database(server: Server) -> Iterator[Postgresql]:
    with closing(Postgresql(server.dsn("looker"))) as found:
        yield found


def guards(database: Postgresql) -> dict[str, GuardReading]:
    return {reading.guard: reading for reading in database.guards(TIMEOUT_S)}


def test_a_role_that_may_not_look_at_others_says_so(server: Server) -> None:
    with closing(Postgresql(server.dsn("stranger"))) as database:
        readings = guards(database)
        assert readings["lock_queue"].value == 0
        assert readings["long_transaction_s"].value is None
        assert "pg_read_all_stats" in readings["long_transaction_s"].detail
        with pytest.raises(TransientDriverError, match="permission denied"):
            database.schema(TIMEOUT_S)


def test_a_wrong_password_is_not_repeated_to_anybody(server: Server) -> None:
    with closing(Postgresql(server.dsn("locked", PASSWORD))) as right:
        assert guards(right)["lock_queue"].value == 0
    wrong = Postgresql(server.dsn("locked", "wrong-one"))
    with pytest.raises(TransientDriverError, match="password authentication failed") as caught:
        wrong.schema(TIMEOUT_S)
    assert "wrong-one" not in str(caught.value)
    assert "wrong-one" not in repr(caught.value.__context__)
    assert not any("wrong-one" in reading.detail for reading in wrong.guards(TIMEOUT_S))


def test_a_statement_that_waits_ends_in_time(server: Server, database: Postgresql) -> None:
    with server.connected() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE schema_version IN ACCESS EXCLUSIVE MODE")
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError, match="timeout"):
            database.schema(TIMEOUT_S)
        assert time.monotonic() - began_s < TIMEOUT_S + 5
        holder.execute("ROLLBACK")
    assert database.schema(TIMEOUT_S).version == 94


def test_a_server_that_falls_silent_is_not_waited_for(server: Server, database: Postgresql) -> None:
    """A process that is stopped, or a network that swallows everything: the server's own timeouts are no help then."""
    assert database.schema(TIMEOUT_S).version == 94
    with server.connected() as connection:
        found = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'rollout'").fetchone()
        assert found is not None
    os.kill(found[0], signal.SIGSTOP)
    # Were it waited for after all, it would be until it goes on.
    thaw = threading.Timer(4 * TIMEOUT_S, os.kill, (found[0], signal.SIGCONT))
    thaw.start()
    try:
        began_s = time.monotonic()
        assert {(reading.value, reading.detail) for reading in database.guards(TIMEOUT_S)} == {(None, "database: no answer in time")}
        assert time.monotonic() - began_s < TIMEOUT_S + 5
    finally:
        thaw.cancel()
        os.kill(found[0], signal.SIGCONT)
    assert database.schema(TIMEOUT_S).version == 94


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("host=127.0.0.1 pass word=se-cret", "connection string can't be read"),
        ("host=127.0.0.1 port=1 user=one password=se-cret", "Connection refused"),
        ("host=127.0.0.1 port=se-cret user=one", "invalid integer value"),
        # What a password may not have in an address unless it is quoted; the rest of it is then taken for something else.
        ("postgresql://one:pass@se-cret@127.0.0.1:1/synapse", "resolve"),
        ("postgresql://127.0.0.1:se-cret/synapse", "invalid integer value"),
        ("postgresql://one:pass/se-cret@127.0.0.1:1/synapse", "resolve"),
    ],
    ids=["no string", "refused", "port", "@", "port of an address", "slash"],
)
def test_a_connection_string_is_not_repeated_to_anybody(dsn: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # No name server is asked by a test.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    database = Postgresql(dsn)
    with pytest.raises(TransientDriverError, match=why) as caught:
        database.schema(TIMEOUT_S)
    readings = database.guards(TIMEOUT_S)
    assert {reading.value for reading in readings} == {None}
    assert all(why in reading.detail for reading in readings)
    assert "se-cret" not in f"{caught.value} {readings}"


def test_it_cannot_write_even_if_its_role_may(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[psycopg.Connection] = []
    connect = psycopg.connect

    def keep(*arguments: object, **options: object) -> object:
        asked.append(connect(*arguments, **options))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(psycopg, "connect", keep)
    with closing(Postgresql(server.dsn("postgres"))) as database:
        database.schema(TIMEOUT_S)
        for write in ("DELETE FROM schema_version", "CREATE TABLE mine ()"):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                asked[0].execute(write)
        assert database.schema(TIMEOUT_S).version == 94


def test_a_broken_connection_is_made_anew(server: Server, database: Postgresql) -> None:
    assert database.schema(TIMEOUT_S).version == 94
    with server.connected() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rollout'")
    with pytest.raises(TransientDriverError):
        database.schema(TIMEOUT_S)
    assert database.schema(TIMEOUT_S).version == 94


def test_a_server_that_is_gone_is_unknown(tmp_path: Path) -> None:
    with postgresql(tmp_path) as gone, closing(Postgresql(gone.dsn("looker"))) as database:
        assert database.schema(TIMEOUT_S).version == 94
        end(gone.process)
        began_s = time.monotonic()
        assert {reading.value for reading in database.guards(TIMEOUT_S)} == {None}
        with pytest.raises(TransientDriverError):
            database.schema(TIMEOUT_S)
        assert time.monotonic() - began_s < 3 * TIMEOUT_S
