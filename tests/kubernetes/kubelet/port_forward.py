"""
A port of a pod, as the API server asks a kubelet for it: GET /portForward/NAMESPACE/POD?port=PORT, upgraded to a WebSocket of subprotocol
v4.channel.k8s.io. SPDY, which kubectl speaks, isn't known here.

Source: staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go (handleWebSocketStreams) and
staging/src/k8s.io/apimachinery/pkg/util/httpstream/wsstream/conn.go in kubernetes/kubernetes; for what happens in the pod
internal/cri/server/sandbox_portforward_linux.go in containerd/containerd; RFC 6455, 4.2.2 (the server's handshake).
"""

import base64
import contextlib
import ctypes
import hashlib
import os
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from websocket import ABNF, frame_buffer

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
# As long as one direction goes on when the other has ended.
GRACE_S = 0.5
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NEW_NET = 0x40000000
_CONNECT_S = 5


def handshake(key: str, protocols: str) -> bytes | None:
    """Return the head of the answer; None where the protocol isn't known here."""
    if PROTOCOL not in [one.strip() for one in protocols.split(",")]:
        return None
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()  # noqa: S324  (as the RFC has it)
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
        f"Sec-WebSocket-Protocol: {PROTOCOL}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass(slots=True)
class Forwarding:
    """
    *connection* is the upgraded one; *pod* how messages call the pod, *pause* the process whose network is the pod's.

    One thread for both directions: two may not use one TLS connection at once.
    """

    connection: ssl.SSLSocket
    pod: str
    pause: int
    port: int

    def run(self) -> None:
        """Go on until one of both sides has ended."""
        for channel in (DATA, ERROR):
            self._send(channel, self.port.to_bytes(2, "little"))
        try:
            inside = _connected(self.pause, self.port)
        except OSError as error:
            said = f"dial tcp4 127.0.0.1:{self.port}: connect: {(error.strerror or str(error)).lower()}"
            self._fail(f'failed to connect to localhost:{self.port} inside namespace "{self.pause}", IPv4: {said}')
        else:
            with inside, contextlib.suppress(OSError, EOFError):
                self._copy(inside)
        with contextlib.suppress(OSError):
            self._write((1000).to_bytes(2, "big"), ABNF.OPCODE_CLOSE)

    def _copy(self, inside: socket.socket) -> None:
        frames = frame_buffer(self._receive, skip_utf8_validation=True)
        open_sides: list[socket.socket] = [self.connection, inside]
        until: float | None = None
        while open_sides and (until is None or time.monotonic() < until):
            for one in self._readable(open_sides, until):
                if not (self._to_pod(frames.recv_frame(), inside) if one is self.connection else self._from_pod(inside)):
                    open_sides.remove(one)
                    until = until or time.monotonic() + GRACE_S

    def _readable(self, sides: list[socket.socket], until: float | None) -> list[socket.socket]:
        if self.connection in sides and self.connection.pending():
            return [self.connection]
        return select.select(sides, [], [], None if until is None else max(0.0, until - time.monotonic()))[0]

    def _from_pod(self, inside: socket.socket) -> bool:
        chunk = inside.recv(32_768)
        if chunk:
            self._send(DATA, chunk)
        return bool(chunk)

    def _to_pod(self, frame: ABNF, inside: socket.socket) -> bool:
        data = frame.data.encode() if isinstance(frame.data, str) else bytes(frame.data)
        if frame.opcode == ABNF.OPCODE_PING:
            self._write(data, ABNF.OPCODE_PONG)
        elif frame.opcode == ABNF.OPCODE_BINARY and data[:1] == bytes([DATA]):
            inside.sendall(data[1:])
        return bool(frame.opcode != ABNF.OPCODE_CLOSE)

    def _receive(self, size: int) -> bytes:
        chunk = self.connection.recv(size)
        if not chunk:
            raise EOFError
        return chunk

    def _fail(self, why: str) -> None:
        self._send(ERROR, f"error forwarding port {self.port} to pod {self.pod}: {why}".encode())

    def _send(self, channel: int, data: bytes) -> None:
        self._write(bytes([channel]) + data, ABNF.OPCODE_BINARY)

    def _write(self, data: bytes, opcode: int) -> None:
        frame = ABNF.create_frame(data, opcode)
        # A server masks nothing.
        frame.mask_value = 0
        self.connection.sendall(frame.format())


def _connected(pause: int, port: int) -> socket.socket:
    """Connect to a port of a pod's loopback; a socket stays in the network that its thread was in. Raises OSError."""
    made: list[socket.socket | OSError] = []

    def connect() -> None:
        try:
            with Path(f"/proc/{pause}/ns/net").open() as there:
                _enter(there.fileno())
            one = socket.create_connection(("127.0.0.1", port), _CONNECT_S)
            one.settimeout(None)
            made.append(one)
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    (found,) = made
    if isinstance(found, OSError):
        raise found
    return found


def _enter(network: int) -> None:
    """Go into a network, with this thread alone."""
    if ctypes.CDLL(None, use_errno=True).setns(network, _NEW_NET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
