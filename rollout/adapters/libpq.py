"""What the drivers that talk to PostgreSQL have in common: they connect, hang up on a silent server, and repeat no secret."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from rollout.adapters.silence import hung_up_after

# By its own timeouts the server says what it was that took long, so they come first; a silent one is waited for no longer than this.
GRACE_S = 1.0
_QUOTED = re.compile(r"""'.*'|".*\"""")


def connect(dsn: str, timeout_s: float, application_name: str, *, read_only: bool = False) -> psycopg.Connection:
    """Connect, for statements that commit themselves and take, as the wait for a lock does, at most *timeout_s*. Raises psycopg.Error."""
    milliseconds = int(timeout_s * 1000)
    options = f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
    return psycopg.connect(
        dsn,
        autocommit=True,
        # libpq counts in whole seconds and takes 1 for 2.
        connect_timeout=max(2, int(timeout_s)),
        application_name=application_name,
        options=f"-c default_transaction_read_only=on {options}" if read_only else options,
    )


@contextmanager
def hanging_up(connection: psycopg.Connection, timeout_s: float) -> Iterator[None]:
    """Hang up on a silent server, and say so. Raises psycopg.OperationalError."""
    with hung_up_after(connection.fileno(), timeout_s + GRACE_S) as silent:
        try:
            yield
        except psycopg.OperationalError:
            if silent.is_set():
                raise psycopg.OperationalError("no answer in time") from None
            raise


def words(error: psycopg.Error) -> str:
    """
    Give the server's own sentence, or the reason in libpq's first.

    What is quoted in any other is left out: of a connection string that was misread it may be a piece of the password.
    """
    if error.diag.message_primary:
        return error.diag.message_primary
    if isinstance(error, psycopg.ProgrammingError):
        return "its connection string can't be read"
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return "no answer in time"
    if not isinstance(error, psycopg.OperationalError):
        return type(error).__name__
    sentence = str(error).strip().partition("\n")[0]
    _, failed, reason = sentence.rpartition(" failed: ")
    return reason.removeprefix("FATAL:  ") if failed else _QUOTED.sub("…", sentence)
