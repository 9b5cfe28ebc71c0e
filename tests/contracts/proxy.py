"""A real HAProxy in front of two servers that answer when they are told to."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

from rollout.lab.programs import haproxy_binary

WAIT_S = 10.0
HOLD_LUA = files("rollout.adapters.traffic").joinpath("hold.lua")


class Backend(ThreadingHTTPServer):
    """
    One worker: /health is answered at once, anything else when *released* is set; not at all, then, if *dying* is set too.

    *arrived* are the times at which requests came, each with its client's port. The time is that of the connection, which is taken by one
    thread: those that answer may overtake one another.
    """

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Answer)
        self.released = threading.Event()
        self.dying = threading.Event()
        self.arrived: list[tuple[float, int]] = []
        self.accepted_s: dict[int, float] = {}

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Take the next connection, and its time."""
        connection, address = super().get_request()
        self.accepted_s[address[1]] = time.monotonic()
        return connection, address

    def handle_error(self, *_: object) -> None:
        """Say nothing of a proxy that went away in the middle of a check."""


class _Answer(BaseHTTPRequestHandler):
    server: Backend

    def do_GET(self) -> None:
        if self.path != "/health":
            self.server.arrived.append((self.server.accepted_s[self.client_address[1]], int(self.headers.get("From", 0))))
            self.server.released.wait(WAIT_S)
            if self.server.dying.is_set():
                self.close_connection = True
                return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(slots=True)
class Front:
    """A proxy on *port*, in front of servers named as *backends*; its files are in *place*."""

    place: Path
    port: int
    backends: dict[str, Backend]
    open: list[socket.socket] = field(default_factory=list)
    address: str = "127.0.0.1"

    def begin_request(self) -> None:
        """Begin a request that ends when its backend is released."""
        one = socket.create_connection((self.address, self.port), WAIT_S)
        one.sendall(f"GET /sync HTTP/1.1\r\nHost: localhost\r\nFrom: {one.getsockname()[1]}\r\n\r\n".encode())
        self.open.append(one)

    def hang_up(self) -> None:
        """End the connections of all requests that were begun."""
        for one in self.open:
            one.close()
        self.open.clear()

    def answers(self) -> list[int]:
        """Read the status of each answer to the requests that were begun."""
        return [int(answer.split()[1]) for answer in self.whole_answers()]

    def whole_answers(self) -> list[bytes]:
        """Read each answer to the requests that were begun; the first part of it, with its headers."""
        return [one.recv(65_536) for one in self.open]


@contextmanager
def serving(names: tuple[str, ...], address: str = "127.0.0.1") -> Iterator[dict[str, Backend]]:
    """Let a backend answer for each name."""
    backends = {name: Backend(address) for name in names}
    for backend in backends.values():
        threading.Thread(target=backend.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield backends
    finally:
        for backend in backends.values():
            backend.shutdown()
            backend.server_close()


@contextmanager
def running(front: Front, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the proxy's process; at its end nothing waits for it any more."""
    with (front.place / "proxy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        for backend in front.backends.values():
            backend.released.set()
        for one in front.open:
            one.close()
        # A master ends its workers, old ones too; killed, it would leave them behind.
        process.terminate()
        process.wait(WAIT_S)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Proxy(Front):
    """HAProxy, with backend `sync`."""

    @property
    def admin(self) -> Path:
        return self.place / "admin.sock"

    @property
    def master(self) -> Path:
        return self.place / "master.sock"

    def reload(self) -> None:
        """Start a new process with a fresh view; the old one keeps its sessions."""
        before = _pid(self.admin)
        ask(self.master, "reload")
        until(lambda: _pid(self.admin) not in (before, None) and _serves(self.master))


def ask(place: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(WAIT_S)
        one.connect(str(place))
        one.sendall(f"{command}\n".encode())
        one.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: one.recv(65_536), b"")).decode()


def _pid(place: Path) -> str | None:
    """Name the process that answers there; None when there is none."""
    try:
        return next((line for line in ask(place, "show info").splitlines() if line.startswith("Pid:")), None)
    except OSError:
        return None


def _serves(master: Path) -> bool:
    """Tell whether the master answers: it begins to listen after its worker does, and again after a reload."""
    try:
        return "# workers" in ask(master, "show proc")
    except OSError:
        return False


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@contextmanager
def haproxy(
    place: Path, names: tuple[str, ...] = ("sync1", "sync2"), *, can_hold: bool = True, balance: str = "roundrobin", checks: bool = True
) -> Iterator[Proxy]:
    """Run one, with a master, in front of a backend for each name, whose health it checks or not."""
    with serving(names) as backends:
        port = free_port()
        proxy = Proxy(place, port, backends)
        check = "check inter 100ms rise 1 fall 1 weight 100" if checks else "weight 100"
        servers = "\n".join(f"    server {name} 127.0.0.1:{backend.server_port} {check}" for name, backend in backends.items())
        (place / "haproxy.cfg").write_text(
            f"""\
global
    stats socket {proxy.admin} mode 600 level admin expose-fd listeners
    {f"lua-load {HOLD_LUA}" if can_hold else ""}
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend clients
    bind 127.0.0.1:{port}
    default_backend sync
backend sync
    balance {balance}
    option httpchk GET /health
    {"http-request lua.rollout_hold" if can_hold else ""}
{servers}
"""
        )
        with running(proxy, [str(haproxy_binary()), "-W", "-db", "-S", str(proxy.master), "-f", str(place / "haproxy.cfg")]):
            until(lambda: _pid(proxy.admin) is not None and _serves(proxy.master))
            yield proxy
