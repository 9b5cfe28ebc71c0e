"""
A connection to a port of a pod through the API server, as `kubectl port-forward` makes one; what listens on its own loopback is reached.

GET …/pods/NAME/portforward?ports=PORT is upgraded to a WebSocket with subprotocol v4.channel.k8s.io. A message begins with its channel: 0
is what goes to and fro, 1 is what went wrong; the first message of each is the port again. The API server hands all of it on to the node's
kubelet as it is (only `SPDY/3.1+portforward.k8s.io` is translated), and the kubelet connects after it has agreed: whether somebody listens
there is told by channel 1, later. Nothing can be half closed: who ends one channel ends all.

The client's own `stream.portforward` isn't taken. It hands no timeout on, so an API server that is away would be waited for without end; it
ends the answer's way when the question's is ended; and it drops what it hasn't handed on when the other side closes. Below it is
websocket-client, and so it is here.

Source: pkg/registry/core/pod/rest/subresources.go (PortForwardREST.Connect), staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/
websocket.go (handleWebSocketStreams) and staging/src/k8s.io/apimachinery/pkg/util/httpstream/wsstream/conn.go in kubernetes/kubernetes;
kubernetes/stream/ws_client.py (PortForward) in the client.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from time import monotonic  # noqa: TID251  (how long the server takes)
from typing import TYPE_CHECKING, Any

from websocket import (
    ABNF,
    WebSocket,
    WebSocketBadStatusException,
    WebSocketConnectionClosedException,
    WebSocketException,
    WebSocketTimeoutException,
)

from rollout.adapters.kubernetes.cluster import Cluster, NotFoundError
from rollout.adapters.kubernetes.kinds import PODS
from rollout.model.errors import DriverError, TransientDriverError

if TYPE_CHECKING:
    from kubernetes.client import Configuration

PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PORT_BYTES = 2


def forward(cluster: Cluster, pod: str, port: int, end_s: float) -> "Forwarded":
    """
    Connect to *port* of a pod; that, and whatever is read of it later, ends at *end_s*.

    Raises DriverError: nothing was sent to the pod.
    """
    path = PODS.path(cluster.namespace, pod, "portforward")
    settings, url, headers = cluster.way_to(path, {"ports": str(port)}, _left(end_s))
    connection = WebSocket(sslopt=_tls(settings), skip_utf8_validation=True)
    # A socket's timeout begins anew with every byte: this one is for the whole.
    ending = Timer(_left(end_s), _hang_up, (connection,))
    ending.daemon = True
    ending.start()
    try:
        connection.connect(  # type: ignore[no-untyped-call]
            f"ws{url.removeprefix('http')}",
            timeout=_left(end_s),
            header=[f"{name}: {value}" for name, value in headers.items()],
            subprotocols=[PROTOCOL],
            suppress_origin=True,
            # Nobody else gets our token.
            redirect_limit=0,
            **_proxied(settings, url, headers),
        )
    except (WebSocketException, OSError, ValueError) as error:
        # A ValueError is of what answers in no HTTP that could be read.
        ending.cancel()
        raise _not_connected(cluster, pod, f"GET {path}", error, end_s) from error
    return Forwarded(connection, ending, end_s)


class Forwarded:
    """What rollout.agent.proxy needs of a socket. Raises OSError, TimeoutError when the time is over."""

    def __init__(self, connection: WebSocket, ending: Timer, end_s: float) -> None:
        self._connection = connection
        self._ending = ending
        self._end_s = end_s
        self._begun: set[int] = set()

    def sendall(self, data: bytes) -> None:
        with self._as_a_socket():
            self._connection.send(bytes([_DATA]) + data, ABNF.OPCODE_BINARY)

    def shutdown(self, how: int) -> None:
        """Do nothing: it would end the answer, too."""

    def recv(self, size: int) -> bytes:
        """Return what has come, maybe more than *size*; nothing when the other side has closed."""
        del size
        while True:
            message = self._message()
            if not message:
                return b""
            channel, said = message[0], message[1:]
            if channel not in self._begun:
                self._begun.add(channel)
                if len(said) != _PORT_BYTES:
                    raise OSError("what answers is no port-forward")
            elif channel == _ERROR:
                raise OSError(said.decode(errors="replace"))
            elif channel == _DATA and said:
                return said

    def settimeout(self, timeout_s: float) -> None:
        self._connection.settimeout(timeout_s)

    def close(self) -> None:
        self._ending.cancel()
        with suppress(WebSocketException, OSError):
            self._connection.send_close()
        self._connection.shutdown()  # type: ignore[no-untyped-call]

    def _message(self) -> bytes:
        """Return the next message with its channel; nothing at the end."""
        with self._as_a_socket():
            try:
                kind, frame = self._connection.recv_data_frame(control_frame=True)
                while kind in {ABNF.OPCODE_PING, ABNF.OPCODE_PONG}:
                    kind, frame = self._connection.recv_data_frame(control_frame=True)
            except WebSocketConnectionClosedException:
                if monotonic() >= self._end_s:
                    raise TimeoutError from None
                return b""
            return b"" if kind == ABNF.OPCODE_CLOSE or frame is None else bytes(frame.data)

    @contextmanager
    def _as_a_socket(self) -> Iterator[None]:
        try:
            yield
        except WebSocketTimeoutException as error:
            raise TimeoutError from error
        except WebSocketException as error:
            if monotonic() >= self._end_s:
                raise TimeoutError from error
            raise OSError(str(error)) from error


def _left(end_s: float) -> float:
    # 0 would mean not to wait at all.
    return max(0.001, end_s - monotonic())


def _hang_up(connection: WebSocket) -> None:
    if (its := connection.sock) is not None:
        with suppress(OSError):
            its.shutdown(2)


def _not_connected(cluster: Cluster, pod: str, what: str, error: Exception, end_s: float) -> DriverError:
    if isinstance(error, WebSocketBadStatusException):
        refusal = cluster.refusal(
            error.status_code, error.resp_body or b"", (error.resp_headers or {}).get("retry-after"), what, changes=False
        )
        if isinstance(refusal, NotFoundError):
            return TransientDriverError(f"pod {pod} has gone", where=refusal.where, why=refusal.why)
        return refusal
    if isinstance(error, ssl.SSLCertVerificationError):
        return cluster.untrusted(f"{what}: {error}")
    late = monotonic() >= end_s or isinstance(error, TimeoutError | WebSocketTimeoutException)
    why = "no answer in time" if late else f"{type(error).__name__}: {error}"
    return TransientDriverError(f"pod {pod} can't be reached through the API server", where=cluster.where, why=f"{what}: {why}")


def _tls(settings: "Configuration") -> dict[str, Any]:
    """Return what websocket-client is told of certificates, as the client itself tells it."""
    if not settings.verify_ssl:
        told: dict[str, Any] = {"cert_reqs": ssl.CERT_NONE}
    else:
        told = {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": settings.ssl_ca_cert}
        if settings.assert_hostname is not None:
            told["check_hostname"] = settings.assert_hostname
    named = {"certfile": settings.cert_file, "keyfile": settings.key_file, "server_hostname": settings.tls_server_name}
    return told | {name: value for name, value in named.items() if value}


def _proxied(settings: "Configuration", url: str, headers: dict[str, str]) -> dict[str, Any]:
    """Return what websocket-client is told of a proxy on the way to the API server."""
    if not (settings.proxy or settings.proxy_headers):
        return {}
    from kubernetes.stream.ws_client import websocket_proxycare  # noqa: PLC0415  (half a second, as cluster.py has it)

    return dict(websocket_proxycare({}, settings, url, headers))  # type: ignore[no-untyped-call]
