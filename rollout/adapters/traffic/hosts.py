"""What the inventory says of the hosts that proxies are on: the same for every kind of proxy."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from rollout.adapters.problem import Problem
from rollout.adapters.remote_program import PYTHON
from rollout.adapters.settings import InvalidSettingsError, Settings, check, refused
from rollout.adapters.ssh_hosts import HostEntry, hosts_of_others, jumps_that_lead_nowhere
from rollout.model.inventory import Inventory

WHERE = "traffic_driver"
# It stands in a command, and in sudoers for some: no spaces, and nothing that a shell or sudo takes for its own.
_PROGRAM = re.compile(r"/[A-Za-z0-9/._+-]+")


def _is_program(path: str) -> str:
    if _PROGRAM.fullmatch(path) is None:
        raise refused(f"python can't be {path!r}", "a whole path, such as /usr/bin/python3")
    return path


class OnHosts(Settings):
    """
    *hosts*: as for the workers; those that other drivers name are known already. *python*: Python there, 3.10 or newer, with which
    the proxy is asked.
    """

    hosts: dict[str, HostEntry] = Field(default={})
    connect_timeout_s: float = Field(default=10.0, gt=0, le=60)
    python: Annotated[str, AfterValidator(_is_program)] = PYTHON


_Checked = TypeVar("_Checked", bound=OnHosts)


def checked_with_hosts(kind: type[_Checked], settings: Mapping[str, object], inventory: Inventory) -> _Checked:
    """Check settings, and add the hosts that other drivers name. Raises InvalidSettingsError."""
    checked = check(kind, settings, WHERE)
    hosts = {**hosts_of_others(inventory), **checked.hosts}
    # Of others' hosts their own driver says what is wrong.
    if problems := tuple(problem for problem in jumps_that_lead_nowhere(hosts) if problem.path[1] in checked.hosts):
        raise InvalidSettingsError(WHERE, problems)
    return checked.model_copy(update={"hosts": hosts})


def unknown(hosts: Mapping[str, HostEntry], named: Iterable[tuple[tuple[str | int, ...], str]]) -> Iterator[Problem]:
    """Say which hosts are *named* (where, and how) and not known."""
    for path, name in named:
        if name not in hosts:
            yield Problem(path, f"there is no host {name!r}", ", ".join(sorted(hosts)) or f"hosts: {{{name}: {{address: …, user: …}}}}")
