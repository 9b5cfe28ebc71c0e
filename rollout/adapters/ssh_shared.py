"""
Hosts that several drivers reach: who names the same host in the same way has the same connection to it.

Nothing is imported that connects before somebody does.
"""

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakSet

from rollout.adapters.ssh_hosts import HostEntry

if TYPE_CHECKING:
    from rollout.adapters.ssh import Host

# The way to a host: each host on it by name and entry, the farthest first; and how long connecting may take.
_Key = tuple[tuple[tuple[str, HostEntry], ...], float]


class _Kept:
    def __init__(self, host: "Host") -> None:
        self.host = host
        # Weak: a driver that nobody has any more uses nothing, whether or not it was closed.
        self.users: WeakSet[Hosts] = WeakSet()


_LOCK = Lock()
_KEPT: dict[_Key, _Kept] = {}


class Hosts:
    """The hosts of one driver. For use by several threads."""

    def __init__(self, entries: Mapping[str, HostEntry], connect_timeout_s: float) -> None:
        self._entries = dict(entries)
        self._connect_timeout_s = connect_timeout_s
        self._mine: dict[str, Host] = {}

    def get(self, name: str) -> "Host":
        """Return a host, and remember that it is used here; nothing is connected yet. KeyError for one that isn't named."""
        with _LOCK:
            return self._get(name)

    def _get(self, name: str) -> "Host":
        from rollout.adapters.ssh import Host  # noqa: PLC0415  (who only checks an inventory doesn't wait for Fabric)

        if name not in self._mine:
            entry = self._entries[name]
            # The jump first, so that hosts behind one share its connection.
            jump = None if entry.jump is None else self._get(entry.jump)
            key = self._key(name)
            if key not in _KEPT or not _KEPT[key].users:
                _KEPT[key] = _Kept(Host(name, entry, jump, self._connect_timeout_s))
            _KEPT[key].users.add(self)
            self._mine[name] = _KEPT[key].host
        return self._mine[name]

    def close(self) -> None:
        """End the connections that nobody else uses."""
        with _LOCK:
            ended = []
            for name, host in self._mine.items():
                kept = _KEPT[self._key(name)]
                kept.users.discard(self)
                if not kept.users:
                    del _KEPT[self._key(name)]
                    ended.append(host)
            self._mine.clear()
        for host in ended:
            host.close()

    def _key(self, name: str) -> _Key:
        way = [name]
        while (jump := self._entries[way[-1]].jump) is not None:
            way.append(jump)
        return tuple((one, self._entries[one]) for one in way), self._connect_timeout_s
