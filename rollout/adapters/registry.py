"""
Which drivers there are, by port and name, and where.

A literal table of paths that are imported only when a driver is opened, so that nobody loads a library that their homeserver doesn't
need. Third parties add theirs through the entry-point group `rollout.drivers`, under the name `port.driver`.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points

from rollout.adapters.secrecy import plain_name
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import DriverSettings, Inventory

GROUP = "rollout.drivers"

# Each path names a function (settings: Mapping[str, object], inventory: Inventory) -> driver.
DRIVERS: dict[str, dict[str, str]] = {
    "workers": {
        "supervisor": "rollout.adapters.workers.supervisor:build",
        "systemd_ssh": "rollout.adapters.workers.systemd_ssh:build",
        "kubernetes": "rollout.adapters.workers.kubernetes:build",
    },
    "releases": {
        "venv": "rollout.adapters.releases.venv:build",
        "command": "rollout.adapters.releases.command:build",
        "kubernetes": "rollout.adapters.releases.kubernetes:build",
    },
    "traffic": {
        "haproxy": "rollout.adapters.traffic.haproxy:build",
        "nginx": "rollout.adapters.traffic.nginx:build",
        "kubernetes": "rollout.adapters.traffic.kubernetes:build",
    },
    "metrics": {
        "scrape": "rollout.adapters.metrics.scrape:build",
        "prometheus": "rollout.adapters.metrics.prometheus:build",
    },
    "history": {"prometheus": "rollout.adapters.history.prometheus:build"},
    "probe": {"http": "rollout.adapters.probe.http:build"},
    "database": {"postgresql": "rollout.adapters.database.postgresql:build"},
    "notifier": {"webhook": "rollout.adapters.notifier.webhook:build"},
    "warming": {"application_service": "rollout.adapters.warming.application_service:build"},
    "ledger": {
        "file": "rollout.adapters.ledger.file:build",
        "ssh": "rollout.adapters.ledger.ssh:build",
        "kubernetes": "rollout.adapters.ledger.kubernetes:build",
    },
    "lease": {
        "file": "rollout.adapters.lease.file:build",
        "postgresql": "rollout.adapters.lease.postgresql:build",
        "ssh": "rollout.adapters.lease.ssh:build",
        "kubernetes": "rollout.adapters.lease.kubernetes:build",
    },
}


def open_driver(port: str, settings: DriverSettings, inventory: Inventory) -> object:
    """Open a driver. Raises InvalidFileError when there is no such driver, or when it doesn't accept its settings."""
    builtin = DRIVERS[port].get(settings.driver)
    if builtin is not None:
        module, name = builtin.split(":")
        build: Callable[..., object] = getattr(importlib.import_module(module), name)
        return build(settings.settings(), inventory)
    for entry in entry_points(group=GROUP, name=f"{port}.{settings.driver}"):
        loaded: Callable[..., object] = entry.load()
        return loaded(settings.settings(), inventory)
    known = ", ".join(sorted({*DRIVERS[port], *_foreign(port)}))
    raise InvalidFileError(
        f"there is no driver {plain_name(settings.driver)!r} for {port}",
        where=f"{port}_driver",
        why=f"drivers are: {known}",
        remedy=f"driver: {next(iter(DRIVERS[port]))}",
    )


def _foreign(port: str) -> set[str]:
    return {entry.name.removeprefix(f"{port}.") for entry in entry_points(group=GROUP) if entry.name.startswith(f"{port}.")}
