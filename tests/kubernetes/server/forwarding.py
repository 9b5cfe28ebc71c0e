"""
Ports of pods: a request that wants to be a WebSocket is handed on to the node's kubelet as it is, and then every byte, both ways.

Source: pkg/registry/core/pod/rest/subresources.go (PortForwardREST.Connect: only `SPDY/3.1+portforward.k8s.io` is translated) and
pkg/registry/core/pod/strategy.go (PortForwardLocation, streamParams), staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go
(tryUpgrade) in kubernetes/kubernetes.
"""

import select
import socket
import ssl
from contextlib import suppress
from email.message import Message
from urllib.parse import urlencode

from tests.kubernetes.server.access import Act
from tests.kubernetes.server.answering import Answers, Request, kubelet_of
from tests.kubernetes.server.refusals import RefusedError, bad_request

_DIAL_S = 10
_CHUNK = 65_536
_NOT_HANDED_ON = {"authorization", "host", "connection", "upgrade"}


def forward(answers: Answers, request: Request, headers: Message, client: socket.socket) -> None:
    """Serve one; raises RefusedError before anything was answered."""
    where = request.place
    act = Act("get", "", "pods", where.namespace, where.name, "portforward")
    answers.access.require(request.user, act)
    # Since 1.35: AuthorizePodWebsocketUpgradeCreatePermission.
    answers.access.require(request.user, Act("create", "", "pods", where.namespace, where.name, "portforward"))
    if "upgrade" not in headers.get("Connection", "").lower() or headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")
    pod = answers.resources.get(where.kind, where.namespace, where.name)
    node = kubelet_of(answers.resources, pod)
    if node is None:
        raise bad_request(f"pod {where.name} does not have a host assigned")
    # The kubelet calls it `port`.
    query = urlencode({"port": request.query.get("ports", "")})
    target = f"/portForward/{where.namespace}/{where.name}?{query}"
    try:
        kubelet = _dialled(*node)
    except OSError as error:
        raise RefusedError(500, "InternalError", f"error dialing backend: {error}") from None
    with kubelet, suppress(OSError):
        kept = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in _NOT_HANDED_ON]
        lines = [f"GET {target} HTTP/1.1", f"Host: {node[0]}:{node[1]}", "Connection: Upgrade", "Upgrade: websocket", *kept]
        kubelet.sendall("\r\n".join([*lines, "", ""]).encode())
        kubelet.settimeout(None)
        _copy(client, kubelet)


def _kubelets() -> ssl.SSLContext:
    """Nothing of a kubelet's certificate is checked unless --kubelet-certificate-authority names an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


_KUBELETS = _kubelets()


def _dialled(address: str, port: int) -> ssl.SSLSocket:
    return _KUBELETS.wrap_socket(socket.create_connection((address, port), _DIAL_S))


def _copy(client: socket.socket, kubelet: ssl.SSLSocket) -> None:
    """Go on until one side has ended; in one thread, since two may not use one TLS connection at once."""
    while True:
        readable = [kubelet] if kubelet.pending() else select.select([client, kubelet], [], [])[0]
        for one in readable:
            chunk = one.recv(_CHUNK)
            if not chunk:
                return
            (kubelet if one is client else client).sendall(chunk)
