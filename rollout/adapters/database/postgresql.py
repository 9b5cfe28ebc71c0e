"""
The homeserver's PostgreSQL, read only, with a role of its own.

Without `pg_read_all_stats` the transactions of others can't be seen: then there is no telling how long one has been open, which is not
the same as none.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import LiteralString

import psycopg

from rollout.adapters.database.conditions import MAY_NOT_LOOK, read_conditions
from rollout.adapters.libpq import connect, hanging_up, words
from rollout.adapters.settings import SecretReference, Settings, check, resolve_secret
from rollout.model.conditions import DatabaseConditions
from rollout.model.errors import TransientDriverError
from rollout.model.gate import GuardReading
from rollout.model.inventory import Inventory
from rollout.model.sighting import SchemaSighting

_MAY_LOOK: LiteralString = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_LOCK_QUEUE: LiteralString = "SELECT count(*) FROM pg_locks WHERE NOT granted"
_LONG_TRANSACTION: LiteralString = """
    SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
_CONNECTIONS: LiteralString = """
    SELECT count(*) / current_setting('max_connections')::float FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
_GUARDS = (("lock_queue", _LOCK_QUEUE), ("long_transaction_s", _LONG_TRANSACTION), ("connections_used", _CONNECTIONS))
# What others do is seen by these only with the right to look.
_OTHERS = frozenset({"long_transaction_s", "connections_used"})
# What `conditions` is made of.
_PARTS = tuple(part.name for part in fields(DatabaseConditions) if part.name != "unread")

# Hidden devices are keys, not somebody who was there.
_ACTIVE_USERS = """
    SELECT users.name FROM users JOIN devices ON devices.user_id = users.name
    WHERE users.deactivated = 0 AND users.is_guest = 0 AND users.appservice_id IS NULL AND NOT devices.hidden
    GROUP BY users.name ORDER BY max(devices.last_seen) DESC NULLS LAST, users.name LIMIT %s
"""


class PostgresqlSettings(Settings):
    """*dsn*: a reference to a connection string of a role that can only read."""

    dsn: SecretReference


def build(settings: Mapping[str, object], inventory: Inventory) -> "Postgresql":
    """Open the driver; nothing is connected yet. Raises InvalidFileError when the secret isn't there."""
    del inventory
    return Postgresql(resolve_secret(check(PostgresqlSettings, settings, "database_driver").dsn))


class Postgresql:
    """See ports.database. One connection is kept, and made anew when it broke."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None

    def schema(self, timeout_s: float) -> SchemaSighting:
        """See ports.database."""
        try:
            with self._connected(timeout_s) as connection:
                version = connection.execute("SELECT version FROM schema_version").fetchone()
                compat = connection.execute("SELECT compat_version FROM schema_compat_version").fetchone()
                deltas = connection.execute("SELECT file FROM applied_schema_deltas ORDER BY version, file").fetchall()
        except psycopg.Error as error:
            self.close()
            raise TransientDriverError("the database's schema can't be read", where="database", why=words(error)) from None
        if version is None:
            raise TransientDriverError("the database has no schema version", where="database", remedy="start the homeserver once")
        return SchemaSighting(version[0], version[0] if compat is None else compat[0], tuple(str(row[0]) for row in deltas))

    def active_users(self, limit: int, timeout_s: float) -> tuple[str, ...]:
        """See ports.database."""
        try:
            with self._connected(timeout_s) as connection:
                rows = connection.execute(_ACTIVE_USERS, (limit,)).fetchall()
        except psycopg.Error as error:
            self.close()
            raise TransientDriverError("who is active can't be read", where="database", why=words(error)) from None
        return tuple(str(row[0]) for row in rows)

    def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
        """See ports.database."""
        try:
            with self._connected(timeout_s) as connection:
                may_look = _may_look(connection)
                readings = []
                for name, query in _GUARDS:
                    if name in _OTHERS and not may_look:
                        readings.append(GuardReading(name, None, MAY_NOT_LOOK))
                    else:
                        row = connection.execute(query).fetchone()
                        readings.append(GuardReading(name, None if row is None else float(row[0])))
        except psycopg.Error as error:
            self.close()
            return tuple(GuardReading(name, None, f"database: {words(error)}") for name, _ in _GUARDS)
        return tuple(readings)

    def conditions(self, older_than_s: float, timeout_s: float) -> DatabaseConditions:
        """See ports.database."""
        try:
            with self._connected(timeout_s) as connection:
                return read_conditions(connection, older_than_s, words, may_look=_may_look(connection))
        except psycopg.Error as error:
            self.close()
            return DatabaseConditions(unread=dict.fromkeys(_PARTS, words(error)))

    def close(self) -> None:
        """End the connection; the next look makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    @contextmanager
    def _connected(self, timeout_s: float) -> Iterator[psycopg.Connection]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, timeout_s, "rollout", read_only=True)
        with hanging_up(self._connection, timeout_s):
            yield self._connection


def _may_look(connection: psycopg.Connection) -> bool:
    return bool((connection.execute(_MAY_LOOK).fetchone() or (False,))[0])
