"""
What every driver of the port `database` promises. PostgreSQL's is the only one: a simulated homeserver has none, which a plan must be able
to do without.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from rollout.adapters.database.postgresql import Postgresql
from rollout.model.errors import TransientDriverError
from rollout.model.sighting import SchemaSighting
from rollout.ports.database import Database
from tests.contracts.database import Server, postgresql

TIMEOUT_S = 5.0
GUARDS = ("lock_queue", "long_transaction_s", "connections_used")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@pytest.fixture
def database(server: Server) -> Iterator[Database]:
    with closing(Postgresql(server.dsn("looker"))) as found:
        yield found


@pytest.fixture
def unreadable(server: Server) -> Database:
    return Postgresql(server.dsn("nobody-of-this-name"))


def value_of(database: Database, guard: str) -> float:
    value = next(reading.value for reading in database.guards(TIMEOUT_S) if reading.guard == guard)
    assert value is not None
    return value


def test_the_schema_is_read_with_every_delta(database: Database) -> None:
    assert database.schema(TIMEOUT_S) == SchemaSighting(94, 84, ("93/01_one.sql", "94/02_two.sql"))


def test_who_was_there_last_comes_first_and_only_people_are_named(server: Server, database: Database) -> None:
    """No guest, nobody who is deactivated, nobody of an application service; a device that is hidden is a key, not a client."""
    users = [
        ("@old:a", 0, 0, None),
        ("@new:a", 0, 0, None),
        ("@never:a", 0, 0, None),
        ("@gone:a", 1, 0, None),
        ("@guest:a", 0, 1, None),
        ("@bridged:a", 0, 0, "irc"),
        ("@hidden:a", 0, 0, None),
    ]
    devices = [("@old:a", "A", 5, False), ("@old:a", "B", 10, False), ("@new:a", "A", 20, False), ("@never:a", "A", None, False)]
    devices += [(user, "A", 30, False) for user in ("@gone:a", "@guest:a", "@bridged:a")] + [("@hidden:a", "A", 40, True)]
    with server.connected() as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO users VALUES (%s, %s, %s, %s)", users)
        cursor.executemany("INSERT INTO devices VALUES (%s, %s, %s, %s)", devices)
    assert database.active_users(10, TIMEOUT_S) == ("@new:a", "@old:a", "@never:a")
    assert database.active_users(1, TIMEOUT_S) == ("@new:a",)


def test_guards_of_a_calm_database(database: Database) -> None:
    readings = {reading.guard: reading.value for reading in database.guards(TIMEOUT_S)}
    assert set(readings) == set(GUARDS)
    assert readings["lock_queue"] == 0
    assert readings["connections_used"] is not None
    assert 0 < readings["connections_used"] < 0.1


def test_requests_that_wait_for_a_lock_are_counted(server: Server, database: Database) -> None:

    def want() -> None:
        with server.connected() as connection:
            connection.execute("INSERT INTO schema_version SELECT 1 WHERE false")

    waiting = [threading.Thread(target=want) for _ in range(3)]
    with server.connected() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE schema_version IN EXCLUSIVE MODE")
        for thread in waiting:
            thread.start()
        end_s = time.monotonic() + 10
        while value_of(database, "lock_queue") != len(waiting):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        holder.execute("ROLLBACK")
        for thread in waiting:
            thread.join(5)
    assert value_of(database, "lock_queue") == 0


def test_the_oldest_transaction_is_the_one_that_counts(server: Server, database: Database) -> None:
    with server.connected() as older, server.connected() as younger:
        before_s = time.monotonic()
        older.execute("BEGIN")
        begun_s = time.monotonic()
        time.sleep(0.3)
        younger.execute("BEGIN")
        least_s = time.monotonic() - begun_s
        seen_s = value_of(database, "long_transaction_s")
        assert least_s <= seen_s <= time.monotonic() - before_s
        older.execute("ROLLBACK")
        assert value_of(database, "long_transaction_s") < seen_s
        younger.execute("ROLLBACK")
    assert value_of(database, "long_transaction_s") == 0


def test_what_cannot_be_read_is_unknown_and_never_well(unreadable: Database) -> None:
    with pytest.raises(TransientDriverError):
        unreadable.schema(TIMEOUT_S)
    with pytest.raises(TransientDriverError):
        unreadable.active_users(1, TIMEOUT_S)
    readings = unreadable.guards(TIMEOUT_S)
    assert [(reading.guard, reading.value) for reading in readings] == [(guard, None) for guard in GUARDS]
    assert all(reading.detail for reading in readings)
