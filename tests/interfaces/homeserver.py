"""A simulated homeserver in real time, reached by the command line through inventory, registry and drivers like any other."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from rollout.adapters import registry
from rollout.adapters.journal.sql import open_journal
from rollout.engine import readiness
from rollout.engine.drivers import Drivers
from rollout.homeservers.synapse import hazards
from rollout.interfaces.cli import cli
from rollout.model.inventory import Inventory
from rollout.ports.journal import Journal
from rollout.simulation.database import SimulatedDatabase
from rollout.simulation.lease import SimulatedLease
from rollout.simulation.rehearse import Stage, set_stage
from rollout.simulation.virtual_clock import VirtualClock

STAGES: dict[str, Stage] = {}

# How long the workers have been running: said in as many letters in an hour's time, since golden messages are compared to the letter.
RUNNING_S = 2.5 * 86_400

PLAYBOOK = {
    "name": "quick",
    "strategy": {"ramp": {"weights": [100], "step_s": 0}, "drain_timeout_s": 10, "boot_timeout_s": 10, "progress_deadline_s": 60},
    "baseline": {"baseline_s": 0, "sample_s": 0.2},
    "watch": {"watch_s": 1, "window_s": 1},
    # From 1.0.0 to 2.0.0 all of them are crossed.
    "accept_hazards": list(hazards.ids()),
    "gates": [
        {"id": "errors", "metric": "error_ratio", "max": 0.02, "samples_min": 5, "soak_s": 0.2, "fresh_s": 5, "deadline_s": 10},
    ],
}


class RealClock(VirtualClock):
    """The machine's, for a world that is driven by threads."""

    def now_s(self) -> float:
        """Tell the time."""
        return time.time()

    def elapsed_s(self) -> float:
        """Tell how much has gone by."""
        return time.monotonic()


def _drivers(settings: Mapping[str, object]) -> Drivers:
    return STAGES[str(settings["stage"])].drivers


def build_workers(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).workers


def build_releases(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).releases


def build_traffic(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).traffic


def build_metrics(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).metrics


def build_probe(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).probe


def build_database(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).database


def build_ledger(settings: Mapping[str, object], _inventory: Inventory) -> object:
    return _drivers(settings).ledger


def build_lease(settings: Mapping[str, object], _inventory: Inventory) -> object:
    world = STAGES[str(settings["stage"])].world
    # Each process has one of its own, as it would.
    return SimulatedLease(world.lease, world.clock.now_s)


PORTS = ("workers", "releases", "traffic", "metrics", "probe", "ledger", "lease")


def with_database(site: "Homeserver", monkeypatch: pytest.MonkeyPatch) -> SimulatedDatabase:
    """Give it a database, in which what goes on is what a test says."""
    database = SimulatedDatabase(site.stage.world.clock)
    site.stage.drivers = replace(site.stage.drivers, database=database)
    monkeypatch.setitem(registry.DRIVERS["database"], "simulated", f"{__name__}:build_database")
    inventory = json.loads(site.inventory.read_text())
    site.inventory.write_text(json.dumps(inventory | {"database_driver": {"driver": "simulated", "stage": str(site.directory)}}))
    return database


@dataclass(slots=True)
class Homeserver:
    """Two client workers, and files that name them. The load is measured for *measure_s*. *run* runs a command line on them."""

    directory: Path
    stage: Stage
    command: click.Command = field(default=cli)
    measure_s: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory.yaml"

    @property
    def playbook(self) -> Path:
        return self.directory / "playbook.yaml"

    @property
    def journal(self) -> Journal:
        return open_journal(str(self.directory / "journal.db"))

    def run(self, *arguments: str) -> Result:
        environment = {
            "ROLLOUT_INVENTORY": str(self.inventory),
            "ROLLOUT_PLAYBOOK": str(self.playbook),
            "ROLLOUT_JOURNAL": str(self.directory / "journal.db"),
            "ROLLOUT_MEASURE_S": str(self.measure_s),
            **self.environment,
        }
        return CliRunner().invoke(self.command, arguments, env=environment)


def homeserver(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Homeserver:
    """Set one up. Sessions end within half a second, and a worker boots in less."""
    stage = set_stage({"client1": ("client", "client"), "client2": ("client", "client")})
    stage.world.clock = RealClock()
    for worker in stage.world.workers.values():
        worker.started_at_s = time.time() - RUNNING_S
    stage.world.boot_s = 0.3
    stage.world.session_life_s = 0.5
    STAGES[str(directory)] = stage
    # A simulated page moves all the time.
    monkeypatch.setattr(readiness, "APART_S", 0.05)
    for port in PORTS:
        monkeypatch.setitem(registry.DRIVERS[port], "simulated", f"{__name__}:build_{port}")
    driver = {"driver": "simulated", "stage": str(directory)}
    inventory = {
        "homeserver": "simulated.localhost",
        "workers": {
            name: {"role": "client", "pool": "client", "url": f"http://127.0.0.1:{port}", "metrics": f"http://127.0.0.1:{port}"}
            for port, name in enumerate(("client1", "client2"), 1)
        },
        "pools": {"client": {"backend": "client"}},
        **{f"{port}_driver": driver for port in PORTS},
    }
    made = Homeserver(directory, stage)
    made.inventory.write_text(json.dumps(inventory))
    made.playbook.write_text(json.dumps(PLAYBOOK))
    return made
