"""
Asking many workers over HTTP, side by side, every second or so.

Most answers take a millisecond, so what goes with each request counts: threads are kept, some for each thread that asks, and a request that
is always the same is prepared once. What goes wrong with an answer is FAILURES, and `why_not` has a sentence for each.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import requests
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as ReadTimeoutError

from rollout.adapters.in_time import POOLS
from rollout.adapters.wording import shortened

THREADS_MAX = 32
CHUNK_BYTES = 65_536

_Whom = TypeVar("_Whom")
_Answer = TypeVar("_Answer")


class UnusableError(Exception):
    """What came can't be used. Its text is a sentence about it."""


# Everything that asking, reading and decoding an answer may raise.
FAILURES = (requests.RequestException, HTTPError, UnicodeDecodeError, UnusableError)


class Asker:
    """Sends *headers* with each request, and keeps connections to as many *hosts*, if these want it. For use by several threads."""

    def __init__(self, headers: Mapping[str, str], hosts: int) -> None:
        self._session = requests.Session()
        # No proxy and no password file of the person who runs this may stand between us and a worker.
        self._session.trust_env = False
        self._session.headers.update(headers)
        self._adapter = requests.adapters.HTTPAdapter(pool_connections=max(10, hosts), pool_maxsize=THREADS_MAX)
        self._adapter.poolmanager.pool_classes_by_scheme = POOLS
        self._prepared: dict[str, requests.PreparedRequest] = {}
        self._threads = threading.local()

    def each(self, whom: Collection[_Whom], ask: Callable[[_Whom], _Answer]) -> dict[_Whom, _Answer]:
        """Ask all of them at once, and return what each answered. Who asks for something quick doesn't wait for what another asks for."""
        if not hasattr(self._threads, "pool"):
            self._threads.pool = ThreadPoolExecutor(THREADS_MAX)
        return dict(zip(whom, self._threads.pool.map(ask, whom), strict=True))

    def get(self, url: str, timeout_s: float) -> requests.Response:
        """Ask for what is asked for again and again. Its body is yet to be read. Raises requests.RequestException."""
        if (prepared := self._prepared.get(url)) is None:
            prepared = self._prepared[url] = self._session.prepare_request(requests.Request("GET", url))
        return self._send(prepared, timeout_s)

    def get_once(self, url: str, timeout_s: float, headers: Mapping[str, bytes], parameters: Mapping[str, str]) -> requests.Response:
        """Ask for something else each time. As `get` otherwise."""
        request = requests.Request("GET", url, headers=headers, params=parameters)
        return self._send(self._session.prepare_request(request), timeout_s)

    def _send(self, prepared: requests.PreparedRequest, timeout_s: float) -> requests.Response:
        # Cookies and redirects are what the session would look for, and a worker has neither.
        return self._adapter.send(prepared, timeout=timeout_s, stream=True)


def body_of(answer: requests.Response, bytes_max: int, name: str) -> bytes:
    """Read what was asked for without compression, called *name* in sentences. Raises FAILURES, also for more than *bytes_max*."""
    if (encoding := answer.headers.get("Content-Encoding", "identity")) != "identity":
        raise UnusableError(f"it is compressed ({shortened(encoding)}), which was not asked for")
    body = bytearray()
    while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
        body += chunk
        if len(body) > bytes_max:
            raise UnusableError(f"{name} is longer than {bytes_max} bytes")
    if not body:
        raise UnusableError(f"{name} is empty")
    return bytes(body)


def kind_of(answer: requests.Response) -> str:
    """Return what it is said to be: `text/html`; "" when nothing is said."""
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def why_not(error: Exception, name: str) -> str:
    """Say what went wrong: a sentence for each of FAILURES."""
    match error:
        case UnusableError():
            return str(error)
        case requests.Timeout() | ReadTimeoutError():
            return "no answer in time"
        case requests.exceptions.SSLError():
            return "no TLS connection that can be trusted"
        case requests.ConnectionError():
            return _why_not_connected(error)
        case requests.exceptions.ChunkedEncodingError() | ProtocolError():
            return f"{name} is truncated: its connection ended before it did"
        case UnicodeDecodeError():
            return "it is not UTF-8 text"
        case _:
            return f"it can't be read: {type(error).__name__}"


def _why_not_connected(error: requests.ConnectionError) -> str:
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    cause = reason.__cause__ if isinstance(reason, BaseException) else None
    if not isinstance(reason, ProtocolError) and isinstance(cause, OSError) and cause.strerror:
        return f"no connection: {cause.strerror.lower()}"
    return "it hangs up, or doesn't speak HTTP"
