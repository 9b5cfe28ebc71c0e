"""
What containers have said, as the API server asks a kubelet for it: GET /containerLogs/NAMESPACE/POD/CONTAINER. Ports of pods are asked for
at the same place (port_forward.py).

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod;
pkg/kubelet/server/server.go (getContainerLogs) and pkg/kubelet/kubelet_pods.go (validateContainerLogStatus) in kubernetes/kubernetes.
A log can't be followed.
"""

import ipaddress
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kubernetes.kubelet import port_forward
from tests.kubernetes.kubelet.container import Container


class LogServer(ThreadingHTTPServer):
    """*find* returns a container of a pod, *pod* how messages call a pod and the process that holds its network; or None."""

    daemon_threads = True

    def __init__(
        self,
        address: str,
        place: Path,
        find: Callable[[str, str, str], Container | None],
        pod: Callable[[str, str], tuple[str, int] | None],
    ) -> None:
        super().__init__((address, 0), _Handler)
        self.find, self.pod = find, pod
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self_signed(address, place))
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def begin(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def handle_error(self, *_: object) -> None:
        """Say nothing of callers that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: LogServer

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        parts = split.path.strip("/").split("/")
        if len(parts) == 3 and parts[0] == "portForward":
            self._forward(parts[1], parts[2], dict(parse_qsl(split.query)).get("port", ""))
            return
        if len(parts) != 4 or parts[0] != "containerLogs":
            self._say(404, "not found")
            return
        _, namespace, pod, name = parts
        container = self.server.find(namespace, pod, name)
        if container is None:
            self._say(404, f'pods "{pod}" not found')
            return
        query = dict(parse_qsl(split.query))
        before = query.get("previous") in {"true", "1"}
        number = (
            container.restarts - 1
            if before or (container.running is None and not container.over and container.restarts)
            else container.restarts
        )
        log = container.log.with_name(f"{number}.log")
        if before and number < 0:
            self._say(400, f'previous terminated container "{name}" in pod "{pod}" not found')
        elif not log.exists():
            reason = container.state.get("waiting", {}).get("reason", "ContainerCreating")
            why = "trying and failing to pull image" if reason in {"ErrImagePull", "ImagePullBackOff"} else reason
            self._say(400, f'container "{name}" in pod "{pod}" is waiting to start: {why}')
        else:
            self._say(200, _picked(log, query))

    def _forward(self, namespace: str, name: str, port: str) -> None:
        self.close_connection = True
        pod = self.server.pod(namespace, name)
        if pod is None:
            self._say(404, f'pods "{name}" not found')
            return
        head = port_forward.handshake(self.headers.get("Sec-WebSocket-Key", ""), self.headers.get("Sec-WebSocket-Protocol", ""))
        if head is None or not port.isdecimal():
            self._say(400, "unable to upgrade websocket connection")
            return
        assert isinstance(self.connection, ssl.SSLSocket)
        self.connection.sendall(head)
        port_forward.Forwarding(self.connection, *pod, int(port)).run()

    def _say(self, code: int, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _picked(log: Path, query: dict[str, str]) -> str:
    lines = [line.split(" ", 1) for line in log.read_text(errors="replace").splitlines()]
    if since := query.get("sinceSeconds"):
        first = (datetime.now(UTC) - timedelta(seconds=int(since))).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lines = [line for line in lines if line[0] >= first]
    if since := query.get("sinceTime"):
        first = datetime.fromisoformat(since).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lines = [line for line in lines if line[0] >= first]
    if "tailLines" in query:
        count = int(query["tailLines"])
        lines = lines[-count:] if count else []
    stamped = query.get("timestamps") in {"true", "1"}
    text = "".join((" ".join(line) if stamped else "".join(line[1:])) + "\n" for line in lines)
    limit = query.get("limitBytes")
    return text[: int(limit)] if limit else text


def self_signed(address: str, place: Path) -> tuple[Path, Path]:
    """
    Make a certificate of *address* that vouches for itself, and its key.

    An API server checks none of a kubelet's unless it is told an authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = place / "kubelet.crt", place / "kubelet.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return chain, private
