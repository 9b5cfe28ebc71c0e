"""What the inventory says of HAProxy's sockets, checked as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from rollout.adapters.problem import Problem
from rollout.adapters.settings import FilePath, InvalidSettingsError, Settings, refused
from rollout.adapters.traffic.hosts import WHERE, OnHosts, checked_with_hosts, unknown
from rollout.adapters.wording import shortened
from rollout.model.inventory import Inventory


class ProxySocket(Settings):
    """One proxy: its stats socket, and its master's (`-S`) if it has one, on *host*; on this machine if that is absent."""

    path: FilePath
    host: str | None = None
    master: FilePath | None = None


def _in_full(written: object) -> object:
    """Take a path alone for a socket on this machine."""
    if isinstance(written, str):
        return {"path": written}
    if not isinstance(written, Mapping):
        raise refused("an entry of sockets must be a path, or a mapping", "{host: …, path: /run/haproxy/admin.sock}")
    return written


def _each_once(sockets: tuple[ProxySocket, ...]) -> tuple[ProxySocket, ...]:
    # A proxy that is asked twice would count twice.
    places = [(one.host, one.path) for one in sockets]
    if twice := [(host, str(path)) for host, path in dict.fromkeys(places) if places.count((host, path)) > 1]:
        host, path = twice[0]
        raise refused(f"sockets names {shortened(path)}{'' if host is None else f' of host {shortened(host)}'} twice", "remove one of them")
    return sockets


@dataclass(slots=True)
class Grouped:
    """The sockets of one place, in the inventory's order."""

    sockets: tuple[str, ...] = ()
    masters: tuple[str, ...] = ()


class HaproxySettings(OnHosts):
    """
    *sockets*: every proxy in front of the homeserver; all must agree. *master_socket*: HAProxy's master (`-S`) on this machine, if it has
    one.

    Without a master there is no reload that leaves old processes behind.
    """

    sockets: Annotated[tuple[Annotated[ProxySocket, BeforeValidator(_in_full)], ...], Field(min_length=1), AfterValidator(_each_once)]
    master_socket: FilePath | None = None

    def by_place(self) -> tuple[Grouped, dict[str, Grouped]]:
        """Return what is on this machine, and what is on each host."""
        here = Grouped(masters=() if self.master_socket is None else (str(self.master_socket.absolute()),))
        hosts: dict[str, Grouped] = {}
        for one in self.sockets:
            group = here if one.host is None else hosts.setdefault(one.host, Grouped())
            whole = Path.absolute if one.host is None else Path
            group.sockets += (str(whole(one.path)),)
            if one.master is not None and str(whole(one.master)) not in group.masters:
                group.masters += (str(whole(one.master)),)
        return here, hosts


def read_settings(settings: Mapping[str, object], inventory: Inventory) -> HaproxySettings:
    """Check the settings. Raises InvalidSettingsError."""
    checked = checked_with_hosts(HaproxySettings, settings, inventory)
    named = ((("sockets", number, "host"), one.host) for number, one in enumerate(checked.sockets) if one.host is not None)
    problems = [*unknown(checked.hosts, named)]
    for number, one in enumerate(checked.sockets):
        for key, path in (("path", one.path), ("master", one.master)):
            if one.host is not None and path is not None and not path.is_absolute():
                what = f"{key} on a host must be a whole path, not {shortened(str(path))}"
                problems.append(Problem(("sockets", number, key), what, f"/run/haproxy/{path.name}"))
    if problems:
        raise InvalidSettingsError(WHERE, tuple(problems))
    return checked
