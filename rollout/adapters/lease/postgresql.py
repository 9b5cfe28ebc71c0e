"""
The lease as a row in the homeserver's own PostgreSQL, for those who roll it from several machines.

It is in a schema of ours, `rollout`, which an administrator makes once for a role that may do nothing else (docs/decisions/0006-lease.md
has the lines); the table in it makes itself. Every change is one statement that compares and sets, and the database's own `now()` decides
what has run out: the clocks of the machines that ask don't matter. A database that went back in time (a failover) has forgotten renewals
or whole leases: renewing tells it again, and the ledger keeps tokens from being given out twice.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row
from pydantic import Field
from pydantic.dataclasses import dataclass

from rollout.adapters.libpq import connect, hanging_up, words
from rollout.adapters.settings import SecretReference, Settings, check, resolve_secret
from rollout.agent import holders
from rollout.model.errors import PermanentDriverError, TakenOverError, TransientDriverError
from rollout.model.ids import DeployId
from rollout.model.inventory import Inventory
from rollout.ports.lease import Claim, Lease, described, loss, refusal

WHERE = "the lease in the database"

_TABLE: LiteralString = """
    CREATE TABLE IF NOT EXISTS rollout.lease (
        homeserver text PRIMARY KEY,
        holder text NOT NULL,
        host text NOT NULL,
        pid integer NOT NULL,
        process text NOT NULL,
        why text NOT NULL,
        deploy_id text NOT NULL,
        token bigint NOT NULL,
        ttl_s double precision NOT NULL,
        since timestamptz NOT NULL,
        renewed_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        held boolean NOT NULL,
        taken_from text NOT NULL
    )
"""
_ROW: LiteralString = """
    homeserver, holder, host, pid, process, why, deploy_id, token, ttl_s, extract(epoch FROM since)::float AS since_s,
    extract(epoch FROM renewed_at)::float AS renewed_at_s, extract(epoch FROM expires_at)::float AS expires_at_s, held,
    expires_at <= now() AS expired, taken_from
"""
_READ: LiteralString = f"SELECT {_ROW} FROM rollout.lease WHERE homeserver = %(homeserver)s"  # noqa: S608  (its own columns)
# What a row is made of when it is written anew; `since` and the token are each statement's own.
_COLUMNS: LiteralString = (
    "(homeserver, holder, host, pid, process, why, deploy_id, ttl_s, held, taken_from, renewed_at, expires_at, token, since)"
)
_VALUES: LiteralString = """
    %(homeserver)s, %(holder)s, %(host)s, %(pid)s, %(process)s, %(why)s, %(deploy_id)s, %(ttl_s)s, true, %(taken_from)s,
    now(), now() + make_interval(secs => %(ttl_s)s)
"""
_SET: LiteralString = """
    holder = excluded.holder, host = excluded.host, pid = excluded.pid, process = excluded.process, why = excluded.why,
    deploy_id = excluded.deploy_id, ttl_s = excluded.ttl_s, held = true, renewed_at = excluded.renewed_at,
    expires_at = excluded.expires_at, since = excluded.since
"""
# Free is what was given back or has run out, and what is still the row that was read when its holder's process was seen to be gone.
_ACQUIRE: LiteralString = f"""
    INSERT INTO rollout.lease AS old {_COLUMNS} VALUES ({_VALUES}, %(above)s + 1, now())
    ON CONFLICT (homeserver) DO UPDATE SET {_SET},
        token = greatest(old.token, %(above)s) + 1,
        taken_from = CASE WHEN old.held THEN %(taken_from)s ELSE '' END
    WHERE NOT old.held OR old.expires_at <= now() OR %(take_over)s OR old.token = %(gone)s
    RETURNING {_ROW}
"""  # noqa: S608  (nothing in it comes from anybody)
_RENEW: LiteralString = f"""
    INSERT INTO rollout.lease AS old {_COLUMNS} VALUES ({_VALUES}, %(token)s, to_timestamp(%(since_s)s))
    ON CONFLICT (homeserver) DO UPDATE SET {_SET}, token = excluded.token, taken_from = excluded.taken_from
    WHERE old.token <= excluded.token
    RETURNING {_ROW}
"""  # noqa: S608  (as above)
_RELEASE: LiteralString = "UPDATE rollout.lease SET held = false WHERE homeserver = %(homeserver)s AND token = %(token)s"

_GRANTS = """CREATE ROLE rollout_lease LOGIN PASSWORD '…'; CREATE SCHEMA rollout AUTHORIZATION rollout_lease"""


class PostgresqlLeaseSettings(Settings):
    """
    *dsn*: a reference to a connection string of a role that owns the schema `rollout`; *ttl_s*: how long a lease is valid without being
    renewed, in seconds.
    """

    dsn: SecretReference
    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "PostgresqlLease":
    """Open the driver; nothing is connected yet. Raises InvalidFileError when the secret isn't there."""
    checked = check(PostgresqlLeaseSettings, settings, "lease_driver")
    return PostgresqlLease(resolve_secret(checked.dsn), inventory.homeserver, checked.ttl_s)


@dataclass(frozen=True)
class _Row:
    """One row, with the database's own word on whether it has run out."""

    homeserver: str
    holder: str
    host: str
    pid: int
    process: str
    why: str
    deploy_id: DeployId
    token: int
    ttl_s: float
    since_s: float
    renewed_at_s: float
    expires_at_s: float
    held: bool
    expired: bool
    taken_from: str


class PostgresqlLease:
    """See ports.lease. One connection is kept, and made anew when it broke."""

    def __init__(self, dsn: str, homeserver: str, ttl_s: float) -> None:
        self._dsn = dsn
        self._homeserver = homeserver
        self._ttl_s = ttl_s
        self._connection: psycopg.Connection | None = None
        self._mine: _Row | None = None

    @property
    def ttl_s(self) -> float:
        """See ports.lease."""
        return self._ttl_s

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """See ports.lease."""
        wanted = {
            "homeserver": self._homeserver,
            "holder": claim.holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": holders.me(),
            "why": claim.why,
            "deploy_id": claim.deploy_id,
            "ttl_s": self._ttl_s,
            "above": above,
            "take_over": take_over,
        }
        found = self._row(timeout_s)
        if found is None:
            self._make_table(timeout_s)
        gone = found is not None and holders.is_gone(found.pid, found.process)
        wanted |= {
            "gone": found.token if found is not None and gone else None,
            "taken_from": "" if found is None else described(_lease(found)),
        }
        mine = self._one(_ACQUIRE, wanted, timeout_s)
        if mine is None:
            now = self._row(timeout_s)
            raise TransientDriverError("the lease was there and is gone", where=WHERE) if now is None else refusal(_lease(now), WHERE)
        self._mine = mine
        return _lease(mine)

    def renew(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        mine = self._mine
        if mine is None or mine.token != token:
            msg = f"lease {token} was never acquired here"
            raise ValueError(msg)
        values = {
            name: getattr(mine, name)
            for name in ("homeserver", "holder", "host", "pid", "process", "why", "deploy_id", "token", "ttl_s", "since_s", "taken_from")
        }
        if self._one(_RENEW, values, timeout_s) is None:
            found = self._row(timeout_s)
            why = "" if found is None else loss(_lease(found))
            raise TakenOverError("the lease is lost", where=WHERE, why=why)

    def release(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        with self._connected(timeout_s) as connection:
            connection.execute(_RELEASE, {"homeserver": self._homeserver, "token": token})

    def read(self, timeout_s: float) -> Lease | None:
        """See ports.lease."""
        found = self._row(timeout_s)
        return None if found is None else _lease(found)

    def close(self) -> None:
        """End the connection; whatever comes next makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _row(self, timeout_s: float) -> _Row | None:
        """Read; where there is no table yet, nobody ever held anything."""
        with self._connected(timeout_s) as connection:
            there = connection.execute("SELECT to_regclass('rollout.lease') IS NOT NULL").fetchone()
            if there is None or not there[0]:
                return None
        return self._one(_READ, {"homeserver": self._homeserver}, timeout_s)

    def _make_table(self, timeout_s: float) -> None:
        with self._connected(timeout_s) as connection:
            try:
                connection.execute(_TABLE)
            except psycopg.errors.UniqueViolation:
                # Somebody else made it in this moment.
                return

    def _one(self, statement: LiteralString, values: Mapping[str, Any], timeout_s: float) -> _Row | None:
        with self._connected(timeout_s) as connection, connection.cursor(row_factory=class_row(_Row)) as cursor:
            return cursor.execute(statement, values).fetchone()

    @contextmanager
    def _connected(self, timeout_s: float) -> Iterator[psycopg.Connection]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._dsn, timeout_s, "rollout lease")
            with hanging_up(self._connection, timeout_s):
                yield self._connection
        except (psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege) as error:
            raise PermanentDriverError(
                "its role may keep no lease", where=WHERE, why=words(error), remedy=f"as an administrator of that database: {_GRANTS}"
            ) from None
        except psycopg.Error as error:
            self.close()
            raise TransientDriverError("the database that keeps the lease can't be used", where=WHERE, why=words(error)) from None


def _lease(row: _Row) -> Lease:
    return Lease(
        homeserver=row.homeserver,
        holder=row.holder,
        host=row.host,
        pid=row.pid,
        why=row.why,
        deploy_id=row.deploy_id,
        token=row.token,
        ttl_s=row.ttl_s,
        since_s=row.since_s,
        renewed_at_s=row.renewed_at_s,
        expires_at_s=row.expires_at_s,
        held=row.held,
        free=not row.held or row.expired or holders.is_gone(row.pid, row.process),
        taken_from=row.taken_from,
    )
