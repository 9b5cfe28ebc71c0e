"""
Reading a file of which nobody knows what it is: never more than is wanted, and never for ever.

A pipe is a file to whoever writes `-i <(…)`, and is read as one. Opening one that nobody writes into would wait for ever, so nothing is
opened in a way that waits.
"""

import io
import os
import select
import stat
from pathlib import Path

# For whoever makes the file on the way: a secret's store may have to be asked first.
WAIT_S = 30.0
_CHUNK_BYTES = 65_536


class PipeError(OSError):
    """Nothing comes out of it."""


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Return at most *bytes_max* bytes and one more, which tells that there are more. Raises OSError; ValueError for no path at all."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with io.FileIO(descriptor) as file:
        content = bytearray()
        while len(content) <= bytes_max:
            chunk = file.read(min(_CHUNK_BYTES, bytes_max + 1 - len(content)))
            if chunk:
                content += chunk
            elif chunk is not None:
                break
            elif not select.select([file], [], [], WAIT_S)[0]:
                raise PipeError(0, f"nothing has come out of this pipe for {WAIT_S:g} s")
        if not content and stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise PipeError(0, "it is a pipe, and nobody writes into it")
    return bytes(content)
