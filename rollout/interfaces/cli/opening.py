"""Files, drivers and journal, opened."""

import getpass
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.drivers import explained
from rollout.adapters.documents.read import inventory_in, read_document
from rollout.adapters.journal.sql import open_journal
from rollout.adapters.registry import open_driver
from rollout.engine.deploy import Site
from rollout.engine.drivers import Drivers, open_drivers
from rollout.engine.leasing import Tenure
from rollout.model.errors import DriverError, InvalidFileError, RefusedError
from rollout.model.inventory import DriverSettings, Inventory
from rollout.ports.clock import Clock
from rollout.ports.journal import DeployLine, Journal

_T = TypeVar("_T")


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
    inventory, drivers = _read_and_open(inventory_path, open_drivers)
    _close_at_the_end(drivers)
    return Opened(inventory, drivers, SystemClock(), operator())


def open_acting(inventory_path: Path, more: Callable[[Inventory], Iterable[tuple[str, DriverSettings]]] = lambda _: ()) -> list[object]:
    """
    Open the drivers that act on workers, releases and traffic, the ledger's, and *more*; connects to nothing. Raises InvalidFileError.

    A ledger that is a file needs no rights, and would look for its secret here.
    """

    def opened(inventory: Inventory) -> list[object]:
        acting = [("workers", inventory.workers_driver), ("releases", inventory.releases_driver), ("traffic", inventory.traffic_driver)]
        if inventory.ledger_driver.driver != "file":
            acting.append(("ledger", inventory.ledger_driver))
        return [open_driver(port, settings, inventory) for port, settings in (*acting, *more(inventory))]

    return _read_and_open(inventory_path, opened)[1]


def _read_and_open(inventory_path: Path, opened: Callable[[Inventory], _T]) -> tuple[Inventory, _T]:
    # Read once: what comes out of a pipe is gone then.
    document = read_document(inventory_path)
    inventory = inventory_in(document)
    try:
        return inventory, opened(inventory)
    except InvalidFileError as error:
        # A driver knows its settings, but not where they stand.
        raise explained(document, inventory) or error from None


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
