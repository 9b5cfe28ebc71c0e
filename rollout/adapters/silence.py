"""Hanging up on a server that says nothing at all, stopped or behind a network that swallows everything: its driver would wait for ever."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Timer


@contextmanager
def hung_up_after(descriptor: int, timeout_s: float) -> Iterator[Event]:
    """Shut the connection behind a file *descriptor* down if the block lasts longer than *timeout_s*; the event is set then."""
    silent = Event()
    with socket.socket(fileno=os.dup(descriptor)) as line:

        def hang_up() -> None:
            silent.set()
            with suppress(OSError):  # the server has just hung up itself
                line.shutdown(socket.SHUT_RDWR)

        timer = Timer(timeout_s, hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield silent
        finally:
            timer.cancel()
            timer.join()
