"""
Where a process listens, and where it is reached.

The two differ: a listener is a port on some addresses of its own machine, and what it is called elsewhere is known to whoever goes there
(the proxy, the instance map).

Source: parse_listener_def and ServerConfig.read_config (synapse/config/server.py) of 1.163.2.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving.sources import Place

_ANYWHERE = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104  (it is read, not bound)
_LOOPBACK = "127.0.0.1"
# What a listener with nothing to serve but replication is not asked for by users.
_FOR_USERS = frozenset({"client", "federation", "media", "static", "consent", "keys", "openid"})


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener: a *port* on some *addresses* (none: on all), or a unix socket at *path*."""

    kind: str
    place: Place
    port: int | None = None
    path: str | None = None
    addresses: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    tls: bool = False

    @property
    def everywhere(self) -> bool:
        """Whether it listens on every address of its machine."""
        return not self.addresses or not _ANYWHERE.isdisjoint(self.addresses)

    @property
    def private(self) -> bool:
        """Whether nobody reaches it from another machine."""
        return self.port is not None and bool(self.addresses) and all(map(is_loopback, self.addresses))

    @property
    def for_users(self) -> bool:
        return self.kind == "http" and not _FOR_USERS.isdisjoint(self.resources)

    @property
    def replicates(self) -> bool:
        return self.kind == "http" and "replication" in self.resources

    @property
    def shows_metrics(self) -> bool:
        return self.kind == "metrics" or (self.kind == "http" and "metrics" in self.resources)

    def hears(self, host: str) -> bool:
        """Tell whether whoever goes to *host* may mean it, as far as can be told without asking anybody."""
        if self.everywhere or host in self.addresses:
            return True
        return any(map(is_loopback, self.addresses)) if is_loopback(host) else not is_address(host) and not self.private

    def url(self, host: str) -> str:
        """Write its address, for whoever goes to *host* (its own machine's, if that is empty)."""
        own = host or (_LOOPBACK if self.everywhere or _LOOPBACK in self.addresses else self.addresses[0])
        return f"{'https' if self.tls else 'http'}://{f'[{own}]' if ':' in own else own}:{self.port}"


def read_listeners(found: object, place: Callable[[int], Place]) -> Iterator[Listener]:
    """Read a list of listeners. Never raises: what makes no sense is left to Synapse."""
    for index, one in enumerate(found if isinstance(found, list) else ()):
        if not isinstance(one, Mapping):
            continue
        port, path = one.get("port"), one.get("path")
        kind = str(one.get("type", ""))
        yield Listener(
            kind=kind,
            place=place(index),
            port=port if isinstance(port, int) and not isinstance(port, bool) else None,
            path=path if isinstance(path, str) else None,
            addresses=tuple(_addresses(one)),
            resources=tuple(_resources(one)),
            tls=one.get("tls") is True,
        )


def is_address(host: str) -> bool:
    """Tell whether *host* is written in numbers."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether *host* is the machine itself, whichever that is."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def _addresses(one: Mapping[str, object]) -> Iterator[str]:
    several, single = one.get("bind_addresses"), one.get("bind_address")
    for address in (*(several if isinstance(several, list) else (several,)), single):
        if isinstance(address, str) and address:
            yield address


def _resources(one: Mapping[str, object]) -> Iterator[str]:
    resources = one.get("resources")
    for resource in resources if isinstance(resources, list) else ():
        names = resource.get("names") if isinstance(resource, Mapping) else None
        yield from map(str, names if isinstance(names, list) else ([] if names is None else [names]))
