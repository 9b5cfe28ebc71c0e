"""`rbac`: what rollout has to be granted in a cluster."""

from collections.abc import Iterator
from pathlib import Path

import click

from rollout.engine.drivers import lease_settings
from rollout.interfaces.cli.opening import open_acting
from rollout.interfaces.cli.options import inventory_option
from rollout.interfaces.rbac_text import rbac_text
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import DriverSettings, Inventory
from rollout.ports.privileges import Granted, joined_grants


@click.command()
@click.option("--account", default="rollout", show_default=True, metavar="NAME", help="the ServiceAccount that rollout has there")
@inventory_option
def rbac(inventory_path: Path, account: str) -> int:
    """
    Print the ServiceAccount, Role and RoleBinding that rollout needs in the homeserver's namespace: each verb, and nothing else.

    Nothing is connected to.
    """
    drivers = open_acting(inventory_path, _leases)
    found = joined_grants(one for driver in drivers if isinstance(driver, Granted) for one in driver.grants())
    if not found:
        why = "no driver of this inventory acts in a cluster"
        raise InvalidFileError("rollout does nothing in a cluster, so nothing need be granted", where=str(inventory_path), why=why)
    click.echo(rbac_text(found, account), nl=False)
    return 0


def _leases(inventory: Inventory) -> Iterator[tuple[str, DriverSettings]]:
    """Name the lease's driver, if it may act in a cluster."""
    lease = lease_settings(inventory)
    if lease.driver not in {"file", "postgresql"}:
        yield "lease", lease
