"""
HTTP connections whose timeout is for the whole answer.

A socket's timeout begins anew with every byte, and so does that of requests: a server that drips its header would hold us for as long as
it likes, and be called well in the end. Here each read waits for what is left of the time that there was when the answer was asked for.
Rejected: a thread that watches each request.
"""

import io
import socket
import ssl
from http.client import HTTPResponse
from time import monotonic  # noqa: TID251  (a socket's own timeout begins anew with every byte)
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError


class _InTime(io.RawIOBase):
    """What a socket gives before its timeout, counted from now, is over; TimeoutError then."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket) -> None:
        self._raw = raw
        self._connection = connection
        timeout_s = connection.gettimeout()
        self._end_s = None if timeout_s is None else monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  (any writable buffer, as io has it)
        if self._end_s is not None:
            # 0 would mean not to wait at all, which is another error.
            self._connection.settimeout(max(0.001, self._end_s - monotonic()))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  (as HTTPResponse has them)
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_InTime(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response

    def connect(self) -> None:
        """Say of one that is hung up on before it is secure that there was none: nothing has been asked yet."""
        try:
            super().connect()
        except (ssl.SSLEOFError, ConnectionError) as error:
            # A load balancer does that while nobody is behind it.
            raise NewConnectionError(self, f"it was hung up on at once: {error}") from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


# What a PoolManager of urllib3's takes as its `pool_classes_by_scheme`.
POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _SecurePool}
