"""Port-forward, when what is on the way breaks off, drips, sends elsewhere, or isn't whom the kubeconfig trusts."""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from websocket import ABNF

from rollout.adapters.kubernetes.cluster import Cluster, Door
from rollout.adapters.kubernetes.port_forward import Forwarded, forward
from rollout.agent import proxy
from rollout.agent.fault import TRANSIENT, UNKNOWN, Fault
from rollout.model.errors import PermanentDriverError, TransientDriverError
from tests.adapters.kubernetes.canned import NAMESPACE, kubeconfig
from tests.kubernetes.kubelet.logs import self_signed
from tests.kubernetes.kubelet.port_forward import handshake

PORT = 1999
TIMEOUT_S = 2.0
# Nothing within these tests takes as long.
AT_ONCE_S = 1.5
_BEGINS = [b"\x00" + PORT.to_bytes(2, "little"), b"\x01" + PORT.to_bytes(2, "little")]

Speak = Callable[[socket.socket, str], None]


def frames(*messages: bytes, ended: bool = True) -> bytes:
    """Write messages as a server does."""
    made = [ABNF.create_frame(message, ABNF.OPCODE_BINARY) for message in messages]
    made += [ABNF.create_frame((1000).to_bytes(2, "big"), ABNF.OPCODE_CLOSE)] if ended else []
    for one in made:
        one.mask_value = 0
    return b"".join(one.format() for one in made)


def upgraded(*messages: bytes, ended: bool = True, hears: bool = True) -> Speak:
    """Agree to a WebSocket, and send messages once something was heard."""

    def speak(near: socket.socket, head: str) -> None:
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        answer = handshake(fields["Sec-WebSocket-Key"], fields["Sec-WebSocket-Protocol"])
        assert answer is not None
        near.sendall(answer + frames(*_BEGINS, ended=False))
        if hears:
            near.recv(65_536)
        near.sendall(frames(*messages, ended=ended))

    return speak


def says(text: str) -> Speak:
    return lambda near, _: near.sendall(text.replace("\n", "\r\n").encode())


def drips(near: socket.socket, _: str) -> None:
    with suppress(OSError):
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 100:
            near.sendall(bytes([byte]))
            time.sleep(0.1)


def silent(near: socket.socket, _: str) -> None:
    with suppress(OSError):
        while near.recv(65_536):
            pass


@contextmanager
def server(place: Path, speak: Speak, tls: ssl.SSLContext | None = None, **cluster: object) -> Iterator[Cluster]:
    """Serve one connection after the other, and give the way there."""

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), plain:
                near = plain if tls is None else tls.wrap_socket(plain, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += near.recv(65_536)
                speak(near, head.decode())
                near.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.getsockname()[1]}"
        file = place / "kubeconfig-forwarding"
        file.write_text(json.dumps(kubeconfig({"server": address, **cluster})))
        yield Cluster(Door(NAMESPACE, str(file)))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def dialled(cluster: Cluster) -> Callable[[str, float], Forwarded]:
    return lambda _, end_s: forward(cluster, "haproxy-0", PORT, end_s)


def asked(cluster: Cluster) -> str:
    return proxy.question("a pod", "show info", time.monotonic() + TIMEOUT_S, dialled(cluster))


def told(cluster: Cluster) -> None:
    proxy.tell("a pod", "set server a/b state drain", time.monotonic() + TIMEOUT_S, dialled(cluster))


def test_an_answer_in_many_messages_is_one(tmp_path: Path) -> None:
    with server(tmp_path, upgraded(b"\x00Name: ", b"\x00HAProxy\n", b"\x00\n")) as cluster:
        assert asked(cluster) == "Name: HAProxy\n\n"
    with server(tmp_path, upgraded(b"\x00\n")) as cluster:
        told(cluster)


@pytest.mark.parametrize("messages", [(), (b"\x01error forwarding port 1999",)], ids=["the end", "an error"])
@pytest.mark.parametrize("ended", [True, False], ids=["closed", "broken off"])
def test_a_command_without_an_answer_is_in_doubt(tmp_path: Path, messages: tuple[bytes, ...], ended: bool) -> None:  # noqa: FBT001
    """Whether it has come to HAProxy nobody knows; a question is just asked again."""
    with server(tmp_path, upgraded(*messages, ended=ended)) as cluster:
        with pytest.raises(Fault) as lost:
            told(cluster)
        assert lost.value.kind == UNKNOWN
        if messages:
            with pytest.raises(Fault, match="error forwarding port 1999") as failed:
                asked(cluster)
            assert failed.value.kind == TRANSIENT
        else:
            assert asked(cluster) == ""


def test_an_answer_that_does_not_come_ends_when_its_time_does(tmp_path: Path) -> None:
    def holds(near: socket.socket, head: str) -> None:
        upgraded(b"\x00half of", ended=False)(near, head)
        silent(near, head)

    with server(tmp_path, holds) as cluster:
        began_s = time.monotonic()
        with pytest.raises(Fault, match="no answer in time") as late:
            told(cluster)
        assert late.value.kind == UNKNOWN
        with pytest.raises(Fault, match="no answer in time") as late:
            asked(cluster)
        assert late.value.kind == TRANSIENT
        assert 2 * TIMEOUT_S - 0.5 < time.monotonic() - began_s < 2 * TIMEOUT_S + AT_ONCE_S


@pytest.mark.parametrize("speak", [silent, drips])
def test_who_never_agrees_is_waited_for_no_longer_than_was_said(tmp_path: Path, speak: Speak) -> None:
    """A socket's own timeout begins anew with each byte."""
    with server(tmp_path, speak) as cluster:
        cluster.way_to("/", {}, 20)
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError, match="can't be reached through the API server") as late:
            told(cluster)
        assert "no answer in time" in late.value.why
        assert TIMEOUT_S - 0.5 < time.monotonic() - began_s < TIMEOUT_S + AT_ONCE_S


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("HTTP/1.1 404 Not Found\nContent-Length: 4\n\nnone", TransientDriverError),
        ("HTTP/1.1 503 Service Unavailable\nContent-Length: 0\n\n", TransientDriverError),
        ("HTTP/1.1 500 Internal Server Error\nContent-Length: 0\n\n", TransientDriverError),
        ("HTTP/1.1 401 Unauthorized\nContent-Length: 0\n\n", PermanentDriverError),
        ("HTTP/1.1 302 Found\nLocation: http://127.0.0.1:{elsewhere}/\nContent-Length: 0\n\n", TransientDriverError),
        ("HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\n", TransientDriverError),
        ("220 mail.example.org ESMTP\n\n", TransientDriverError),
        ("HTTP/1.1 strange\n\n", TransientDriverError),
        ("", TransientDriverError),
    ],
)
def test_nothing_was_told_where_nobody_has_agreed(tmp_path: Path, answer: str, kind: type[Exception]) -> None:
    """And who sends us elsewhere doesn't get our token sent there."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.3)
        with server(tmp_path, says(answer.replace("{elsewhere}", str(elsewhere.getsockname()[1])))) as cluster, pytest.raises(kind):
            told(cluster)
        with pytest.raises(TimeoutError):
            elsewhere.accept()


def test_a_server_is_believed_as_the_kubeconfig_says(tmp_path: Path) -> None:
    """By its authority, or blindly where that is said; one that nobody vouches for is sent nothing, and that doesn't mend itself."""
    chain, key = self_signed("127.0.0.1", tmp_path)
    tls, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), base64.b64encode(chain.read_bytes()).decode()
    tls.load_cert_chain(chain, key)
    speak = upgraded(b"\x00fine\n\n")
    for trusting in ({"certificate-authority-data": authority}, {"insecure-skip-tls-verify": True}):
        with server(tmp_path, speak, tls, **trusting) as cluster:
            assert asked(cluster) == "fine\n\n"
    with (
        server(tmp_path, speak, tls) as cluster,
        pytest.raises(PermanentDriverError, match="certificate is none that the kubeconfig trusts"),
    ):
        asked(cluster)


def test_closing_does_not_wait_for_the_other_side(tmp_path: Path) -> None:
    def holds(near: socket.socket, head: str) -> None:
        upgraded(b"\x00\n", ended=False)(near, head)
        silent(near, head)

    with server(tmp_path, holds) as cluster:
        with closing(forward(cluster, "haproxy-0", PORT, time.monotonic() + 20)) as connection:
            connection.sendall(b"x\n")
            assert connection.recv(10) == b"\n"
            began_s = time.monotonic()
        assert time.monotonic() - began_s < AT_ONCE_S
