"""A real nginx in front of two servers that answer when they are told to."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rollout.agent.nginx import LOADED, beside, workers
from tests.contracts.proxy import WAIT_S, Backend, until


def nginx_binary() -> Path:
    """Find Debian's nginx. It is not on everybody's PATH."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    assert found is not None, "nginx is missing: apt-get install nginx"
    return Path(found)


@dataclass(slots=True)
class Nginx:
    """nginx with upstream `sync` and servers named as *backends*; *include* is the file of upstreams."""

    place: Path
    port: int
    backends: dict[str, Backend]
    process: subprocess.Popen[bytes]
    open: list[socket.socket] = field(default_factory=list)

    @property
    def include(self) -> Path:
        return self.place / "upstreams.conf"

    @property
    def configuration(self) -> Path:
        return self.place / "nginx.conf"

    @property
    def pid_file(self) -> Path:
        return self.place / "nginx.pid"

    @property
    def command(self) -> tuple[str, ...]:
        return (str(nginx_binary()), "-p", str(self.place), "-c", str(self.configuration))

    def begin_request(self) -> None:
        """Begin a request that ends when its backend is released."""
        one = socket.create_connection(("127.0.0.1", self.port), WAIT_S)
        one.sendall(f"GET /sync HTTP/1.1\r\nHost: localhost\r\nFrom: {one.getsockname()[1]}\r\n\r\n".encode())
        self.open.append(one)

    def answers(self) -> list[int]:
        """Read the status of each answer to the requests that were begun."""
        return [int(one.recv(65_536).split()[1]) for one in self.open]


@contextmanager
def nginx(place: Path, names: tuple[str, ...] = ("sync1", "sync2"), *, processes: int = 2) -> Iterator[Nginx]:
    """Run one, with so many workers, in front of a backend for each name."""
    backends = {name: Backend() for name in names}
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    servers = "\n".join(f"    server 127.0.0.1:{backend.server_port} weight=100; # {name}" for name, backend in backends.items())
    (place / "upstreams.conf").write_text(f"# Of rollout.\nupstream sync {{\n{servers}\n}}\n")
    (place / "nginx.conf").write_text(
        f"""\
worker_processes {processes};
pid {place}/nginx.pid;
error_log {place}/error.log;
events {{ worker_connections 200; }}
http {{
    access_log off;
    client_body_temp_path {place}/body;
    proxy_temp_path {place}/proxy;
    fastcgi_temp_path {place}/fastcgi;
    uwsgi_temp_path {place}/uwsgi;
    scgi_temp_path {place}/scgi;
    include {place}/upstreams.conf;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://sync; proxy_read_timeout 60s; proxy_next_upstream off; }}
    }}
}}
"""
    )
    threads = [threading.Thread(target=backend.serve_forever, args=(0.02,), daemon=True) for backend in backends.values()]
    for thread in threads:
        thread.start()
    with (place / "nginx.log").open("wb") as log:
        command = [str(nginx_binary()), "-p", str(place), "-c", str(place / "nginx.conf"), "-g", "daemon off;"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    found = Nginx(place, port, backends, process)
    try:
        until(lambda: len(workers(str(found.pid_file))) == processes and _listens(port))
        yield found
    finally:
        for backend in backends.values():
            backend.released.set()
        for one in found.open:
            one.close()
        process.terminate()
        process.wait(WAIT_S)
        for backend in backends.values():
            backend.shutdown()
            backend.server_close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def say_that_it_is_read(include: Path) -> None:
    """Let it be known that nginx has the file as it is; it was written just before nginx was started, too short to tell by ages."""
    beside(include, LOADED).write_text(include.read_text())
