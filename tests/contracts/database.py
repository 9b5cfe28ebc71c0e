"""A real PostgreSQL with the few tables of Synapse's that are looked at."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import psycopg
from psycopg import sql

from rollout.lab.database import answers, initialise
from rollout.lab.paths import NOBODY, create_lab
from rollout.lab.processes import wait_until
from rollout.lab.programs import find_programs

PASSWORD = "se-cret"
_TABLES = """
    CREATE ROLE looker LOGIN IN ROLE pg_monitor;
    CREATE ROLE stranger LOGIN;
    CREATE ROLE locked LOGIN PASSWORD 'se-cret';
    CREATE TABLE schema_version (version int);
    CREATE TABLE schema_compat_version (compat_version int);
    CREATE TABLE applied_schema_deltas (version int, file text);
    INSERT INTO schema_version VALUES (94);
    INSERT INTO schema_compat_version VALUES (84);
    INSERT INTO applied_schema_deltas VALUES (94, '94/02_two.sql'), (93, '93/01_one.sql');
    CREATE TABLE users (name text, deactivated smallint, is_guest smallint, appservice_id text);
    CREATE TABLE devices (user_id text, device_id text, last_seen bigint, hidden boolean);
    CREATE TABLE background_updates (update_name text, progress_json text, depends_on text, ordering int);
    CREATE TABLE rooms (room_id text);
    GRANT SELECT ON users, devices, schema_version, schema_compat_version, applied_schema_deltas, background_updates TO looker;
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose role `looker` may look, `stranger` may not, and `locked` needs PASSWORD."""

    port: int
    process: subprocess.Popen[bytes]

    def dsn(self, user: str, password: str = "") -> str:
        return f"host=127.0.0.1 port={self.port} user={user} dbname=postgres" + (f" password={password}" if password else "")

    def new_database(self, name: str) -> str:
        """Make one of that name, empty, and return its URL."""
        with self.connected() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection]:
        """Connect as somebody who may do everything."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True, connect_timeout=5) as connection:
            yield connection


def end(process: subprocess.Popen[bytes]) -> None:
    """End it at once with every connection: killed, it would leave those behind for a while."""
    process.send_signal(signal.SIGQUIT)
    process.wait(20)


@contextmanager
def postgresql(place: Path) -> Iterator[Server]:
    """Run one, as the lab does."""
    lab = create_lab(place)
    programs = find_programs(lab)
    initialise(lab, programs)
    data = lab.runtime / "postgres"
    rules = data / "pg_hba.conf"
    rules.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
    root = os.geteuid() == 0
    with (place / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs.postgres / "postgres"), "-D", str(data)],
            stdout=log,
            stderr=log,
            cwd=lab.runtime,
            user=NOBODY if root else None,
            group=NOBODY if root else None,
            extra_groups=[] if root else None,
        )
    try:
        wait_until(lambda: answers(lab), 30, "PostgreSQL answers")
        server = Server(lab.ports.postgres, process)
        with server.connected() as connection:
            connection.execute(_TABLES)
        yield server
    finally:
        end(process)
        rmtree(lab.runtime, ignore_errors=True)
