"""Files, drivers and journal, opened."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.drivers import explained
from rollout.adapters.documents.read import inventory_in, read_document
from rollout.adapters.journal.sql import open_journal
from rollout.engine.deploy import Site
from rollout.engine.drivers import Drivers, open_drivers
from rollout.engine.leasing import Tenure
from rollout.model.errors import DriverError, InvalidFileError, RefusedError
from rollout.model.inventory import Inventory
from rollout.ports.clock import Clock
from rollout.ports.journal import DeployLine, Journal


@dataclass(frozen=True, slots=True)
class Opened:
    """A homeserver that can be looked at."""

    inventory: Inventory
    drivers: Drivers
    clock: Clock
    operator: str

    def site(self, journal: Journal, tenure: Tenure) -> Site:
        """Return what the engine needs to roll it."""
        return Site(self.inventory, self.drivers, journal, self.clock, self.operator, tenure)


def open_homeserver(inventory_path: Path) -> Opened:
    """Read the inventory and open its drivers, connecting to nothing yet. Raises InvalidFileError."""
    # Read once: what comes out of a pipe is gone then.
    document = read_document(inventory_path)
    inventory = inventory_in(document)
    try:
        drivers = open_drivers(inventory)
    except InvalidFileError as error:
        # A driver knows its settings, but not where they stand.
        raise explained(document, inventory) or error from None
    _close_at_the_end(drivers)
    return Opened(inventory, drivers, SystemClock(), operator())


def _close_at_the_end(drivers: Drivers) -> None:
    """A driver may keep a connection, which the command ends with."""
    context = click.get_current_context(silent=True)
    for driver in (drivers.database, drivers.workers):
        close = getattr(driver, "close", None)
        if context is not None and close is not None:
            context.call_on_close(close)


def open_user_journal(place: str | None) -> Journal:
    """Open the journal that was named, or the user's own."""
    return open_journal(place)


def newest(journal: Journal, homeserver: str) -> DeployLine | None:
    """Return the newest rollout of a homeserver."""
    return next(iter(journal.deploys(homeserver, 1)), None)


def operator() -> str:
    """Say who is at work, for the journal and for whoever is kept out meanwhile."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def before_anything() -> Iterator[None]:
    """Nothing has been touched yet: a driver that fails now refuses the rollout."""
    try:
        yield
    except DriverError as error:
        raise RefusedError(error.what, where=error.where, why=error.why, remedy=error.remedy) from error
