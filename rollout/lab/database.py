"""The lab's PostgreSQL: created once, with a role of its own for `rollout` that can only look."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from rollout.lab.paths import LOOPBACK, NOBODY, Lab
from rollout.lab.programs import Programs
from rollout.lab.templates import DATABASE
from rollout.model.errors import PermanentDriverError

INIT_TIMEOUT_S = 60


def initialise(lab: Lab, programs: Programs) -> None:
    """Create the data directory, if there is none."""
    data = lab.runtime / "postgres"
    if (data / "PG_VERSION").exists():
        return
    root = os.geteuid() == 0
    if root:
        data.mkdir(mode=0o700, exist_ok=True)
        os.chown(data, NOBODY, NOBODY)
    command = [str(programs.postgres / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=INIT_TIMEOUT_S,
        check=False,
        cwd=lab.runtime,
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        extra_groups=[] if root else None,
    )
    if done.returncode != 0:
        raise PermanentDriverError("initdb failed", where=str(data), why=(done.stderr or done.stdout).strip())
    if lab.addresses.here != LOOPBACK:
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
    with (data / "postgresql.conf").open("a") as conf:
        # A lab may lose its data with the machine; it must not wait for the disk.
        conf.write(
            f"listen_addresses = '{lab.addresses.here}'\nport = {lab.ports.postgres}\nunix_socket_directories = ''\nmax_connections = 150\n"
            "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nshared_buffers = 64MB\n"
        )


@contextmanager
def _connected(lab: Lab, name: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(
        host=lab.addresses.here, port=lab.ports.postgres, user="postgres", dbname=name, autocommit=True, connect_timeout=5
    ) as connection:
        yield connection


def answers(lab: Lab) -> bool:
    """Tell whether it takes connections."""
    try:
        with _connected(lab, "postgres") as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def create(lab: Lab) -> None:
    """Create Synapse's database and role, if they are not there."""
    with _connected(lab, "postgres") as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'synapse'").fetchone() is None:
            connection.execute("CREATE ROLE synapse LOGIN")
            connection.execute("CREATE ROLE rollout LOGIN IN ROLE pg_monitor")
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER synapse ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")


def let_rollout_look(lab: Lab, dsn: Path) -> None:
    """Let the role `rollout` read the schema's tables, and write its DSN. The tables are Synapse's, made at its first start."""
    with _connected(lab, DATABASE) as connection:
        connection.execute("GRANT SELECT ON schema_version, schema_compat_version, applied_schema_deltas, background_updates TO rollout")
        # For warming: whom to ask as.
        connection.execute("GRANT SELECT (name, deactivated, is_guest, appservice_id) ON users TO rollout")
        connection.execute("GRANT SELECT (user_id, last_seen, hidden) ON devices TO rollout")
    dsn.touch(mode=0o600)
    dsn.write_text(f"host={lab.addresses.here} port={lab.ports.postgres} user=rollout dbname={DATABASE}")
