"""
A small homeserver on two real hosts, for whole rollouts under faults: everything is reached over SSH, and real, but Synapse.

Its workers are systemd's: a few lines of Python that answer health checks, requests and metrics as Synapse's would. HAProxy, the ledger
with its dead-man and the lease are on host a, where main and sync1 are; sync2 is on b. What a worker runs is set by `soft` (targets.py).
"""

import getpass
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
import yaml
from click.testing import CliRunner

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.releases import command
from rollout.interfaces.cli import cli
from rollout.lab.processes import wait_until
from rollout.lab.tool import Running
from rollout.model.gate import LATENCY_EDGES_S
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from tests.contracts.artefacts import write_configuration
from tests.end_to_end.site import Command, Said
from tests.hosts import proxies, small_worker, targets, units
from tests.hosts.agents import DIRECTORY, LEDGER
from tests.hosts.bed import USER, Bed

PLACES = {"main": "a", "sync1": "a", "sync2": "b"}
PORTS = {"main": 8008, "sync1": 8021, "sync2": 8022}
TARGET = "/srv/target"
STATE = f"{TARGET}/soft"
# What is installed from the beginning, what is good, what nobody installs, and what ends by itself after a while.
OLD, GOOD, NEVER, DYING = "2.0.0", "2.1.0", "2.2.0", small_worker.DYING
READMIT_AFTER_S = 5.0
TIMEOUT_S = 300.0
# Asks HAProxy on its host: argument 1 is its socket, argument 2 the question.
ASK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as one:
    one.connect(sys.argv[1])
    one.sendall(sys.argv[2].encode() + b"\\n")
    one.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: one.recv(65536), b"")).decode())
"""
REQUESTS_PER_S = 20.0
SOAK_S = 3.0

_PLAYBOOK = """\
name: small
strategy:
  role_order: [sync]
  drain_timeout_s: 30
  boot_timeout_s: 30
  progress_deadline_s: 240
  ramp: {weights: [100], step_s: 1}
  hold: {hold_s: 20, hold_max: 2000}
capacity: {utilisation_max: 9, p95_ratio_max: null}
baseline: {baseline_s: 3, sample_s: 1}
gates:
  - {id: errors, metric: error_ratio, max: 0.0, samples_min: 5, soak_s: SOAK_S, fresh_s: 10, deadline_s: 60}
watch: {watch_s: 12, window_s: 4}
"""


@dataclass(slots=True)
class Load:
    """What requests through the proxy came to: those that were answered, and when one wasn't (seconds since the epoch) and how."""

    answered: int = 0
    cut: list[tuple[float, str]] = field(default_factory=list)


class Small:
    """One of them, and `rollout` run on it from this machine; *place* takes what it needs and says."""

    def __init__(self, bed: Bed, place: Path) -> None:
        self.bed = bed
        self.place = place
        self.inventory = place / "inventory.yaml"
        self._playbook = place / "playbook.yaml"
        self._runs = 0
        self.soak(SOAK_S)
        self.write_inventory()

    @property
    def read(self) -> Inventory:
        return read_inventory(self.inventory)

    def soak(self, seconds: float) -> None:
        """Let workers be looked at for so long before they pass."""
        self._playbook.write_text(_PLAYBOOK.replace("SOAK_S", str(seconds)))

    def write_inventory(self, **releases: object) -> None:
        """Write it down, with further settings of the releases_driver."""
        at = self.bed.addresses
        urls = {name: f"http://{at[host]}:{PORTS[name]}" for name, host in PLACES.items()}
        homeserver = {
            "homeserver": "example.org",
            "kind": "synapse",
            "workers": {
                name: {
                    "role": "main" if name == "main" else "sync",
                    "pool": "main" if name == "main" else "sync",
                    "host": host,
                    "url": urls[name],
                    "metrics": f"{urls[name]}/_synapse/metrics",
                }
                for name, host in PLACES.items()
            },
            "pools": {"sync": {"backend": "sync"}, "main": {"backend": "main", "hold": True}},
            "workers_driver": {"driver": "systemd_ssh", **units.settings_for(self.bed), "connect_timeout_s": 2.0},
            "releases_driver": {
                "driver": "command",
                "target": TARGET,
                **targets.soft_commands(targets.SOFT, STATE),
                "room_bytes": 0,
                **releases,
            },
            "traffic_driver": {"driver": "haproxy", "sockets": [{"host": "a", "path": proxies.SOCKET, "master": proxies.MASTER}]},
            "metrics_driver": {"driver": "scrape"},
            "probe_driver": {"driver": "http"},
            "ledger_driver": {"driver": "ssh", "host": "a", "path": LEDGER, "readmit_after_s": READMIT_AFTER_S},
        }
        self.inventory.write_text(yaml.safe_dump(homeserver))

    def install(self) -> None:
        """Put onto the hosts what they need, as a person would, and start everything."""
        proxies.prepare(self.bed, "a")
        self.bed.write("a", "/etc/haproxy/haproxy.cfg", self._haproxy())
        for host in self.bed.addresses:
            targets.make(self.bed, host, TARGET)
            targets.soft_on(self.bed, host)
            self.bed.run(host, "install", "-d", "-m", "700", "-o", USER, DIRECTORY)
            self.bed.write(host, "/etc/sudoers.d/rollout", self._rules(host), "440")
            self.bed.write(host, "/srv/worker.py", Path(small_worker.__file__).read_text())
        self._first_release()
        edges = ",".join([*map(str, LATENCY_EDGES_S), "+Inf"])
        for name, host in PLACES.items():
            command = f"{proxies.PYTHON} /srv/worker.py {name} {PORTS[name]} {STATE} {edges}"
            units.install(self.bed, host, {units.TEMPLATE.format(worker=name): units.unit(command)})
            self.bed.run(host, "systemctl", "start", units.TEMPLATE.format(worker=name))
        self.bed.run("a", "systemctl", "restart", "haproxy")
        wait_until(lambda: self.bed.run("a", "sh", "-c", "ls /run/haproxy/admin.sock 2>/dev/null || true") != "", 10, "HAProxy answers")

    def _rules(self, host: str) -> str:
        return CliRunner().invoke(cli, ["sudoers", "-i", str(self.inventory), "--host", host], catch_exceptions=False).stdout

    def _first_release(self) -> None:
        with closing(command.build(self.read.releases_driver.settings(), self.read)) as releases:
            base = releases.prepare(releases.identify_first(OLD, write_configuration(self.place / "config")), TIMEOUT_S)
            for worker in PLACES:
                releases.activate(WorkerId(worker), base.id)

    def _haproxy(self) -> str:
        def server(name: str) -> str:
            return f"server {name} {self.bed.addresses[PLACES[name]]}:{PORTS[name]} check inter 200ms rise 1 fall 2 weight 100"

        return f"""\
global
    stats socket {proxies.SOCKET} mode 660 group haproxy level admin
    lua-load /etc/haproxy/hold.lua
    maxconn 5000
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout check 2s
    retries 0
    option http-server-close
    option httpchk GET /health
frontend clients
    bind :{proxies.PORT}
    use_backend main if {{ path_beg /main }}
    default_backend sync
backend sync
    balance roundrobin
    {server("sync1")}
    {server("sync2")}
backend main
    http-request lua.rollout_hold
    {server("main")}
"""

    @property
    def who(self) -> str:
        """Name whoever runs `rollout` here, as the lease has it."""
        return getpass.getuser()

    def start(self, *arguments: str, journal: str = "journal.db") -> Command:
        """Start `rollout`; use the answer in a `with` block."""
        self._runs += 1
        log = self.place / f"{self._runs}-{arguments[0]}.log"
        told = {"INVENTORY": self.inventory, "PLAYBOOK": self._playbook, "JOURNAL": self.place / journal, "MEASURE_S": "1"}
        environment = {**os.environ, **{f"ROLLOUT_{name}": str(value) for name, value in told.items()}}
        return Command(Running([sys.executable, "-m", "rollout", *arguments], environment, log), log)

    def run(self, *arguments: str, journal: str = "journal.db") -> Said:
        """Run `rollout` to its end."""
        with self.start(*arguments, journal=journal) as started:
            return started.end()

    def deploy(self, version: str = GOOD) -> Command:
        """Start to roll the sync workers, and write down each event."""
        return self.start("deploy", "--to", version, "--only", "role=sync", "--yes", "--events", "ndjson")

    def runs(self, name: str) -> str:
        """Return the release that a worker was started with last."""
        return self.starts()[name][-1]

    def starts(self) -> dict[str, list[str]]:
        """Return the releases that each worker was started with, in order."""
        return {name: self.bed.run(host, "cat", f"{STATE}/starts-{name}").split() for name, host in PLACES.items()}

    def in_traffic(self) -> Mapping[str, bool]:
        """Tell of each worker whether HAProxy itself says that it is up and gets requests."""
        told = self.bed.run("a", proxies.PYTHON, "-c", ASK, proxies.SOCKET, "show stat")
        rows = [line.split(",") for line in told.splitlines()]
        return {row[1]: row[17] == "UP" for row in rows if len(row) > 17 and row[1] in PLACES}

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Send requests through the proxy meanwhile."""
        load, ended = Load(), threading.Event()
        with ExitStack() as stack:
            for path in ("sync", "main"):
                thread = threading.Thread(target=self._send, args=(path, load, ended))
                thread.start()
                stack.callback(thread.join)
            stack.callback(ended.set)
            yield load

    def _send(self, path: str, load: Load, ended: threading.Event) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not ended.wait(1 / REQUESTS_PER_S):
                at_s = time.time()
                try:
                    answer = session.get(f"http://{self.bed.addresses['a']}:{proxies.PORT}/{path}", timeout=25)
                    said = "" if answer.status_code == 200 else f"{path}: {answer.status_code}"
                except requests.RequestException as error:
                    said = f"{path}: {type(error).__name__}"
                load.answered += not said
                if said:
                    load.cut.append((at_s, said))
