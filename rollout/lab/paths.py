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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

SERVER_NAME = "lab.localhost"
LOOPBACK = "127.0.0.1"
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
    """*http* and *metrics* are by worker."""

    proxy: int
    postgres: int
    valkey: int
    replication: int
    receiver: int
    http: dict[str, int]
    metrics: dict[str, int]


@dataclass(frozen=True, slots=True)
class Addresses:
    """
    Where programs listen, as numbers: *here* is this machine's, which everybody reaches; *elsewhere* has, by name, workers and `haproxy`
    that run on others.
    """

    here: str = LOOPBACK
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def of(self, program: str) -> str:
        """Return where one listens."""
        return self.elsewhere.get(program, self.here)


LOCAL = Addresses()


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab: *target* is its directory, *runtime* the short one."""

    target: Path
    ports: Ports
    addresses: Addresses = LOCAL

    def url(self, worker: str) -> str:
        """Where a worker answers, past the proxy."""
        return f"http://{self.addresses.of(worker)}:{self.ports.http[worker]}"

    def metrics_url(self, worker: str) -> str:
        """Where its metrics page is."""
        return f"http://{self.addresses.of(worker)}:{self.ports.metrics[worker]}/_synapse/metrics"

    @property
    def runtime(self) -> Path:
        """Sockets, and PostgreSQL's data."""
        return runtime_of(self.target)

    @property
    def base_url(self) -> str:
        """Where clients go."""
        return f"http://{self.addresses.of('haproxy')}:{self.ports.proxy}"

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
    about = json.loads(path.read_text())
    return Lab(directory.resolve(), Ports(**about["ports"]), Addresses(**about.get("addresses", {})))


def create_lab(directory: Path, addresses: Addresses = LOCAL, ports: Ports | None = None) -> Lab:
    """Make the directories, and choose free ports where they aren't said."""
    target = directory.resolve()
    for name in ("log", "locks", "etc", "rollout"):
        (target / name).mkdir(parents=True, exist_ok=True)
    lab = Lab(target, ports or free_ports(addresses.here), addresses)
    lab.runtime.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
    about = {
        "ports": asdict(lab.ports),
        "addresses": asdict(addresses),
        "base_url": lab.base_url,
        "server_name": SERVER_NAME,
        "runtime": str(lab.runtime),
    }
    (target / "lab.json").write_text(json.dumps(about, indent=2))
    return lab


def free_ports(address: str) -> Ports:
    """Choose ports that nobody has on one of this machine's addresses."""
    # All are held open until the last one is known, so that none is given twice.
    sockets = [socket.socket() for _ in range(5 + 2 * len(WORKERS))]
    try:
        for one in sockets:
            one.bind((address, 0))
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
