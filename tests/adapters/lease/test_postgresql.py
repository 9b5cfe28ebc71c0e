"""The lease in a real PostgreSQL: the role's rights, a server that goes away, and one that went back in time."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.lease.postgresql import PostgresqlLease, build
from rollout.model.errors import InvalidFileError, PermanentDriverError, TakenOverError, TransientDriverError
from rollout.model.ids import DeployId
from rollout.ports.lease import Claim
from rollout.simulation.rehearse import set_stage
from tests.adapters.processes import another, heard, kill
from tests.contracts.database import PASSWORD, Server, end, postgresql

ALICE, BOB = Claim("alice", "deploy 2.0.0", DeployId("d-1")), Claim("bob", "resume", DeployId("d-1"))
TIMEOUT_S = 5.0
LONG_S = 3600.0
NAME = "example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with postgresql(tmp_path_factory.mktemp("postgres")) as found:
        yield found


@pytest.fixture
def ours(server: Server) -> Iterator[Server]:
    """The documented two lines, and nothing else, for the role that keeps the lease."""
    with server.connected() as connection:
        connection.execute("CREATE ROLE rollout_lease LOGIN; CREATE SCHEMA rollout AUTHORIZATION rollout_lease")
    yield server
    with server.connected() as connection:
        connection.execute("DROP SCHEMA rollout CASCADE; DROP ROLE rollout_lease")


def _keeper(server: Server, user: str = "rollout_lease") -> PostgresqlLease:
    return PostgresqlLease(server.dsn(user), NAME, LONG_S)


def _hold(connection: Connection, dsn: str) -> None:
    with closing(PostgresqlLease(dsn, NAME, LONG_S)) as keeper:
        connection.send(keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False).token)
        connection.recv()


def test_without_a_schema_of_ours_it_is_said_what_an_administrator_has_to_do(server: Server) -> None:
    """Nobody ever held anything there, and nobody can."""
    with closing(_keeper(server, "looker")) as keeper:
        assert keeper.read(TIMEOUT_S) is None
        with pytest.raises(PermanentDriverError, match="may keep no lease") as failed:
            keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False)
    assert "CREATE SCHEMA rollout AUTHORIZATION" in failed.value.remedy


def test_a_role_that_may_not_write_there_is_told_so(ours: Server) -> None:
    with closing(_keeper(ours)) as keeper:
        keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False)
    with closing(_keeper(ours, "looker")) as keeper, pytest.raises(PermanentDriverError, match="may keep no lease"):
        keeper.acquire(BOB, TIMEOUT_S, above=0, take_over=True)


def test_its_role_sees_nothing_of_the_homeserver(ours: Server) -> None:
    with closing(_keeper(ours)) as keeper:
        keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False)
    with ours.connected() as connection:
        row = connection.execute("SELECT has_table_privilege('rollout_lease', 'public.users', 'SELECT')").fetchone()
    assert row == (False,)


def test_who_was_killed_on_this_machine_holds_nothing_any_more(ours: Server) -> None:
    with another(_hold, ours.dsn("rollout_lease")) as (process, connection), closing(_keeper(ours)) as keeper:
        token = heard(connection)
        kill(process)
        lease = keeper.acquire(BOB, TIMEOUT_S, above=0, take_over=False)
    assert (lease.token, lease.holder) == (2, "bob")
    assert token == 1
    assert "alice" in lease.taken_from


def test_a_database_that_went_back_in_time_is_told_again(ours: Server) -> None:
    """A failover lost the row, or brought back an earlier holder's: the one with the higher token is still the one."""
    with closing(_keeper(ours)) as keeper:
        token = keeper.acquire(ALICE, TIMEOUT_S, above=4, take_over=False).token
        for loss in ("DELETE FROM rollout.lease", "UPDATE rollout.lease SET token = 3, holder = 'carol'"):
            with ours.connected() as connection:
                connection.execute(loss)
            keeper.renew(token, TIMEOUT_S)
            found = keeper.read(TIMEOUT_S)
            assert found is not None
            assert (found.token, found.holder, found.free) == (5, "alice", False)


def test_a_higher_token_is_another_holder(ours: Server) -> None:
    with closing(_keeper(ours)) as keeper:
        token = keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False).token
        with ours.connected() as connection:
            connection.execute("UPDATE rollout.lease SET token = token + 1, holder = 'carol'")
        with pytest.raises(TakenOverError) as lost:
            keeper.renew(token, TIMEOUT_S)
        assert "carol" in lost.value.why


def test_a_connection_that_broke_is_made_anew(ours: Server) -> None:
    with closing(_keeper(ours)) as keeper:
        token = keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False).token
        with ours.connected() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'rollout lease'")
        with pytest.raises(TransientDriverError, match="can't be used"):
            keeper.renew(token, TIMEOUT_S)
        keeper.renew(token, TIMEOUT_S)


def test_a_row_that_somebody_has_locked_is_waited_for_within_bounds(ours: Server) -> None:
    with closing(_keeper(ours)) as keeper, ours.connected() as connection:
        token = keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False).token
        connection.execute("BEGIN; SELECT * FROM rollout.lease FOR UPDATE")
        with pytest.raises(TransientDriverError):
            keeper.renew(token, 0.3)
        connection.execute("ROLLBACK")
        keeper.renew(token, TIMEOUT_S)


def test_a_server_that_is_stopped_is_hung_up_on(tmp_path: Path) -> None:
    with postgresql(tmp_path) as server:
        with server.connected() as connection:
            connection.execute("CREATE ROLE rollout_lease LOGIN; CREATE SCHEMA rollout AUTHORIZATION rollout_lease")
        with closing(_keeper(server)) as keeper:
            token = keeper.acquire(ALICE, TIMEOUT_S, above=0, take_over=False).token
            with server.connected() as connection:
                row = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'rollout lease'").fetchone()
            assert row is not None
            os.kill(row[0], signal.SIGSTOP)
            try:
                with pytest.raises(TransientDriverError, match="can't be used"):
                    keeper.renew(token, 0.3)
            finally:
                os.kill(row[0], signal.SIGCONT)
            end(server.process)
            with pytest.raises(TransientDriverError):
                keeper.renew(token, 0.3)


def test_no_secret_is_repeated(server: Server) -> None:
    keeper = PostgresqlLease(server.dsn("locked", "wrong-" + PASSWORD), NAME, LONG_S)
    with pytest.raises(TransientDriverError) as failed:
        keeper.read(TIMEOUT_S)
    assert PASSWORD not in str(failed.value)


def test_it_is_opened_by_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = set_stage({"sync1": ("sync", "sync")}).inventory
    monkeypatch.setenv("LEASE_DSN", "host=127.0.0.1")
    assert build({"dsn": "env:LEASE_DSN", "ttl_s": 12}, inventory).ttl_s == 12.0
    with pytest.raises(InvalidFileError):
        build({"dsn": "host=127.0.0.1 password=se-cret"}, inventory)
