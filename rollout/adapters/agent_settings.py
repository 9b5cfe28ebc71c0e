"""What the inventory says of a place on a host where the agent is asked, checked as a whole."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from rollout.adapters.problem import Problem
from rollout.adapters.settings import InvalidSettingsError, Settings, check, refused
from rollout.adapters.ssh_hosts import HostEntry, hosts_of_others, jumps_that_lead_nowhere
from rollout.adapters.wording import shortened
from rollout.model.inventory import Inventory

# What stands in sudoers as it is.
_PATH = re.compile(r"/[A-Za-z0-9_./-]{1,200}")


def is_path(path: str) -> bool:
    return _PATH.fullmatch(path) is not None and ".." not in path


def _is_path(path: str) -> str:
    if not is_path(path):
        remedy = "a whole path of letters, digits and _ . / -, such as /var/lib/rollout/ledger.json"
        raise refused(f"path can't be {shortened(path)!r}", remedy)
    return path


HostPath = Annotated[str, AfterValidator(_is_path)]


class AgentSettings(Settings):
    """
    *host*: by its name in *hosts*, or among the hosts of another driver. *path*: the file there; its directory holds the agent, too.
    *python*: the one that runs the agent there.
    """

    host: str
    path: HostPath
    hosts: dict[str, HostEntry] = Field(default={})
    python: HostPath = "/usr/bin/python3"
    connect_timeout_s: float = Field(default=10.0, gt=0, le=60)

    @property
    def directory(self) -> PurePosixPath:
        return PurePosixPath(self.path).parent


_Checked = TypeVar("_Checked", bound=AgentSettings)


def with_hosts(kind: type[_Checked], settings: Mapping[str, object], inventory: Inventory, where: str) -> _Checked:
    """Check settings, and add the hosts of other drivers to theirs. Raises InvalidSettingsError with all that is wrong."""
    checked = check(kind, settings, where)
    hosts = {**hosts_of_others(inventory), **checked.hosts}
    problems = list(jumps_that_lead_nowhere(hosts))
    if checked.host not in hosts:
        known = f"one of {', '.join(sorted(hosts))}" if hosts else "hosts: {NAME: {address: …, user: …}}"
        problems.append(Problem(("host",), f"there is no host {checked.host!r}", known))
    if problems:
        raise InvalidSettingsError(where, tuple(problems))
    return checked.model_copy(update={"hosts": hosts})
