"""
Asking many workers over HTTP, side by side, every second or so.

Most answers take a millisecond, so what goes with each request counts: threads are kept, some for each thread that asks, and a request that
is always the same is prepared once.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import requests

from rollout.adapters.in_time import POOLS

THREADS_MAX = 32

_Whom = TypeVar("_Whom")
_Answer = TypeVar("_Answer")


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
