"""
The simulated homeserver of homeserver.py for commands in processes of their own.

It stays in the test's process, and their drivers ask for it over a socket; ledger and lease are real files beside it. The commands find
these drivers as they would a third party's: by an entry point.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.managers import BaseManager, Server
from pathlib import Path
from typing import Any

from rollout.adapters.journal.sql import open_journal
from rollout.adapters.lease.file import FileLease
from rollout.model.event import Event
from rollout.model.ids import DeployId
from rollout.model.inventory import Inventory
from rollout.ports.journal import DeployLine, Journal
from rollout.ports.lease import Lease
from rollout.simulation.rehearse import Stage, set_stage
from tests.interfaces.homeserver import PLAYBOOK, RUNNING_S, RealClock

ROOT = Path(__file__).parents[2]
PORTS = ("workers", "releases", "traffic", "metrics", "probe")
_KEY = b"a test's own"
HOMESERVER = "simulated.localhost"
# A command's start takes some seconds on a busy machine.
COMMAND_TIMEOUT_S = 240.0
WAIT_S = 180.0


class Door:
    """What is asked for from outside."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def names(self, port: str) -> list[str]:
        return [name for name in dir(getattr(self._stage.drivers, port)) if not name.startswith("_")]

    def call(self, port: str, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:  # noqa: ANN401  (whatever the driver says)
        return getattr(getattr(self._stage.drivers, port), name)(*arguments, **named)


class _Manager(BaseManager):
    """Where the door is."""


class Remote:
    """A driver in another process."""

    def __init__(self, door: Any, port: str) -> None:  # noqa: ANN401  (a proxy that is made at run time)
        self._door, self._port = door, port
        self._names = frozenset(door.names(port))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self._names:
            raise AttributeError(name)
        return lambda *arguments, **named: self._door.call(self._port, name, arguments, named)


def _build(settings: Mapping[str, object], port: str) -> Remote:
    _Manager.register("door")
    manager = _Manager(("127.0.0.1", int(str(settings["at"]))), _KEY)
    manager.connect()
    return Remote(manager.door(), port)  # type: ignore[attr-defined]


def build_workers(settings: Mapping[str, object], _inventory: Inventory) -> Remote:
    return _build(settings, "workers")


def build_releases(settings: Mapping[str, object], _inventory: Inventory) -> Remote:
    return _build(settings, "releases")


def build_traffic(settings: Mapping[str, object], _inventory: Inventory) -> Remote:
    return _build(settings, "traffic")


def build_metrics(settings: Mapping[str, object], _inventory: Inventory) -> Remote:
    return _build(settings, "metrics")


def build_probe(settings: Mapping[str, object], _inventory: Inventory) -> Remote:
    return _build(settings, "probe")


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and what it printed."""

    code: int
    text: str


@dataclass(slots=True)
class Served:
    """Two client workers that other processes can reach, and files that name them."""

    directory: Path
    stage: Stage
    # Opened once: whoever opens a journal looks at its file first, and SQLite's locks go when a process closes one that it has open.
    journal: Journal

    def run(self, *arguments: str) -> Said:
        """Run a command to its end."""
        environment = {
            **os.environ,
            "ROLLOUT_INVENTORY": str(self.directory / "inventory.yaml"),
            "ROLLOUT_PLAYBOOK": str(self.directory / "playbook.yaml"),
            "ROLLOUT_JOURNAL": str(self.directory / "journal.db"),
            "ROLLOUT_MEASURE_S": "0",
            "XDG_STATE_HOME": str(self.directory / "state"),
            "PYTHONPATH": f"{ROOT}:{self.directory / 'lib'}",
        }
        done = subprocess.run(
            [sys.executable, "-m", "rollout", *arguments],
            env=environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        return Said(done.returncode, done.stdout + done.stderr)

    def line(self) -> DeployLine:
        return self.journal.deploys(HOMESERVER, 1)[0]

    def events(self, deploy_id: DeployId) -> list[Event]:
        return [event for _, event in self.journal.events(deploy_id)]

    def lease(self) -> Lease:
        found = FileLease(self.directory / "lease.json", HOMESERVER, 30.0).read(5.0)
        assert found is not None
        return found

    def logs(self) -> str:
        """What processes that watch on have said."""
        return "\n".join(path.read_text() for path in (self.directory / "state/rollout").glob("*.watch.log"))

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for something that takes a while on a busy machine."""
        end_s = time.monotonic() + WAIT_S
        while not until():
            assert time.monotonic() < end_s, self.logs()
            time.sleep(0.2)


@contextmanager
def served(directory: Path, watch_s: float) -> Iterator[Served]:
    """Set one up, and serve it. A worker boots within a second, and its sessions end in less."""
    stage = set_stage({"client1": ("client", "client"), "client2": ("client", "client")})
    stage.world.clock = RealClock()
    stage.world.boot_s, stage.world.session_life_s = 0.3, 0.5
    for worker in stage.world.workers.values():
        worker.started_at_s = time.time() - RUNNING_S
    _Manager.register("door", lambda: Door(stage))
    server: Server = _Manager(("127.0.0.1", 0), _KEY).get_server()
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    assert isinstance(server.address, tuple)
    _write(directory, server.address[1], watch_s)
    journal = open_journal(str(directory / "journal.db"))
    yield Served(directory, stage, journal)
    journal.close()


def _serve(server: Server) -> None:
    try:
        server.serve_forever()
    except SystemExit:
        return


def _write(directory: Path, at: int, watch_s: float) -> None:
    driver = {"driver": "served", "at": at}
    inventory = {
        "homeserver": HOMESERVER,
        "workers": {
            name: {"role": "client", "pool": "client", "url": f"http://127.0.0.1:{port}", "metrics": f"http://127.0.0.1:{port}"}
            for port, name in enumerate(("client1", "client2"), 1)
        },
        "pools": {"client": {"backend": "client"}},
        **{f"{port}_driver": driver for port in PORTS},
        "ledger_driver": {"driver": "file", "path": str(directory / "ledger.json")},
        "lease_driver": {"driver": "file", "path": str(directory / "lease.json")},
    }
    quick: dict[str, Any] = {**PLAYBOOK}
    # On a busy machine a look takes as long as it takes.
    strategy = {**quick["strategy"], "drain_timeout_s": 60, "boot_timeout_s": 60, "progress_deadline_s": 600}
    gates = [{"id": "errors", "metric": "error_ratio", "max": 0.02, "samples_min": 5, "soak_s": 0.2, "fresh_s": 30, "deadline_s": 120}]
    playbook = {**quick, "strategy": strategy, "gates": gates, "watch": {"watch_s": watch_s, "window_s": 1}}
    (directory / "inventory.yaml").write_text(json.dumps(inventory))
    (directory / "playbook.yaml").write_text(json.dumps(playbook))
    info = directory / "lib/served-1.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: served\nVersion: 1\n")
    rows = "\n".join(f"{port}.served = tests.interfaces.served:build_{port}" for port in PORTS)
    info.joinpath("entry_points.txt").write_text(f"[rollout.drivers]\n{rows}\n")
