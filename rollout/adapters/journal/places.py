"""
Where a journal is: a file, or a database by its URL, which may be a secret (`env:NAME`, `file:PATH`) because its password is.

WAL lets others read a file while a rollout writes; `synchronous = FULL` makes every commit reach the disk before it returns, because what
follows from an event must never be more durable than the event. PostgreSQL does so with `synchronous_commit`, which is switched on.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rollout.adapters.journal.database import IDLE_TIMEOUT_S, STATEMENT_TIMEOUT_S, Database
from rollout.adapters.secrecy import is_reference
from rollout.adapters.settings import resolve_secret
from rollout.model.errors import PermanentDriverError

# Longer than any writer holds the database: a commit takes milliseconds.
BUSY_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 5
_REMEDY = "name a file, or postgresql://USER@HOST/DATABASE; with a password, env:NAME or file:PATH that holds the URL"
_PSYCOPG = frozenset({"postgres", "postgresql"})
# Where SQLite says in a file's header how large its pages are, and how many there are.
_PAGE_BYTES, _PAGES, _HEADER_BYTES = slice(16, 18), slice(28, 32), 100


def default_place() -> Path:
    """Name the journal of this user."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(state) / "rollout" / "journal.db"


def open_database(place: str | None) -> tuple[Database, Path | None]:
    """Find the database, and the file if it is one, connecting to nothing yet. Raises PermanentDriverError, InvalidFileError."""
    text = resolve_secret(place) if place is not None and is_reference(place) else place
    path: Path | None
    if text is None or "://" not in text:
        path = default_place() if text is None else Path(text)
        _make_room(path)
        url = sa.URL.create("sqlite", database=str(path))
    else:
        url = _url(text)
        path = Path(url.database) if url.get_backend_name() == "sqlite" and url.database and "uri" not in url.query else None
    if path is not None:
        _is_whole(path)
    try:
        engine = sa.create_engine(url, connect_args=_arguments(url))
    except (sa.exc.ArgumentError, ImportError) as error:
        raise PermanentDriverError("the journal's URL names no database that can be used", why=str(error), remedy=_REMEDY) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _make_durable)
        sa.event.listen(engine, "begin", _begin)
    where = str(path) if path is not None else url.set(query={}).render_as_string(hide_password=True)
    return Database(engine, where), path


def _url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        # What is wrong is quoted in the error, and it may be a password.
        raise PermanentDriverError("the journal's URL can't be read", remedy=_REMEDY) from None
    if "@" in (url.host or "") or "@" in (url.username or ""):
        raise PermanentDriverError("the journal's URL can't be read", remedy="an @ in a password is written %40") from None
    backend = url.get_backend_name()
    if backend not in {"sqlite", *_PSYCOPG}:
        raise PermanentDriverError("the journal can't be kept in a database of this kind", remedy=_REMEDY)
    return url.set(drivername="postgresql+psycopg") if url.drivername in _PSYCOPG else url


def _arguments(url: sa.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_S}
    milliseconds, idle = round(STATEMENT_TIMEOUT_S * 1000), round(IDLE_TIMEOUT_S * 1000)
    # What the URL says comes last, and wins.
    named = url.query.get("options", "")
    timeouts = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout={idle}"
    options = f"-c synchronous_commit=on {timeouts} " + (named if isinstance(named, str) else " ".join(named))
    return {
        "connect_timeout": int(str(url.query.get("connect_timeout", CONNECT_TIMEOUT_S))),
        "application_name": url.query.get("application_name", "rollout-journal"),
        "options": options.strip(),
    }


def _make_room(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermanentDriverError("the journal's directory can't be made", where=str(path.parent), why=str(error)) from error


def _is_whole(path: Path) -> None:
    """
    Raise PermanentDriverError when a file has lost its end: SQLite would notice when somebody looks there, or not at all.

    An empty file beside a log that isn't would be taken for a new journal, and the log thrown away. While there is a log, a file may be
    shorter than it says, because what is missing may be there.
    """
    remedy = "keep both files, and begin anew with another --journal: a new plan starts from what is seen and from our marks"
    try:
        file_bytes = path.stat().st_size if path.exists() else 0
        log = path.with_name(f"{path.name}-wal")
        log_bytes = log.stat().st_size if log.exists() else 0
        header = b""
        if file_bytes and path.is_file():
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
    except OSError:
        # Whoever opens it says why it can't be.
        return
    if not file_bytes and log_bytes:
        what = "the journal is damaged: its file is empty, and the log beside it is not"
        raise PermanentDriverError(what, where=str(path), why=f"{log.name} has {log_bytes} bytes", remedy=remedy)
    if not header.startswith(b"SQLite format 3\0") or len(header) < _HEADER_BYTES or log_bytes:
        return
    page_bytes = int.from_bytes(header[_PAGE_BYTES], "big")
    whole = (65_536 if page_bytes == 1 else page_bytes) * int.from_bytes(header[_PAGES], "big")
    if file_bytes < whole:
        why = f"it has {file_bytes} bytes of {whole}"
        raise PermanentDriverError("the journal is damaged: its end is missing", where=str(path), why=why, remedy=remedy)


def _make_durable(connection: Any, _record: object) -> None:  # noqa: ANN401  (the driver's own connection)
    # Transactions begin where we say (_begin), not where the driver guesses.
    connection.isolation_level = None
    try:
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            # A new file gives back to the disk what is deleted, a piece at a time; an older one only uses it again.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # One that can't be written can be read all the same.
        if not error.sqlite_errorname.startswith("SQLITE_READONLY"):
            # If somebody else who opens the same new journal makes this change in this moment, it fails at once; a transaction waits.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    # Who reads first and writes then would find that somebody else has written meanwhile, and be refused at once.
    writes = connection.get_execution_options().get("rollout_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
