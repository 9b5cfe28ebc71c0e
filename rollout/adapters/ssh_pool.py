"""The hosts that an inventory names, each with one kept connection, made when it is first used."""

import json
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import ValidationError

from rollout.adapters.ssh_hosts import HostEntry
from rollout.model.inventory import Inventory

if TYPE_CHECKING:
    from rollout.adapters.ssh import Host


class Hosts:
    """Connections by the hosts' names; for use by several threads."""

    def __init__(self, entries: Mapping[str, HostEntry], connect_timeout_s: float) -> None:
        self._entries = dict(entries)
        self._connect_timeout_s = connect_timeout_s
        self._opened: dict[str, Host] = {}
        self._lock = Lock()

    def get(self, name: str) -> "Host":
        """Return the host, and those through which it is reached; nothing is connected yet."""
        from rollout.adapters.ssh import Host  # noqa: PLC0415  (who only checks an inventory doesn't wait for Fabric)

        with self._lock:
            # The jump first, so that hosts behind one share its connection.
            names = [name]
            while (jump := self._entries[names[-1]].jump) is not None:
                names.append(jump)
            for one in reversed(names):
                if one not in self._opened:
                    entry = self._entries[one]
                    before = None if entry.jump is None else self._opened[entry.jump]
                    self._opened[one] = Host(one, entry, before, self._connect_timeout_s)
            return self._opened[name]

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            for host in self._opened.values():
                host.close()


def hosts_of_others(inventory: Inventory) -> dict[str, HostEntry]:
    """Return the hosts that the inventory's other drivers name, so that they needn't be written down twice. The first one counts."""
    found: dict[str, HostEntry] = {}
    for driver in (inventory.workers_driver, inventory.releases_driver, inventory.traffic_driver):
        entries = driver.settings().get("hosts")
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            try:
                found.setdefault(str(name), HostEntry.model_validate_json(json.dumps(entry, default=str), strict=True))
            except ValidationError:
                # Whose it is says so.
                continue
    return found
