"""What every driver of the port `database` promises, of PostgreSQL's; what goes on in it, of the simulated one too."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from rollout.adapters.database.postgresql import Postgresql
from rollout.model.conditions import DatabaseConditions, IndexBuild, LockWait, Transaction
from rollout.model.errors import TransientDriverError
from rollout.model.sighting import SchemaSighting
from rollout.ports.database import Database
from rollout.simulation.database import SimulatedDatabase
from rollout.simulation.virtual_clock import VirtualClock
from tests.contracts.database import Server, postgresql

TIMEOUT_S = 5.0
SECRET = "hunter2"
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


# ------------------------------------------------------------------------------------------------------------------ conditions


def _until(happened: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < end_s
        time.sleep(0.05)


class Simulation:
    """What goes on in a simulated database."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.database = SimulatedDatabase(self.clock)

    @contextmanager
    def transaction(self, age_s: float) -> Iterator[int]:
        self.database.transactions.append(Transaction(17, "bridge", "idle in transaction", age_s, "INSERT INTO rooms VALUES"))
        yield 17
        self.database.transactions.clear()

    @contextmanager
    def queue(self, age_s: float) -> Iterator[tuple[int, list[int]]]:
        self.database.waits += [
            LockWait(18, "synapse", "rooms", "RowExclusiveLock", (17,), age_s),
            LockWait(19, "synapse", "rooms", "RowExclusiveLock", (17,), age_s),
        ]
        yield 17, [18, 19]
        self.database.waits.clear()

    @contextmanager
    def invalid_index(self) -> Iterator[str]:
        self.database.invalid_indexes.append("rooms_twice")
        yield "rooms_twice"
        self.database.invalid_indexes.clear()

    @contextmanager
    def index_build(self) -> Iterator[str]:
        self.database.builds.append(IndexBuild(20, "rooms", "rooms_slowly", "waiting for writers before build"))
        yield "rooms_slowly"
        self.database.builds.clear()

    @contextmanager
    def background_updates(self, *names: str) -> Iterator[None]:
        self.database.background_updates += names
        yield
        self.database.background_updates.clear()


class Real:
    """What goes on in a real PostgreSQL: real transactions, real locks, real indexes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.database: Database = Postgresql(server.dsn("looker"))

    @contextmanager
    def transaction(self, age_s: float) -> Iterator[int]:
        with self.server.connected() as connection:
            connection.execute("SET application_name = 'bridge'")
            connection.execute("BEGIN")
            connection.execute(f"INSERT INTO rooms VALUES ('{SECRET}')")  # noqa: S608  (its text is what this is about)
            time.sleep(age_s)
            yield connection.info.backend_pid
            connection.execute("ROLLBACK")

    @contextmanager
    def queue(self, age_s: float) -> Iterator[tuple[int, list[int]]]:
        pids: list[int] = []

        def want() -> None:
            with self.server.connected() as connection:
                connection.execute("SET application_name = 'synapse'")
                pids.append(connection.info.backend_pid)
                connection.execute("DELETE FROM rooms WHERE false")

        threads = [threading.Thread(target=want) for _ in range(2)]
        with self.server.connected() as holder:
            holder.execute("BEGIN")
            holder.execute("LOCK TABLE rooms IN SHARE MODE")
            for thread in threads:
                thread.start()
            _until(lambda: value_of(self.database, "lock_queue") == len(threads))
            time.sleep(age_s)
            yield holder.info.backend_pid, pids
            holder.execute("ROLLBACK")
            for thread in threads:
                thread.join(5)

    @contextmanager
    def invalid_index(self) -> Iterator[str]:
        with self.server.connected() as connection:
            connection.execute("INSERT INTO rooms VALUES ('twice'), ('twice')")
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.execute("CREATE UNIQUE INDEX CONCURRENTLY rooms_twice ON rooms (room_id)")
            yield "rooms_twice"
            connection.execute("DROP INDEX rooms_twice; DELETE FROM rooms")

    @contextmanager
    def index_build(self) -> Iterator[str]:
        """Begin one that waits for somebody who writes to the table."""

        def build() -> None:
            with self.server.connected() as connection:
                connection.execute("CREATE INDEX CONCURRENTLY rooms_slowly ON rooms (room_id)")

        thread = threading.Thread(target=build)
        with self.transaction(0):
            thread.start()
            _until(lambda: bool(self.database.conditions(0.0, TIMEOUT_S).builds))
            yield "rooms_slowly"
        thread.join(5)
        with self.server.connected() as connection:
            connection.execute("DROP INDEX rooms_slowly")

    @contextmanager
    def background_updates(self, *names: str) -> Iterator[None]:
        with self.server.connected() as connection:
            for number, name in enumerate(names):
                connection.execute("INSERT INTO background_updates VALUES (%s, '{}', NULL, %s)", (name, number))
            yield
            connection.execute("DELETE FROM background_updates")


@pytest.fixture(params=["postgresql", "simulated"])
def scene(request: pytest.FixtureRequest) -> Iterator[Real | Simulation]:
    """Every driver in turn. The simulated one needs no server."""
    if request.param == "simulated":
        yield Simulation()
        return
    real = Real(request.getfixturevalue("server"))
    yield real
    real.database.close()  # type: ignore[attr-defined]


def conditions(scene: Real | Simulation, older_than_s: float = 0.0) -> DatabaseConditions:
    found = scene.database.conditions(older_than_s, TIMEOUT_S)
    assert found.unread == {}
    return found


def test_a_calm_database_has_nothing_to_tell(scene: Real | Simulation) -> None:
    found = conditions(scene)
    assert (found.transactions, found.waits, found.builds, found.invalid_indexes, found.background_updates) == ((), (), (), (), ())
    assert found.connections is not None
    assert 0 < found.connections.free == found.connections.max - found.connections.reserved - found.connections.used
    assert found.server_version is not None
    assert found.server_version >= 140000


def test_a_long_transaction_is_told_by_who_and_how_long_and_what_but_by_no_value(scene: Real | Simulation) -> None:
    """Its text holds what may be somebody's secret: the first words say enough."""
    with scene.transaction(0.3) as pid:
        (found,) = conditions(scene, 0.2).transactions or ()
        assert conditions(scene, 60.0).transactions == ()
    assert (found.pid, found.application, found.state) == (pid, "bridge", "idle in transaction")
    assert 0.3 <= found.age_s < 5
    assert found.query == "INSERT INTO rooms VALUES"
    assert SECRET not in repr(found)


def test_a_lock_queue_names_the_table_the_lock_and_who_blocks_whom(scene: Real | Simulation) -> None:
    with scene.queue(0.2) as (holder, pids):
        found = conditions(scene, 0.1).waits or ()
        assert conditions(scene, 60.0).waits == ()
    assert {one.pid for one in found} == set(pids)
    assert {(one.relation, one.mode, one.application) for one in found} == {("rooms", "RowExclusiveLock", "synapse")}
    assert all(holder in one.blocked_by for one in found)
    assert all(one.age_s is not None and 0.1 <= one.age_s < 5 for one in found)
    assert conditions(scene).waits == ()


def test_an_index_that_failed_is_told_from_one_that_is_being_built(scene: Real | Simulation) -> None:
    with scene.invalid_index() as name:
        found = conditions(scene)
        assert (found.invalid_indexes, found.builds) == ((name,), ())
    with scene.index_build() as name:
        found = conditions(scene)
        assert found.invalid_indexes == ()
        assert [(build.relation, build.index) for build in found.builds or ()] == [("rooms", name)]
    assert conditions(scene).builds == ()


def test_background_updates_are_named_in_their_order(scene: Real | Simulation) -> None:
    with scene.background_updates("rebuild_directory", "add_an_index"):
        assert conditions(scene).background_updates == ("rebuild_directory", "add_an_index")


def test_who_waits_for_a_row_is_told_with_its_table(server: Server, database: Database) -> None:
    """A row's lock is its writer's transaction, which has no table's name."""

    def want() -> None:
        with server.connected() as connection:
            connection.execute("UPDATE rooms SET room_id = 'c' WHERE room_id = 'a'")

    with server.connected() as holder:
        holder.execute("INSERT INTO rooms VALUES ('a')")
        holder.execute("BEGIN")
        holder.execute("UPDATE rooms SET room_id = 'b'")
        pid = holder.info.backend_pid
        thread = threading.Thread(target=want)
        thread.start()
        _until(lambda: bool(database.conditions(0.0, TIMEOUT_S).waits))
        (wait,) = database.conditions(0.0, TIMEOUT_S).waits or ()
        holder.execute("ROLLBACK")
        thread.join(5)
        holder.execute("DELETE FROM rooms")
    assert (wait.relation, wait.mode, wait.blocked_by) == ("rooms", "ShareLock", (pid,))


def test_a_role_that_may_not_look_says_what_it_does_not_know(server: Server) -> None:
    """What it may see it tells; the rest is unknown, and not nothing."""
    with closing(Postgresql(server.dsn("stranger"))) as database:
        found = database.conditions(0.0, TIMEOUT_S)
    assert set(found.unread) == {"connections", "transactions", "builds", "background_updates"}
    assert (found.connections, found.transactions, found.builds, found.background_updates) == (None, None, None, None)
    assert found.waits == ()
    assert "permission denied" in found.unread["background_updates"]


def test_a_database_that_cannot_be_asked_has_unknown_conditions(unreadable: Database) -> None:
    found = unreadable.conditions(0.0, TIMEOUT_S)
    assert found == DatabaseConditions(unread=found.unread)
    assert len(found.unread) == 7
