"""
What every driver of the port `database` promises. PostgreSQL's is the only one: a simulated homeserver has none, which a plan must be able
to do without.
"""

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


def test_the_schema_is_read_with_every_delta(database: Database) -> None:
    assert database.schema(TIMEOUT_S) == SchemaSighting(94, 84, ("93/01_one.sql", "94/02_two.sql"))


def test_guards_of_a_calm_database(database: Database) -> None:
    readings = {reading.guard: reading.value for reading in database.guards(TIMEOUT_S)}
    assert set(readings) == set(GUARDS)
    assert readings["lock_queue"] == 0
    assert readings["connections_used"] is not None
    assert 0 < readings["connections_used"] < 0.1


def test_what_cannot_be_read_is_unknown_and_never_well(unreadable: Database) -> None:
    with pytest.raises(TransientDriverError):
        unreadable.schema(TIMEOUT_S)
    readings = unreadable.guards(TIMEOUT_S)
    assert [(reading.guard, reading.value) for reading in readings] == [(guard, None) for guard in GUARDS]
    assert all(reading.detail for reading in readings)
