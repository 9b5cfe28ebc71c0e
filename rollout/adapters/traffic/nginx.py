"""
nginx through an include file of upstreams that only we change, and a reload for each change (rollout.agent.nginx), on this machine or on
hosts: the same program does it there.

Open-source nginx says nothing about its upstreams, so what can't be known is not said: it counts no requests of a server, sees nobody come
up, and can't hold. What a server still has is counted as connections that lead to its address on nginx's machine, of old workers too: with
`keepalive` in an upstream an idle one counts until its worker ends, which a reload has it do. Others on that machine who speak to the same
port (a check of ours) count too: that is only a longer drain.

Of several hosts all must answer and have the server; a drain is told to one after the other, once all have been seen.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from time import monotonic  # noqa: TID251  (how long a proxy takes, whatever clock a rollout goes by)
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rollout.adapters.asking_sudo import not_allowed
from rollout.adapters.faults import translated
from rollout.adapters.remote_commands import Argv, as_root
from rollout.adapters.settings import FilePath, InvalidSettingsError, refused
from rollout.adapters.side_by_side import ask_all
from rollout.adapters.ssh_hosts import HostEntry
from rollout.adapters.ssh_shared import Hosts
from rollout.adapters.traffic.holds import hold_at_all, pool_at_all
from rollout.adapters.traffic.hosts import WHERE, OnHosts, checked_with_hosts, unknown
from rollout.adapters.traffic.places import Here, Place, There, into_traffic, out_of_traffic
from rollout.agent import nginx
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Acts, at_hosts
from rollout.ports.privileges import Privileges
from rollout.ports.traffic import Server

# Of the upstream module, the ways to choose a server.
_METHODS = {"least_conn": "leastconn", "ip_hash": "source", "hash": "hash", "random": ""}
_NO_HOLD = "hold_page in the traffic_driver (docs/nginx.md); or `hold: false` in the pool: the plan then says what a restart cuts"
# Its test prints the configuration, too, in which our file must be.
ACTS: tuple[Argv, ...] = (("-T",), ("-s", "reload"))
# What sudo would take for a pattern, or a shell for more than a word.
_PLAIN = re.compile(r"[A-Za-z0-9/._+-]+")


def _each_once(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is not None and len(set(names)) < len(names):
        raise refused("proxies names a host twice", "each host once")
    return names


class NginxSettings(OnHosts):
    """
    *include*: the file of upstreams, which nginx includes and only rollout changes; each `server` has `weight=100` and its worker's name in
    a comment behind it. *nginx*: the command, with `sudo -n` before it or `-c FILE` behind it where that is needed. *pid_file*: its `pid`.
    *proxies*: the hosts that nginx is on, with these paths; this machine if absent. *hold_page*: where hold.lua there tells what it holds,
    as the proxy's own machine reaches it; without it nothing can be held.
    """

    include: FilePath
    nginx: Annotated[tuple[str, ...], Field(min_length=1)] = ("/usr/sbin/nginx",)
    pid_file: FilePath = Path("/run/nginx.pid")
    proxies: Annotated[tuple[str, ...] | None, Field(min_length=1), AfterValidator(_each_once)] = None
    hold_page: Annotated[str | None, Field(pattern=r"^http://[^/\s]+(/\S*)?$")] = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "Nginxes":
    """Open the driver; nothing is looked at yet."""
    checked = checked_with_hosts(NginxSettings, settings, inventory)
    if checked.proxies is None:
        return Nginx(checked.include, checked.nginx, checked.pid_file, checked.hold_page)
    if problems := tuple(unknown(checked.hosts, ((("proxies", number), name) for number, name in enumerate(checked.proxies)))):
        raise InvalidSettingsError(WHERE, problems)
    hosts = {name: checked.hosts[name] for name in checked.proxies}
    return NginxOnHosts(checked, hosts)


class Nginxes:
    """See ports.traffic, and ports.acts.TrafficActs."""

    def __init__(
        self, places: Sequence[Place], include: Path, commands: Mapping[str, tuple[str, ...]], pid_file: Path, hold_page: str | None
    ) -> None:
        self._places = {place.name: place for place in places}
        self._include = include
        # With sudo before it where it is needed.
        self._commands = dict(commands)
        self._pid_file = pid_file
        self._hold_page = hold_page
        # The workers of which it was seen that they include our file, for each place: asked once for each generation.
        self._configured: dict[str, list[list[int]]] = {}
        self._lock = Lock()

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See ports.traffic."""
        seen = self._everywhere(self._seen, monotonic() + timeout_s)
        keys = {worker: (server.backend, server.name) for worker, server in servers.items()}
        joined, *others = [self._sightings(self._places[name], said, keys) for name, said in seen.items()]
        for other in others:
            joined = {worker: _both(sighting, other[worker]) for worker, sighting in joined.items() if worker in other}
        if self._hold_page is None:
            return joined
        return {
            worker: replace(sighting, **hold_at_all([said["held"].get(servers[worker].backend) for said in seen.values()]))
            for worker, sighting in joined.items()
        }

    def known(self, timeout_s: float) -> frozenset[Server]:
        """See ports.traffic."""
        seen = self._everywhere(self._seen, monotonic() + timeout_s)
        return frozenset.intersection(*(frozenset(Server(*key) for key in self._entries(said)) for said in seen.values()))

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        end_s = monotonic() + timeout_s
        out_of_traffic(self._places, self._drain(server, timeout_s), end_s, lambda place: self._seen(place, end_s))

    def drain_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._drain(server, timeout_s))

    def _drain(self, server: Server, timeout_s: float) -> dict[str, Acts]:
        return self._change(server, None, timeout_s)

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        into_traffic(self._places, self._admit(server, weight, timeout_s), monotonic() + timeout_s)

    def admit_acts(self, server: Server, weight: int, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._admit(server, weight, timeout_s))

    def _admit(self, server: Server, weight: int, timeout_s: float) -> dict[str, Acts]:
        return self._change(server, weight, timeout_s)

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic. A reload forgets nothing."""
        end_s = monotonic() + timeout_s
        out_of_traffic(self._places, self._hold(server, bound, timeout_s), end_s, lambda place: self._text(place, end_s))

    def hold_acts(self, server: Server, bound: HoldBound, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._hold(server, bound, timeout_s))

    def _hold(self, server: Server, bound: HoldBound, timeout_s: float) -> dict[str, Acts]:
        if self._hold_page is None:
            what = f"nginx can't hold the requests of upstream {server.backend}"
            raise PermanentDriverError(what, where=str(self._include), remedy=_NO_HOLD)
        self._must_have(server, timeout_s)
        return self._holding(server, timeout_s, hold_s=bound.hold_s, hold_max=bound.hold_max)

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        into_traffic(self._places, self._let_go(server, timeout_s), monotonic() + timeout_s)

    def let_go_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return at_hosts(self._let_go(server, timeout_s))

    def _let_go(self, server: Server, timeout_s: float) -> dict[str, Acts]:
        """Where nothing can be held all is let through already."""
        self._must_have(server, timeout_s)
        return dict.fromkeys(self._places, ()) if self._hold_page is None else self._holding(server, timeout_s, hold_s=None, hold_max=None)

    def _must_have(self, server: Server, timeout_s: float) -> None:
        for name, said in self._everywhere(self._text, monotonic() + timeout_s).items():
            if server.backend not in {upstream for upstream, _ in self._entries(said)}:
                raise PermanentDriverError(f"nginx's file has no upstream {server.backend}", where=self._where(name))

    def _holding(self, server: Server, timeout_s: float, *, hold_s: float | None, hold_max: int | None) -> dict[str, Acts]:
        told = {"kind": "nginx_hold", "include": str(self._include), "upstream": server.backend, "page": self._hold_page}
        return dict.fromkeys(self._places, ({**told, "hold_s": hold_s, "hold_max": hold_max, "timeout_s": timeout_s},))

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See ports.traffic."""
        seen = self._everywhere(self._text, monotonic() + timeout_s).values()
        found = [_methods(said["text"]) for said in seen]
        return {
            # One that hashes, or that doesn't say, decides for all.
            name: pool_at_all(
                [said["held"].get(name) for said in seen],
                min((methods[name] for methods in found), key=lambda one: (one in _EVEN, one)),
            )
            for name in backends
            if all(name in methods for methods in found)
        }

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic. Who may not see the file handles of nginx's workers counts its user's sockets."""
        found = self._everywhere(partial(self._ask, "nginx_limits"), monotonic() + timeout_s).values()
        return min((ProxyLimits(**said) for said in found), key=lambda one: one.connections_max - one.connections)

    def close(self) -> None:
        """End the connections to hosts that no other driver uses."""
        for place in self._places.values():
            place.close()

    def _change(self, server: Server, weight: int | None, timeout_s: float) -> dict[str, Acts]:
        told: dict[str, object] = {
            "kind": "nginx",
            "include": str(self._include),
            "upstream": server.backend,
            "server": server.name,
            "weight": weight,
        }
        told |= {"pid_file": str(self._pid_file), "timeout_s": timeout_s}
        return {name: ({**told, "nginx": list(self._commands[name])},) for name in self._places}

    def _everywhere(self, ask: Callable[[Place, float], dict[str, Any]], end_s: float) -> dict[str, dict[str, Any]]:
        return ask_all({name: partial(ask, place, end_s) for name, place in self._places.items()})

    def _seen(self, place: Place, end_s: float) -> dict[str, Any]:
        """See the servers as nginx has them there. Raises DriverError when it may have them otherwise than its file."""
        with self._lock:
            configured = self._configured.get(place.name)
        said = self._ask("nginx", place, end_s, configured=configured)
        with self._lock:
            self._configured[place.name] = said["configured"]
        for (_, name), entry in self._entries(said).items():
            if entry.weight is None:
                remedy = "weight=100 behind the address of every server"
                raise PermanentDriverError(f"{name} has no weight in nginx's file", where=self._where(place.name), remedy=remedy)
        return said

    def _text(self, place: Place, end_s: float) -> dict[str, Any]:
        return self._ask("nginx_text", place, end_s)

    def _ask(self, do: str, place: Place, end_s: float, **more: object) -> dict[str, Any]:
        order = {"include": str(self._include), "nginx": list(self._commands[place.name]), "pid_file": str(self._pid_file), **more}
        order |= {"hold_page": self._hold_page}
        return place.ask({"do": do, **order}, end_s - monotonic())

    def _entries(self, said: Mapping[str, Any]) -> dict[tuple[str, str], nginx.Entry]:
        with translated():
            return nginx.servers(said["text"], str(self._include))

    def _where(self, name: str) -> str:
        return self._places[name].where(str(self._include))

    def _sightings(self, place: Place, said: Mapping[str, Any], keys: Mapping[WorkerId, tuple[str, str]]) -> dict[WorkerId, ProxySighting]:
        connections = Counter({(host, port): count for host, port, count in said["connections"]})
        entries = self._entries(said)
        return {worker: self._sighting(place, entries[key], connections) for worker, key in keys.items() if key in entries}

    def _sighting(self, place: Place, entry: nginx.Entry, connections: Counter[tuple[str, int]]) -> ProxySighting:
        goals = _goals(entry.address)
        if goals is None:
            what, remedy = f"what {entry.address} still has can't be counted", "an IP address or localhost, with a port, in nginx's file"
            raise PermanentDriverError(what, where=self._where(place.name), remedy=remedy)
        sessions = sum(connections[goal] for goal in goals)
        return ProxySighting(admitted=not entry.down, weight=entry.weight or 0, up=True, sessions=sessions, requests=None, cuts=None)


class Nginx(Nginxes):
    """On this machine alone."""

    def __init__(self, include: Path, command: tuple[str, ...], pid_file: Path, hold_page: str | None = None) -> None:
        super().__init__([Here()], include.absolute(), {"": command}, pid_file.absolute(), hold_page)


class NginxOnHosts(Nginxes):
    """On hosts, where it runs as root and we don't."""

    def __init__(self, settings: NginxSettings, hosts: Mapping[str, HostEntry]) -> None:
        reached = Hosts(settings.hosts, settings.connect_timeout_s)
        places = [There(name, entry.user, reached, settings.python) for name, entry in hosts.items()]
        commands = {name: as_root(settings.nginx, entry.user) for name, entry in hosts.items()}
        super().__init__(places, settings.include, commands, settings.pid_file, settings.hold_page)
        self._reached = reached
        self._hosts = dict(hosts)
        self._as_root = tuple((*settings.nginx, *act) for act in ACTS)

    def privileges(self) -> tuple[Privileges, ...]:
        """See ports.privileges."""
        return tuple(Privileges(name, entry.spelled(), entry.user, self._as_root) for name, entry in self._hosts.items())

    def not_allowed(self, timeout_s: float) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_allowed(self.privileges(), self._reached.get, timeout_s)


def _both(one: ProxySighting, other: ProxySighting) -> ProxySighting:
    """Join what two say of a server: it takes requests if either sends it some; sessions add up."""
    return ProxySighting(
        admitted=one.admitted or other.admitted,
        weight=min(one.weight, other.weight),
        up=True,
        sessions=(one.sessions or 0) + (other.sessions or 0),
        requests=None,
        cuts=None,
    )


def _goals(address: str) -> set[tuple[str, int]] | None:
    """
    Find where connections to a server lead; None where that can't be known for certain.

    What a name meant when nginx looked it up need not be what it means now.
    """
    if address.startswith("unix:"):
        return None
    host, _, port = address.rpartition(":") if re.search(r":\d+$", address) else (address, "", "80")
    if host == "localhost":
        return {("127.0.0.1", int(port)), ("::1", int(port))}
    try:
        literal = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = literal.ipv4_mapped if isinstance(literal, ipaddress.IPv6Address) else None
    return None if literal.is_unspecified else {(str(mapped or literal), int(port))}


_EVEN = frozenset({"roundrobin", "leastconn"})


def _methods(text: str) -> dict[str, str]:
    """Say of each upstream how it chooses a server, as HAProxy calls it where nothing is hashed."""
    found: dict[str, str] = {}
    upstream: str | None = None
    for line in text.splitlines():
        word = line.strip().rstrip(";").split()
        if word[:1] == ["upstream"] and len(word) > 1:
            upstream = word[1].rstrip("{")
            found[upstream] = "roundrobin"
        elif upstream is not None and word and word[0] in _METHODS:
            found[upstream] = _METHODS[word[0]]
        elif word == ["}"]:
            upstream = None
    return found
