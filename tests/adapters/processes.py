"""Another process that shares nothing with this one, and that may be killed."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

WAIT_S = 30.0

_SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def another(body: Callable[..., None], *arguments: Any) -> Iterator[tuple[BaseProcess, Connection]]:  # noqa: ANN401  (as Process has it)
    """Let another process do *body(connection, *arguments)*; it is ended, if need be, on leaving."""
    here, there = _SPAWN.Pipe()
    process = _SPAWN.Process(target=body, args=(there, *arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        kill(process)
        here.close()


def kill(process: BaseProcess) -> None:
    """SIGKILL, and wait until it is gone."""
    process.kill()
    process.join(WAIT_S)


def heard(connection: Connection) -> object:
    """Return the next thing that the other process says; EOFError once it has ended."""
    assert connection.poll(WAIT_S), "the other process says nothing"
    return connection.recv()
