"""The ports of one homeserver, opened."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rollout.adapters.registry import open_driver
from rollout.model.errors import InvalidFileError
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings, Inventory
from rollout.ports.database import Database
from rollout.ports.history import History
from rollout.ports.lease import LeaseKeeper
from rollout.ports.ledger import Ledger
from rollout.ports.metrics import Metrics
from rollout.ports.notifier import Notifier
from rollout.ports.probe import Probe
from rollout.ports.releases import Releases
from rollout.ports.traffic import Server, Traffic
from rollout.ports.warming import Warming
from rollout.ports.workers import Workers

# How a file beside the ledger is reached.
_WHERE = frozenset({"host", "hosts", "python", "connect_timeout_s"})


@dataclass(frozen=True, slots=True)
class Drivers:
    """Everything that acts on, or looks at, one homeserver; what is None isn't named."""

    workers: Workers
    releases: Releases
    traffic: Traffic
    metrics: Metrics
    probe: Probe
    ledger: Ledger
    lease: LeaseKeeper
    database: Database | None
    warming: Warming | None = None
    notifier: Notifier | None = None
    history: History | None = None


def open_drivers(inventory: Inventory) -> Drivers:
    """Open every port that the inventory names, connecting to nothing yet. Raises InvalidFileError for settings that don't fit."""
    database, warming, notifier = inventory.database_driver, inventory.warming_driver, inventory.notifier_driver
    history = inventory.history_driver
    return Drivers(
        workers=cast("Workers", open_driver("workers", inventory.workers_driver, inventory)),
        releases=cast("Releases", open_driver("releases", inventory.releases_driver, inventory)),
        traffic=cast("Traffic", open_driver("traffic", inventory.traffic_driver, inventory)),
        metrics=cast("Metrics", open_driver("metrics", inventory.metrics_driver, inventory)),
        probe=cast("Probe", open_driver("probe", inventory.probe_driver, inventory)),
        ledger=cast("Ledger", open_driver("ledger", inventory.ledger_driver, inventory)),
        lease=cast("LeaseKeeper", open_driver("lease", lease_settings(inventory), inventory)),
        notifier=None if notifier is None else cast("Notifier", open_driver("notifier", notifier, inventory)),
        warming=None if warming is None else cast("Warming", open_driver("warming", warming, inventory)),
        database=None if database is None else cast("Database", open_driver("database", database, inventory)),
        history=None if history is None else cast("History", open_driver("history", history, inventory)),
    )


def lease_settings(inventory: Inventory) -> DriverSettings:
    """Say where the lease is kept: where the inventory says, or else beside the ledger. Raises InvalidFileError."""
    if inventory.lease_driver is not None:
        return inventory.lease_driver
    if inventory.ledger_driver.driver == "kubernetes":
        return DriverSettings(driver="kubernetes")
    ledger = inventory.ledger_driver.settings().get("path")
    if not isinstance(ledger, str):
        raise InvalidFileError(
            "there is no lease_driver, and the ledger is no file that a lease could lie beside",
            where="ledger_driver",
            remedy="lease_driver: {driver: file, path: …}",
        )
    path = str(Path(ledger).with_name("lease.json"))
    if inventory.ledger_driver.driver == "ssh":
        same = {name: value for name, value in inventory.ledger_driver.settings().items() if name in _WHERE}
        return DriverSettings.model_validate({"driver": "ssh", **same, "path": path})
    return DriverSettings.model_validate({"driver": "file", "path": path})


def servers(inventory: Inventory) -> dict[WorkerId, Server]:
    """Say where each proxied worker stands at the proxy."""
    return {
        worker: Server(inventory.pools[entry.pool].backend, entry.server or worker)
        for worker, entry in inventory.workers.items()
        if entry.pool is not None
    }
