"""
Where everything of a lab is, and its ports.

What a person may want to read is below the lab's directory. Sockets, and PostgreSQL's data when the lab is run by root, live in a short
directory of their own below the machine's temporary one: a socket's path may have no more than about 100 characters, and PostgreSQL
refuses to run as root, while the other user that it runs as may not be able to enter the lab's directory.
"""

import hashlib
import json
import os
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

SERVER_NAME = "lab.localhost"
NOBODY = 65534

# Role and pool of each worker; a worker without a pool is not behind the proxy.
WORKERS: dict[str, tuple[str, str | None]] = {
    "main": ("main", "main"),
    "event_persister1": ("event_persister", None),
    "sync1": ("sync", "sync"),
    "sync2": ("sync", "sync"),
    "client1": ("client", "client"),
    "client2": ("client", "client"),
    "fedsender1": ("federation_sender", None),
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports. *http* and *metrics* are by worker."""

    proxy: int
    postgres: int
    valkey: int
    replication: int
    receiver: int
    http: dict[str, int]
    metrics: dict[str, int]


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab: *target* is its directory, *runtime* the short one."""

    target: Path
    ports: Ports

    @property
    def runtime(self) -> Path:
        """Sockets, and PostgreSQL's data."""
        return runtime_of(self.target)

    @property
    def base_url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.ports.proxy}"

    @property
    def supervisor_socket(self) -> Path:
        return self.runtime / "supervisor.sock"

    @property
    def proxy_socket(self) -> Path:
        return self.runtime / "haproxy.sock"

    @property
    def proxy_master_socket(self) -> Path:
        return self.runtime / "haproxy-master.sock"

    @property
    def inventory(self) -> Path:
        return self.target / "inventory.yaml"

    @property
    def receiver(self) -> Path:
        """What the peer keeps."""
        return self.target / "receiver"

    @property
    def received(self) -> Path:
        """A line for each event that came to the peer."""
        return self.receiver / "received.jsonl"

    @property
    def users(self) -> Path:
        return self.target / "users.json"


def runtime_of(target: Path) -> Path:
    """Name the short directory of a lab."""
    return Path(tempfile.gettempdir()) / f"rollout-lab-{hashlib.sha256(str(target).encode()).hexdigest()[:10]}"


def load_lab(directory: Path) -> Lab | None:
    """Read a lab that was set up; None when there is none."""
    path = directory.resolve() / "lab.json"
    if not path.is_file():
        return None
    return Lab(directory.resolve(), Ports(**json.loads(path.read_text())["ports"]))


def create_lab(directory: Path) -> Lab:
    """Make the directories and choose free ports."""
    target = directory.resolve()
    for name in ("log", "locks", "etc", "rollout"):
        (target / name).mkdir(parents=True, exist_ok=True)
    lab = Lab(target, _free_ports())
    lab.runtime.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
    about = {"ports": asdict(lab.ports), "base_url": lab.base_url, "server_name": SERVER_NAME, "runtime": str(lab.runtime)}
    (target / "lab.json").write_text(json.dumps(about, indent=2))
    return lab


def _free_ports() -> Ports:
    # All are held open until the last one is known, so that none is given twice.
    sockets = [socket.socket() for _ in range(5 + 2 * len(WORKERS))]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        numbers = [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
    rest = numbers[5:]
    return Ports(
        proxy=numbers[0],
        postgres=numbers[1],
        valkey=numbers[2],
        replication=numbers[3],
        receiver=numbers[4],
        http=dict(zip(WORKERS, rest, strict=False)),
        metrics=dict(zip(WORKERS, rest[len(WORKERS) :], strict=True)),
    )
