"""The API server, as a kubelet asks it: objects are JSON as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import urllib3
from kubernetes import client, config

Object: TypeAlias = dict[str, Any]

AGENT = "rollout-test-kubelet"
STRATEGIC = "application/strategic-merge-patch+json"
# Whatever may go wrong on the way; the server's own answers are ApiException.
LOST = (urllib3.exceptions.HTTPError, OSError, ValueError)
_TIMEOUT_S = (3, 20)
_WATCH_S = 60


class Server:
    """One connection pool, for all threads of the kubelet."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)
        settings.retries = False
        settings.connection_pool_maxsize = 32
        self._api = client.ApiClient(settings)
        self._api.user_agent = AGENT

    def ask(self, method: str, path: str, body: object = None, how: str = "application/json", **query: str) -> Object:
        """Do one request, and return what is answered. Raises client.ApiException, or one of LOST."""
        answer = self._call(method, path, body, how, list(query.items()), _TIMEOUT_S)
        try:
            return json.loads(answer.data or b"{}")  # type: ignore[no-any-return]
        finally:
            answer.release_conn()

    def watch(self, path: str, version: str) -> Iterator[Object]:
        """Yield events since *version*, until the server ends it."""
        query = [("watch", "true"), ("resourceVersion", version), ("timeoutSeconds", str(_WATCH_S)), ("allowWatchBookmarks", "true")]
        answer = self._call("GET", path, None, "application/json", query, (3, _WATCH_S + 10))
        try:
            rest = b""
            for piece in answer.stream(amt=None, decode_content=False):
                *lines, rest = (rest + piece).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
        finally:
            answer.close()

    def _call(
        self, method: str, path: str, body: object, how: str, query: list[tuple[str, str]], timeout_s: tuple[float, float]
    ) -> urllib3.HTTPResponse:
        headers = {"Accept": "application/json", "Content-Type": how}
        request = self._api.param_serialize(
            method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = self._api.call_api(*request, _request_timeout=timeout_s).response
        if not 200 <= answer.status < 300:
            error = client.ApiException(status=answer.status, reason=answer.reason)
            error.body = answer.data.decode(errors="replace")
            raise error
        return answer  # type: ignore[no-any-return]
