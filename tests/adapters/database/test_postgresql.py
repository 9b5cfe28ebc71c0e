"""PostgreSQL's own: locks that pile up, roles without rights, and a server that goes away."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from rollout.adapters.database.postgresql import Postgresql
from rollout.model.errors import TransientDriverError
from rollout.model.gate import GuardReading
from tests.contracts.database import PASSWORD, Server, postgresql

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


def test_requests_that_wait_for_a_lock_and_the_transaction_that_holds_it_are_seen(server: Server, database: Postgresql) -> None:

    def want() -> None:
        with server.connected() as connection:
            connection.execute("INSERT INTO schema_version SELECT 1 WHERE false")

    with server.connected() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE schema_version IN EXCLUSIVE MODE")
        waiting = [threading.Thread(target=want) for _ in range(3)]
        for thread in waiting:
            thread.start()
        end_s = time.monotonic() + 5
        while guards(database)["lock_queue"].value != 3:
            assert time.monotonic() < end_s
            time.sleep(0.05)
        held_s = guards(database)["long_transaction_s"].value
        assert held_s is not None
        assert 0 < held_s < 6
        holder.execute("ROLLBACK")
        for thread in waiting:
            thread.join(5)
    assert guards(database)["lock_queue"].value == 0


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
        with pytest.raises(TransientDriverError):
            database.schema(TIMEOUT_S)
        assert time.monotonic() - began_s < TIMEOUT_S + 2
        holder.execute("ROLLBACK")
    assert database.schema(TIMEOUT_S).version == 94


def test_a_connection_string_that_cannot_be_read_is_not_repeated_either() -> None:
    with pytest.raises(TransientDriverError) as caught:
        Postgresql("host=127.0.0.1 pass word=se-cret").schema(TIMEOUT_S)
    assert "se-cret" not in str(caught.value)


def test_it_cannot_write_even_if_its_role_may(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[psycopg.Connection] = []
    connect = psycopg.connect

    def keep(*arguments: object, **options: object) -> object:
        asked.append(connect(*arguments, **options))  # type: ignore[arg-type]
        return asked[-1]

    monkeypatch.setattr(psycopg, "connect", keep)
    Postgresql(server.dsn("postgres")).schema(TIMEOUT_S)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        asked[0].execute("DELETE FROM schema_version")
    asked[0].close()


def test_a_broken_connection_is_made_anew(server: Server, database: Postgresql) -> None:
    assert database.schema(TIMEOUT_S).version == 94
    with server.connected() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rollout'")
    with pytest.raises(TransientDriverError):
        database.schema(TIMEOUT_S)
    assert database.schema(TIMEOUT_S).version == 94


def test_a_server_that_is_gone_is_unknown(tmp_path: Path) -> None:
    with postgresql(tmp_path) as gone:
        database = Postgresql(gone.dsn("looker"))
        assert database.schema(TIMEOUT_S).version == 94
        gone.process.kill()
        gone.process.wait(10)
        began_s = time.monotonic()
        assert {reading.value for reading in database.guards(TIMEOUT_S)} == {None}
        with pytest.raises(TransientDriverError):
            database.schema(TIMEOUT_S)
        assert time.monotonic() - began_s < 3 * TIMEOUT_S
