"""
nginx through an include file of upstreams that only we change, and a reload for each change (rollout.agent.nginx).

Open-source nginx says nothing about its upstreams, so what can't be known is not said: it counts no requests of a server, sees nobody come
up, and can't hold. What a server still has is counted as connections that lead to its address on this machine, of old workers too: with
`keepalive` in an upstream an idle one counts until its worker ends, which a reload has it do. Others on this machine who speak to the same
port (a check of ours) count too: that is only a longer drain.
"""

import ipaddress
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rollout.adapters.faults import run, translated
from rollout.adapters.settings import FilePath, Settings, check
from rollout.agent import nginx
from rollout.model.errors import PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting, ProxyLimits, ProxySighting
from rollout.ports.acts import Acts
from rollout.ports.traffic import Server

_ESTABLISHED = "01"
_WORKER_CONNECTIONS = re.compile(r"\bworker_connections\s+(\d+)\s*;")
_COMMENT = re.compile(r"#.*")
# Of the upstream module, the ways to choose a server.
_METHODS = {"least_conn": "leastconn", "ip_hash": "source", "hash": "hash", "random": ""}
# nginx's own default.
CONNECTIONS_EACH = 512
_NO_HOLD = "take it out of the inventory's pools; the plan then says what is cut at a restart"


class NginxSettings(Settings):
    """
    *include*: the file of upstreams, which nginx includes and only rollout changes; each `server` has `weight=100` and its worker's name in
    a comment behind it. *nginx*: the command, with `sudo -n` before it or `-c FILE` behind it where that is needed. *pid_file*: its `pid`.
    """

    include: FilePath
    nginx: Annotated[tuple[str, ...], Field(min_length=1)] = ("/usr/sbin/nginx",)
    pid_file: FilePath = Path("/run/nginx.pid")


def build(settings: Mapping[str, object], inventory: Inventory) -> "Nginx":  # noqa: ARG001  (as every driver's)
    """Open the driver; nothing is looked at yet."""
    checked = check(NginxSettings, settings, "traffic_driver")
    return Nginx(checked.include, checked.nginx, checked.pid_file)


class Nginx:
    """See ports.traffic."""

    def __init__(self, include: Path, command: tuple[str, ...], pid_file: Path) -> None:
        self._include = include
        self._command = command
        self._pid_file = pid_file

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:  # noqa: ARG002  (files only)
        """See ports.traffic."""
        entries = self._running()
        connections = open_connections()
        keys = {worker: (server.backend, server.name) for worker, server in servers.items()}
        return {worker: self._sighting(entries[key], connections) for worker, key in keys.items() if key in entries}

    def known(self, timeout_s: float) -> frozenset[Server]:  # noqa: ARG002  (files only)
        """See ports.traffic."""
        return frozenset(Server(*key) for key in self._running())

    def drain(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.drain_acts(server, timeout_s))

    def drain_acts(self, server: Server, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._change(server, None, timeout_s)

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.admit_acts(server, weight, timeout_s))

    def admit_acts(self, server: Server, weight: int, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._change(server, weight, timeout_s)

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.hold_acts(server, bound, timeout_s))

    def hold_acts(self, server: Server, bound: HoldBound, timeout_s: float) -> Acts:  # noqa: ARG002  (there is no hold)
        """See ports.acts."""
        raise PermanentDriverError(f"nginx can't hold the requests of upstream {server.backend}", where=str(self._include), remedy=_NO_HOLD)

    def let_go(self, server: Server, timeout_s: float) -> None:
        """See ports.traffic."""
        run(self.let_go_acts(server, timeout_s))

    def let_go_acts(self, server: Server, timeout_s: float) -> Acts:  # noqa: ARG002  (there is no hold)
        """See ports.acts: what isn't held is let through already."""
        with translated():
            upstreams = {upstream for upstream, _ in nginx.servers(nginx.read(self._include), str(self._include))}
        if server.backend not in upstreams:
            raise PermanentDriverError(f"nginx's file has no upstream {server.backend}", where=str(self._include))
        return ()

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:  # noqa: ARG002  (files only)
        """See ports.traffic."""
        with translated():
            text = nginx.read(self._include)
        methods = _methods(text)
        return {name: PoolSighting(requests=None, arrivals_per_s=None, algorithm=methods[name]) for name in backends if name in methods}

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See ports.traffic. Needs to see the file handles of nginx's workers, so its user or root."""
        with translated():
            pids = [pid for pid, _ in nginx.workers(str(self._pid_file))]
        if not pids:
            raise TransientDriverError("nginx doesn't run", where=str(self._pid_file))
        each = self._connections_each(timeout_s)
        try:
            handles = [[_goal(handle) for handle in Path(f"/proc/{pid}/fd").iterdir()] for pid in pids]
            files_max = sum(_files_max(pid) for pid in pids)
        except OSError as error:
            raise TransientDriverError("what nginx has open can't be seen", where=str(error.filename), why=str(error)) from error
        sockets = sum(goal.startswith("socket:") for one in handles for goal in one)
        return ProxyLimits(sockets, each * len(pids), sum(map(len, handles)), files_max)

    def _change(self, server: Server, weight: int | None, timeout_s: float) -> Acts:
        return (
            {
                "kind": "nginx",
                "include": str(self._include.absolute()),
                "upstream": server.backend,
                "server": server.name,
                "weight": weight,
                "nginx": list(self._command),
                "pid_file": str(self._pid_file.absolute()),
                "timeout_s": timeout_s,
            },
        )

    def _running(self) -> dict[tuple[str, str], nginx.Entry]:
        """Read the servers as nginx has them. TransientDriverError when it may have them otherwise than the file."""
        with translated():
            text = nginx.read(self._include)
            found = nginx.servers(text, str(self._include))
            workers = nginx.workers(str(self._pid_file))
            is_read = nginx.is_read(self._include, text, workers)
        if not workers:
            raise TransientDriverError("nginx doesn't run", where=str(self._pid_file))
        if not is_read:
            command = " ".join(self._command)
            remedy = f"{command} -t && {command} -s reload"
            what = "nginx may not have read its file of upstreams since it was changed"
            raise TransientDriverError(what, where=str(self._include), remedy=remedy)
        if unweighted := [name for (_, name), entry in found.items() if entry.weight is None]:
            remedy = "weight=100 behind the address of every server"
            raise PermanentDriverError(f"{unweighted[0]} has no weight in nginx's file", where=str(self._include), remedy=remedy)
        return found

    def _sighting(self, entry: nginx.Entry, connections: Counter[tuple[str, int]]) -> ProxySighting:
        places = _places(entry.address)
        if places is None:
            what, remedy = f"what {entry.address} still has can't be counted", "an IP address or localhost, with a port, in nginx's file"
            raise PermanentDriverError(what, where=str(self._include), remedy=remedy)
        sessions = sum(connections[place] for place in places)
        return ProxySighting(admitted=not entry.down, weight=entry.weight or 0, up=True, sessions=sessions, requests=None, cuts=None)

    def _connections_each(self, timeout_s: float) -> int:
        argv = [*self._command, "-T"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=True)  # noqa: S603  (no shell)
        except (OSError, subprocess.SubprocessError) as error:
            what = "nginx doesn't say how many connections it may have"
            raise TransientDriverError(what, where=" ".join(argv), why=str(error)) from error
        said = _WORKER_CONNECTIONS.search(_COMMENT.sub("", done.stdout.decode(errors="replace")))
        return int(said[1]) if said else CONNECTIONS_EACH


def _places(address: str) -> set[tuple[str, int]] | None:
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


def open_connections() -> Counter[tuple[str, int]]:
    """Count this machine's open connections by where they lead to (proc(5), /proc/net/tcp)."""
    found: Counter[tuple[str, int]] = Counter()
    for name in ("tcp", "tcp6"):
        try:
            _, *lines = Path("/proc/net", name).read_text().splitlines()
        except FileNotFoundError:  # no IPv6 here
            continue
        for line in lines:
            _, _, remote, state, *_ = line.split()
            if state == _ESTABLISHED:
                found[_place(remote)] += 1
    return found


def _place(written: str) -> tuple[str, int]:
    """Read an address as the kernel writes it: words of four bytes, each in the machine's own order."""
    host, _, port = written.partition(":")
    words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)


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


def _goal(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except FileNotFoundError:  # it was closed just now
        return ""


def _files_max(pid: int) -> int:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Max open files")).split()[3])
