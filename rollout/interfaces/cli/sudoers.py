"""`sudoers`: what rollout has to be allowed on the hosts."""

from collections.abc import Iterator
from pathlib import Path

import click

from rollout.adapters.documents.drivers import explained
from rollout.adapters.documents.read import inventory_in, read_document
from rollout.adapters.registry import open_driver
from rollout.interfaces.cli.options import inventory_option
from rollout.interfaces.sudoers_text import sudoers_text
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import DriverSettings, Inventory
from rollout.ports.privileges import Privileged, joined


@click.command()
@click.option("--host", "only", metavar="HOST", help="only the file of this host, ready to be installed there")
@inventory_option
def sudoers(inventory_path: Path, only: str | None) -> int:
    """
    Print the sudo rules that rollout needs on the homeserver's hosts: each command word for word, and nothing else.

    Nothing is connected to, and no secret that the inventory refers to is needed.
    """
    document = read_document(inventory_path)
    inventory = inventory_in(document)
    try:
        drivers = [open_driver(port, settings, inventory) for port, settings in _acting_on_hosts(inventory)]
    except InvalidFileError as error:
        # A driver knows its settings, but not where they stand.
        raise explained(document, inventory) or error from None
    found = joined(one for driver in drivers if isinstance(driver, Privileged) for one in driver.privileges())
    if not found:
        raise InvalidFileError(
            "rollout does nothing as root there, so sudo need allow nothing",
            where=str(inventory_path),
            why="the workers_driver acts with the rights of whoever runs rollout",
        )
    chosen = [one for one in found if only in {None, one.host}]
    if not chosen:
        raise InvalidFileError(
            f"rollout does nothing as root on host {only!r}", where=str(inventory_path), remedy=", ".join(one.host for one in found)
        )
    click.echo(sudoers_text(chosen), nl=False)
    return 0


def _acting_on_hosts(inventory: Inventory) -> Iterator[tuple[str, DriverSettings]]:
    """Name the drivers that may act as root. A ledger that is a file never does, and would look for its secret here."""
    yield "workers", inventory.workers_driver
    if inventory.ledger_driver.driver != "file":
        yield "ledger", inventory.ledger_driver
