"""What the inventory says of hosts and units, checked as a whole."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from rollout.adapters.problem import Problem
from rollout.adapters.settings import InvalidSettingsError, Settings, check, refused
from rollout.adapters.ssh_hosts import HostEntry, jumps_that_lead_nowhere
from rollout.adapters.wording import shortened
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory

WHERE = "workers_driver"
# What systemd allows in a name, but for the backslash: that would need quoting of three kinds in sudoers.
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]{0,246}\.service")


def _is_unit(unit: str) -> str:
    if _UNIT.fullmatch(unit) is None:
        raise refused(f"a unit can't be called {shortened(unit)!r}", "letters, digits and : _ . @ -, and .service at the end")
    return unit


_Unit = Annotated[str, AfterValidator(_is_unit)]


class SystemdSshSettings(Settings):
    """
    *hosts*: by the names that workers have as their `host`. *unit*: the unit of each worker, by its id; *units*: of those whose unit is
    called otherwise, such as main's.
    """

    hosts: dict[str, HostEntry] = Field(min_length=1)
    unit: str = "matrix-synapse-worker@{worker}.service"
    units: dict[WorkerId, _Unit] = Field(default={})
    connect_timeout_s: float = Field(default=10.0, gt=0, le=60)


class Named(Settings):
    """A unit's name, once a worker's id stands in it."""

    unit: _Unit


def read_settings(settings: Mapping[str, object], inventory: Inventory) -> tuple[SystemdSshSettings, dict[WorkerId, tuple[str, str]]]:
    """Return the settings, and (host, unit) of each worker. Raises InvalidSettingsError with all that is wrong."""
    checked = check(SystemdSshSettings, settings, WHERE)
    places = {
        worker: (entry.host, checked.units.get(worker, checked.unit.replace("{worker}", worker)))
        for worker, entry in inventory.workers.items()
    }
    if problems := (*jumps_that_lead_nowhere(checked.hosts), *_problems(checked, places, inventory)):
        raise InvalidSettingsError(WHERE, problems)
    for worker, (_, unit) in places.items():
        if worker not in checked.units:
            check(Named, {"unit": unit}, WHERE)
    return checked, places


def _problems(settings: SystemdSshSettings, places: Mapping[WorkerId, tuple[str, str]], inventory: Inventory) -> Iterator[Problem]:
    known = ", ".join(settings.hosts)
    for worker, (host, _) in places.items():
        if host not in settings.hosts:
            yield Problem(("hosts",), f"worker {worker} is on host {host!r}, which is not among the hosts", f"its host: one of {known}")
    for worker in settings.units:
        if worker not in inventory.workers:
            yield Problem(("units", worker), f"there is no worker {worker!r}", "the id of a worker", at_key=True)
    taken: dict[tuple[str, str], WorkerId] = {}
    for worker, place in places.items():
        other = taken.setdefault(place, worker)
        if other != worker:
            yield Problem(("unit",), f"{other} and {worker} are one unit, {place[1]}", "{worker} in unit, or each one's own name in units")
