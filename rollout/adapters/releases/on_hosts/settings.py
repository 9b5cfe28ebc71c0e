"""Where releases are made, as the inventory says."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from rollout.adapters.problem import Problem
from rollout.adapters.settings import FilePath, InvalidSettingsError, Settings, check, refused
from rollout.adapters.ssh_hosts import HostEntry, jumps_that_lead_nowhere
from rollout.adapters.wording import shortened
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory

WHERE = "releases_driver"
# What a worker has as its host if it doesn't say: the machine that rollout runs on.
LOCAL = "local"
# It becomes the name of a directory, and a word of commands.
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~:_-]{0,99}")


def _is_absolute(path: Path) -> Path:
    if not path.is_absolute() or "\n" in str(path) or path == Path("/"):
        raise refused(f"target can't be {shortened(str(path))!r}", "a directory on the hosts, from / on, such as /opt/synapse")
    return path


Target = Annotated[FilePath, AfterValidator(_is_absolute)]


class HostsSettings(Settings):
    """
    *target*: the directory on each host. *hosts*: by the names that workers have as their `host`; those of the workers_driver if absent.
    *python*: what makes environments there.
    """

    target: Target
    hosts: dict[str, HostEntry] = Field(default={})
    python: str = "python3"
    connect_timeout_s: float = Field(default=10.0, gt=0, le=60)


class _OfWorkers(Settings):
    """The same hosts, where the workers_driver has them."""

    hosts: dict[str, HostEntry]


def hosts_of(settings: HostsSettings, inventory: Inventory) -> dict[str, HostEntry]:
    """Return the hosts that carry workers, or lead to one. Raises InvalidSettingsError with all that is wrong."""
    if not settings.hosts and (others := _of_workers(inventory)) is not None:
        try:
            return check(_OfWorkers, {"hosts": others}, WHERE).hosts
        except InvalidSettingsError:
            # The driver whose they are says so, in their place.
            return {}
    if problems := (*jumps_that_lead_nowhere(settings.hosts), *_nowhere(settings.hosts, inventory)):
        raise InvalidSettingsError(WHERE, problems)
    return settings.hosts


def on_hosts(settings: Mapping[str, object], inventory: Inventory) -> bool:
    """Tell whether releases are made on hosts: those of the driver itself, or those that the workers run on."""
    return "hosts" in settings or _of_workers(inventory) is not None


def _of_workers(inventory: Inventory) -> object | None:
    """Return the hosts of the workers_driver as they stand there; of a third party's nobody knows what they are."""
    driver = inventory.workers_driver
    return driver.settings().get("hosts") if driver.driver == "systemd_ssh" else None


def places_of(inventory: Inventory) -> dict[WorkerId, str]:
    """Say which host each worker is on, main first."""
    workers = sorted(inventory.workers, key=lambda worker: inventory.workers[worker].role != "main")
    return {worker: inventory.workers[worker].host for worker in workers}


def check_version(version: str) -> None:
    """Raise PermanentDriverError for a version that can't be the name of a release."""
    if _VERSION.fullmatch(version) is None:
        raise PermanentDriverError(
            f"a version can't be called {shortened(version)!r}", remedy="letters, digits and . + ~ : _ -, the first a letter or a digit"
        )


def _nowhere(hosts: Mapping[str, HostEntry], inventory: Inventory) -> Iterator[Problem]:
    for worker, entry in inventory.workers.items():
        if entry.host not in hosts and entry.host != LOCAL:
            what = f"worker {worker} is on host {entry.host!r}, which is not among the hosts"
            yield Problem(("hosts",), what, f"its host: one of {', '.join([*hosts, LOCAL])}")
