"""
Which server of the proxy is which process.

A server has an address, a process has listeners; they belong together when the port is the listener's, and the listener hears whoever
goes to that host. Where several do (two machines may use the same ports), the instance map and the server's name decide; a host that is
called as a worker is (as containers are) is that worker.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.listeners import Listener
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.sources import Backend, Proxy, Server
from rollout.model.ids import WorkerId

# Other sites may be behind the same proxy. What is asked for these is Matrix's.
_OF_MATRIX = ("/_matrix", "/_synapse")


@dataclass(frozen=True, slots=True)
class Placement:
    """That *process* is *server* of *backend*."""

    process: Process
    proxy: Proxy
    backend: Backend
    server: Server

    @property
    def listener(self) -> Listener | None:
        """The one that the server points to."""
        return _meant(self.process, self.server)


def placements_of(proxies: Sequence[Proxy], processes: Sequence[Process], findings: Findings) -> tuple[Placement, ...]:
    """Match them all. Says which servers point to nobody."""
    found: list[Placement] = []
    for proxy in proxies:
        for backend in proxy.backends:
            matched = _once([(server, _process_of(server, processes)) for server in backend.servers])
            ours = [Placement(process, proxy, backend, server) for server, process in matched if process is not None]
            found += ours
            if ours or is_of_matrix(backend.routes):
                _say_who_is_nobody(backend, matched, processes, findings)
    return tuple(found)


def is_of_matrix(routes: Iterable[str]) -> bool:
    """Tell whether any of the patterns can only be meant for a homeserver."""
    return any(one in route for route in routes for one in _OF_MATRIX)


def proxy_that_counts(placements: Iterable[Placement]) -> Proxy | None:
    """Choose the proxy that stands before the workers: the one with the most of them in backends."""
    found = [one.proxy for one in placements if not one.backend.direct]
    return max(
        found, key=lambda proxy: (len({one.process.id for one in placements if one.proxy is proxy}), proxy.kind == "haproxy"), default=None
    )


def of_process(placements: Iterable[Placement], worker: WorkerId, proxy: Proxy | None) -> Iterator[Placement]:
    """List where a process stands at one proxy."""
    return (one for one in placements if one.process.id == worker and one.proxy is proxy)


def _process_of(server: Server, processes: Sequence[Process]) -> Process | None:
    if named := [one for one in processes if one.id == server.host]:
        return named[0]
    may = [one for one in processes if _meant(one, server)]
    if len(may) > 1:
        decided = [one for one in may if one.mapped and one.mapped.host == server.host] or [one for one in may if one.id == server.name]
        may = decided or may
    return may[0] if len(may) == 1 else None


def _once(matched: Sequence[tuple[Server, Process | None]]) -> list[tuple[Server, Process | None]]:
    """
    Give each process one server of a backend: that of its name, or of its host, or the first.

    Of a worker on another machine, whose file isn't here, nothing may be known but that it uses the same port.
    """
    best: dict[WorkerId, Server] = {}
    for wanted in (_by_name, _by_host, _any):
        for server, process in matched:
            if process is not None and wanted(server, process):
                best.setdefault(process.id, server)
    return [(server, process if process is not None and best[process.id] is server else None) for server, process in matched]


def _by_name(server: Server, process: Process) -> bool:
    return process.id in {server.name, server.host}


def _by_host(server: Server, process: Process) -> bool:
    return process.mapped is not None and process.mapped.host == server.host


def _any(_server: Server, _process: Process) -> bool:
    return True


def _meant(process: Process, server: Server) -> Listener | None:
    """Return the listener that a server's address leads to, if it may be one of this process."""
    for one in process.listeners:
        if one.kind != "http":
            continue
        if server.path is not None and one.path == server.path:
            return one
        if one.port is None or one.port != server.port:
            continue
        if server.host == process.id or one.hears(server.host) or (process.mapped and process.mapped.host == server.host):
            return one
    return None


def _say_who_is_nobody(
    backend: Backend, matched: Iterable[tuple[Server, Process | None]], processes: Sequence[Process], findings: Findings
) -> None:
    for server, process in matched:
        what = f'"{server.name}" ({server.address}) in {"upstream" if backend.direct else "backend"} {backend.name}'
        if process is not None:
            if process.known and _meant(process, server) is None:
                findings.contradict(f'{what} is called as the worker "{process.id}" is, which has no such listener', server.place)
            continue
        may = [one.id for one in processes if _meant(one, server)]
        if len(may) > 1:
            findings.contradict(f"{what} may be {' or '.join(may)}: all of them listen on that port", server.place)
        elif may:
            what = f'{what} points to nobody: the only one to listen on that port is "{may[0]}", and that is another server here'
            findings.contradict(what, server.place)
        else:
            findings.contradict(f"{what} points to nobody: no process of this homeserver listens there", server.place)
