"""
What goes on in PostgreSQL, for a person who is about to roll something out.

Each question is asked by itself: a role that may not see one thing may see the others, and what it may not see is named. Queries are told
by their first words alone, as far as they hold nothing but words: a literal may be anybody's secret.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, LiteralString, TypeVar

import psycopg

from rollout.model.conditions import Connections, DatabaseConditions, IndexBuild, LockWait, Transaction
from rollout.ports.database import LISTED_MAX

_T = TypeVar("_T")

_CONNECTIONS: LiteralString = """
    SELECT count(*), current_setting('max_connections')::int,
        current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0)
    FROM pg_stat_activity WHERE backend_type = 'client backend'
"""
_TRANSACTIONS: LiteralString = """
    SELECT pid, application_name, coalesce(state, ''), extract(epoch FROM now() - xact_start)::float, query FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
        AND now() - xact_start >= make_interval(secs => %(older_than_s)s)
    ORDER BY xact_start, pid LIMIT %(limit)s
"""
# Who waits for a row waits for the transaction that has it; which table it is in is told by the lock on the row's place.
_WAITS: LiteralString = """
    SELECT lock.pid, coalesce(one.application_name, ''), coalesce(lock.relation, place.relation)::regclass::text, lock.mode,
        pg_blocking_pids(lock.pid), extract(epoch FROM now() - one.query_start)::float AS age_s
    FROM pg_locks lock JOIN pg_stat_activity one ON one.pid = lock.pid AND one.datname = current_database()
    LEFT JOIN pg_locks place ON place.pid = lock.pid AND place.locktype = 'tuple' AND place.granted
    WHERE NOT lock.granted AND (one.query_start IS NULL OR now() - one.query_start >= make_interval(secs => %(older_than_s)s))
    ORDER BY age_s DESC NULLS LAST, lock.pid LIMIT %(limit)s
"""
_BUILDS: LiteralString = """
    SELECT pid, relid::regclass::text, coalesce(nullif(index_relid, 0)::regclass::text, ''), phase FROM pg_stat_progress_create_index
    WHERE datname = current_database() ORDER BY pid LIMIT %(limit)s
"""
# An index under way is not valid yet either.
_INVALID: LiteralString = """
    SELECT indexrelid::regclass::text FROM pg_index
    WHERE NOT indisvalid AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index WHERE index_relid IS NOT NULL)
    ORDER BY 1 LIMIT %(limit)s
"""
_BACKGROUND: LiteralString = "SELECT update_name FROM background_updates ORDER BY ordering, update_name LIMIT %(limit)s"

# What others do is seen by these only with pg_read_all_stats.
_OTHERS = frozenset({"connections", "transactions", "builds"})
MAY_NOT_LOOK = "its role may not see others: GRANT pg_read_all_stats"

_CHARACTERS_MAX = 60
_COMMENTS = re.compile(r"\s*(?:/\*.*?\*/|--[^\n]*\n)\s*", re.DOTALL)
# Names, and what may stand between two of them without being a value.
_WORDS = re.compile(r"[A-Za-z_][\w.]*(?:[\s,(*]+[A-Za-z_*][\w.]*)*")
# What it sets comes after its name, and needs no quotes.
_SETTING = re.compile(r"(?i)(?:set|alter|create\s+(?:role|user))\b")
_SETTING_WORDS = 2


def first_words(query: str) -> str:
    """Return how a query begins, as far as it is names and key words: no literal, number or comment, and nothing that is quoted."""
    found = _WORDS.match(_COMMENTS.sub(" ", query).strip())
    if found is None:
        return ""
    words = found.group().split()
    if _SETTING.match(found.group()):
        words = words[:_SETTING_WORDS]
    told = " ".join(words)
    return told if len(told) <= _CHARACTERS_MAX else f"{told[: _CHARACTERS_MAX - 1]}…"


def read_conditions(
    connection: psycopg.Connection, older_than_s: float, explain: Callable[[psycopg.Error], str], *, may_look: bool
) -> DatabaseConditions:
    """Ask every question, those after one that failed too. Raises psycopg.Error only when the connection is gone."""
    unread: dict[str, str] = {}
    values: Mapping[str, Any] = {"older_than_s": older_than_s, "limit": LISTED_MAX}

    def ask(part: str, question: LiteralString, made: Callable[[list[tuple[Any, ...]]], _T]) -> _T | None:
        if part in _OTHERS and not may_look:
            unread[part] = MAY_NOT_LOOK
            return None
        try:
            return made(connection.execute(question, values).fetchall())
        except psycopg.Error as error:
            if connection.closed:
                raise
            unread[part] = explain(error)
            return None

    return DatabaseConditions(
        server_version=connection.info.server_version,
        connections=ask("connections", _CONNECTIONS, lambda rows: Connections(*rows[0])),
        transactions=ask("transactions", _TRANSACTIONS, lambda rows: tuple(map(_transaction, rows))),
        waits=ask("waits", _WAITS, lambda rows: tuple(map(_wait, rows))),
        builds=ask("builds", _BUILDS, lambda rows: tuple(IndexBuild(*row) for row in rows)),
        invalid_indexes=ask("invalid_indexes", _INVALID, lambda rows: tuple(str(row[0]) for row in rows)),
        background_updates=ask("background_updates", _BACKGROUND, lambda rows: tuple(str(row[0]) for row in rows)),
        unread=unread,
    )


def _transaction(row: tuple[Any, ...]) -> Transaction:
    pid, application, state, age_s, query = row
    return Transaction(pid, _name(application), state, age_s, first_words(query or ""))


def _wait(row: tuple[Any, ...]) -> LockWait:
    pid, application, relation, mode, blocked_by, age_s = row
    return LockWait(pid, _name(application), relation or "", mode, tuple(dict.fromkeys(blocked_by)), age_s)


def _name(application: str | None) -> str:
    """A client calls itself what it likes; PostgreSQL keeps at most 63 bytes of it."""
    return "".join(character for character in application or "" if character.isprintable())
