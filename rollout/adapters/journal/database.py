"""
One transaction in the journal's database, and what becomes of it when the database is away.

A file is there or it isn't. A server may be restarted under a rollout: whoever has reached it once waits for it to come back, for a bounded
time, and then repeats what did not happen. A commit whose answer was lost may have happened all the same. So a transaction is handed over
as a function that is called again: it looks first, and what it finds done it doesn't do again.
"""

import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import monotonic  # noqa: TID251  (a rollout's clock is no measure of how long a server has been away)
from typing import Any, TypeVar

import sqlalchemy as sa

from rollout.adapters.journal.holders import who_holds
from rollout.adapters.silence import hung_up_after
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError

_T = TypeVar("_T")

# A restart of PostgreSQL takes seconds, a crash recovery or a failover tens of them. Meanwhile nothing is begun, and what is under way goes
# on: a worker that is out stays out so much longer, and its siblings carry it as they do during a boot. More than a minute of that is worse
# than ending safely.
AWAY_MAX_S = 60.0
AGAIN_EVERY_S = 0.5
# A statement takes milliseconds; a server that doesn't answer for longer is as good as gone.
STATEMENT_TIMEOUT_S = 10.0
# Between two statements: who is stopped in the midst of a transaction holds a rollout's row, and who takes over must not wait for it longer
# than a statement may take.
IDLE_TIMEOUT_S = 5.0
# All statements of a transaction together. Then we hang up: a server that is stopped lets no timeout of its own pass.
TRANSACTION_TIMEOUT_S = 20.0
_QUOTED = re.compile(r'"[^"]*"' + r"|'[^']*'")

_HELD = "the journal can't be written: somebody else holds it"
# SQLite's own names for what is wrong, by how they begin: what to say, what to try, and whether it may pass by itself.
_SQLITE = {
    "SQLITE_FULL": ("the journal can't be written: its disk is full", "free some space", True),
    "SQLITE_READONLY": (
        "the journal can't be written: the file or its directory is read-only",
        "the rights to write to both, or another --journal",
        False,
    ),
    "SQLITE_CANTOPEN": (
        "the journal can't be opened",
        "a file in a directory that whoever runs this may write to (SQLite keeps two more beside it)",
        False,
    ),
    "SQLITE_BUSY": (_HELD, "again", True),
    "SQLITE_CORRUPT": (
        "the journal is damaged",
        "keep the file, and begin anew with another --journal: a new plan starts from what is seen and from our marks",
        False,
    ),
    "SQLITE_NOTADB": ("this is no journal", "name another with --journal", False),
}
# The same for PostgreSQL, by SQLSTATE.
_POSTGRESQL = {
    "42501": ("the journal can't be written or read: its role may not", "GRANT SELECT, INSERT, UPDATE, DELETE on its tables", False),
    "25006": ("the journal can't be written: the server is read-only", "connect to the primary", False),
    "53100": ("the journal can't be written: the server's disk is full", "free some space", True),
    "53300": ("the journal can't be reached: the server has no connection left", "again, or raise max_connections", True),
    "55P03": (_HELD, "again", True),
    "57014": ("the journal's server takes too long", "again, once it has less to do", True),
}
# 25P03: it hung up on us because we stood still in a transaction, as we ask it to.
_COMING_AND_GOING = frozenset({"57P01", "57P02", "57P03", "25P03"})


class Database:
    """The database of a journal. *where* names it without its password."""

    def __init__(self, engine: sa.Engine, where: str) -> None:
        self._engine = engine
        self._writing = engine.execution_options(rollout_writes=True)
        self.where = where
        self.is_file = engine.dialect.name == "sqlite"
        self._was_there = False

    def read(self, body: Callable[[sa.Connection], _T]) -> _T:
        """Run *body* in a transaction that writes nothing."""
        return self._run(self._engine, body)

    def write(self, body: Callable[[sa.Connection], _T]) -> _T:
        """
        Run *body* in one transaction, in which nobody else writes a file.

        It is called again after the server was away, perhaps although it was kept: it has to look. Raises DriverError.
        """
        return self._run(self._writing, body)

    def write_once(self, body: Callable[[sa.Connection], _T]) -> _T:
        """Run what could not tell whether it was done before. Raises OutcomeUnknownError when nobody knows."""
        return self._run(self._writing, body, again=False)

    def close(self) -> None:
        """Close all connections; the next transaction opens another."""
        self._engine.dispose()

    def _run(self, engine: sa.Engine, body: Callable[[sa.Connection], _T], *, again: bool = True) -> _T:
        end_s: float | None = None
        while True:
            began = False
            try:
                with engine.connect() as connection:
                    began = True
                    with self._in_time(connection), connection.begin():
                        done = body(connection)
                self._was_there = True
            except sa.exc.DBAPIError as error:
                if not self._is_away(error) or not self._was_there:
                    raise self._told(error) from error
                if began and not again:
                    raise OutcomeUnknownError(
                        "the journal's server went away: what was asked may be written down or not", where=self.where, why=_words(error)
                    ) from error
                end_s = monotonic() + AWAY_MAX_S if end_s is None else end_s
                if monotonic() >= end_s:
                    raise TransientDriverError(
                        f"the journal's server has been away for {AWAY_MAX_S:.0f} s", where=self.where, why=_words(error)
                    ) from error
                threading.Event().wait(AGAIN_EVERY_S)
            else:
                return done

    def _is_away(self, error: sa.exc.DBAPIError) -> bool:
        if self.is_file:
            return False
        state = getattr(error.orig, "sqlstate", None)
        gone = state is None or state.startswith("08") or state in _COMING_AND_GOING
        return error.connection_invalidated or (isinstance(error, sa.exc.OperationalError) and gone)

    def _in_time(self, connection: sa.Connection) -> AbstractContextManager[object]:
        """Hang up on a server that says nothing at all; a file never does."""
        if self.is_file:
            return nullcontext()
        driver: Any = connection.connection.driver_connection
        return hung_up_after(driver.fileno(), TRANSACTION_TIMEOUT_S)

    def _told(self, error: sa.exc.DBAPIError) -> DriverError:
        what, remedy, may_pass = "", "", True
        if self.is_file:
            name = getattr(error.orig, "sqlite_errorname", "")
            what, remedy, may_pass = next((told for known, told in _SQLITE.items() if name.startswith(known)), (what, remedy, may_pass))
        else:
            what, remedy, may_pass = _POSTGRESQL.get(getattr(error.orig, "sqlstate", None) or "", (what, remedy, may_pass))
        if not what and isinstance(error, sa.exc.IntegrityError):
            what, may_pass = "the journal has this already", False
        elif not what and isinstance(error, sa.exc.OperationalError):
            # Whatever it is: nothing was kept, and it may be well again later.
            what = "the journal can't be written or read" if self._was_there or self.is_file else "the journal can't be reached"
        elif not what:
            what, remedy, may_pass = "this is no journal", "name another with --journal", False
        kind = TransientDriverError if may_pass else PermanentDriverError
        held = who_holds(Path(self.where)) if self.is_file and what == _HELD else None
        why, remedy = held or (_words(error), remedy)
        return kind(what, where=self.where, why=why, remedy=remedy)


def _words(error: sa.exc.DBAPIError) -> str:
    """Give the server's own sentence, or the reason in libpq's; of a URL that was misread the rest may be a piece of a password."""
    said = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    sentence = said or str(error.orig).strip().partition("\n")[0]
    if said or not hasattr(error.orig, "sqlstate"):
        return sentence
    _, failed, reason = sentence.rpartition(" failed: ")
    return reason.removeprefix("FATAL:  ") if failed else _QUOTED.sub("…", sentence)
