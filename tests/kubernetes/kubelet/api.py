"""The API server, as a kubelet asks it: objects are JSON as it is."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import urllib3
from kubernetes import client, config

Object: TypeAlias = dict[str, Any]
Value: TypeAlias = Any

AGENT = "rollout-test-kubelet"
STRATEGIC = "application/strategic-merge-patch+json"
# Whatever may go wrong on the way; the server's own answers are ApiException.
LOST = (urllib3.exceptions.HTTPError, OSError, ValueError)
_TIMEOUT_S = (3, 20)
_WATCH_S = 60


def settings_of(kubeconfig: Path) -> client.Configuration:
    """Return how to reach an API server as whom a kubeconfig says. Retries nothing."""
    settings = client.Configuration()
    # It comes without types.
    config.load_kube_config(str(kubeconfig), client_configuration=settings, persist_config=False)  # type: ignore[no-untyped-call]
    settings.retries = False
    return settings


def said(body: Object) -> Value:
    """Hand the official client an object as it is: it takes that, and its types want their own models."""
    return body


class Server:
    """One connection pool, for all threads of the kubelet."""

    def __init__(self, kubeconfig: Path, agent: str = AGENT) -> None:
        settings = settings_of(kubeconfig)
        settings.connection_pool_maxsize = 32
        self._api = client.ApiClient(settings)
        self._api.user_agent = agent

    def ask(self, method: str, path: str, body: object = None, how: str = "application/json", **query: str) -> Object:
        """Do one request, and return what is answered. Raises client.ApiException, or one of LOST."""
        answer = self._call(method, path, body, how, list(query.items()), _TIMEOUT_S)
        try:
            return json.loads(answer.data or b"{}")  # type: ignore[no-any-return]
        finally:
            answer.release_conn()

    def watch(self, path: str, version: str, **more: str) -> Iterator[Object]:
        """Yield events since *version*, or from what is there now if that is empty, until the server ends it."""
        query = {"watch": "true", "timeoutSeconds": str(_WATCH_S), "allowWatchBookmarks": "true", **more}
        if version:
            query["resourceVersion"] = version
        answer = self._call("GET", path, None, "application/json", list(query.items()), (3, _WATCH_S + 10))
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
            error.headers = answer.headers
            raise error
        return answer  # type: ignore[no-any-return]
