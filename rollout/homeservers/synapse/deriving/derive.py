"""All of it, put together: an inventory, with what is missing in it and what contradicts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving import drivers
from rollout.homeservers.synapse.deriving.contradictions import find_contradictions
from rollout.homeservers.synapse.deriving.findings import Contradiction, Findings, Mark, Path
from rollout.homeservers.synapse.deriving.managed import Managed, managed_by
from rollout.homeservers.synapse.deriving.processes import Process, processes_of, topology_of
from rollout.homeservers.synapse.deriving.proxied import Placement, of_process, placements_of, proxy_that_counts
from rollout.homeservers.synapse.deriving.reached import Reached, reached
from rollout.homeservers.synapse.deriving.role_of import of_routes, role_of
from rollout.homeservers.synapse.deriving.sources import Sources
from rollout.homeservers.synapse.deriving.starting import starts_synapse
from rollout.homeservers.synapse.roles import facts_of
from rollout.model.errors import InvalidFileError
from rollout.model.ids import Role, WorkerId


@dataclass(frozen=True, slots=True)
class Derived:
    """
    *content* is the inventory, as it will stand in its file; None stands where something must be filled in. *remarks* explain what is
    there, by its path.
    """

    content: Mapping[str, object]
    remarks: Mapping[Path, str]
    marks: tuple[Mark, ...]
    contradictions: tuple[Contradiction, ...]


def derive(sources: Sources, known_drivers: Mapping[str, Collection[str]]) -> Derived:
    """
    Derive the inventory of a homeserver. *known_drivers* are the drivers that there are, by port.

    Raises InvalidFileError if no file says what the homeserver is called: then it is no configuration of one.
    """
    homeserver = sources.shared.values.get("server_name")
    if not isinstance(homeserver, str) or not homeserver:
        names = ", ".join(file.name for file in sources.shared.files)
        raise InvalidFileError(
            "no server_name",
            where=names,
            why="so this is no whole configuration of Synapse",
            remedy="homeserver.yaml, and its conf.d after it",
        )
    findings = Findings()
    processes = processes_of(sources, findings)
    topology = topology_of(sources.shared)
    find_contradictions(processes, topology, sources.shared, findings)
    placements = placements_of(sources.proxies, processes, findings)
    proxy = proxy_that_counts(placements)
    managed = managed_by(processes, sources.units, findings) if starts_synapse(sources.units) else {}
    workers: dict[str, object] = {}
    remarks: dict[Path, str] = {}
    used: dict[str, dict[str, object]] = {}
    places: dict[WorkerId, Reached] = {}
    for process in processes:
        mine = list(of_process(placements, process.id, proxy))
        role = role_of(process, topology, mine, findings)
        placement = _placement(process, role, mine, placements, findings)
        where = places[process.id] = reached(process, placement, _container(process, managed), findings)
        workers[process.id] = _entry(process, role, placement, where)
        if role is not None:
            remarks["workers", process.id, "role"] = f"{facts_of(role).duty}: {facts_of(role).why}"
        if placement is not None:
            used[placement.backend.name] = _pool(placement)
    _say_contained([worker for worker, one in places.items() if one.contained], managed, findings)
    _say_unsaid(places, findings)
    _say_same("url", {worker: one.url for worker, one in places.items()}, findings)
    _say_same("metrics", {worker: one.metrics for worker, one in places.items()}, findings)
    content: dict[str, object] = {"homeserver": homeserver, "kind": "synapse", "workers": workers}
    if used:
        content["pools"] = {one.name: used[one.name] for one in (proxy.backends if proxy else ()) if one.name in used}
    hosts = [one.host for one in places.values()]
    content |= drivers.derive_drivers(sources, processes, managed, hosts, proxy, known_drivers, findings)
    remarks |= drivers.REMARKS
    return Derived(content, remarks, tuple(findings.marks), tuple(sorted(findings.contradictions, key=lambda one: one.place)))


def _placement(
    process: Process, role: Role | None, mine: Sequence[Placement], placements: Sequence[Placement], findings: Findings
) -> Placement | None:
    """Choose the one server that a worker is; says what is lost by that."""
    at = ("workers", process.id, "pool")
    drained = [one for one in mine if not one.backend.direct]
    straight = [one for one in placements if one.process.id == process.id and one.backend.direct]
    if straight:
        where = ", ".join(f"{one.server.address} ({one.server.place})" for one in straight)
        findings.doubtful(
            at,
            f"nginx passes requests straight to {where}, past every upstream, and can't be told to stop that for a while",
            "an upstream with this one server in it",
        )
    if not drained:
        return None
    chosen = max(drained, key=lambda one: (role in of_routes(one.backend.routes), len(one.backend.routes), one.backend.catches_all))
    if others := [one for one in drained if one is not chosen]:
        where = ", ".join(f"{one.backend.name} as {one.server.name} ({one.server.place})" for one in others)
        findings.doubtful(
            at,
            f"it is in {where} too, and a worker is in one pool: it would be drained in {chosen.backend.name} alone, and what comes by "
            "the others cut",
            "the routes of both to one backend, or workers of its own for each",
        )
    return chosen


def _entry(process: Process, role: Role | None, placement: Placement | None, where: Reached) -> dict[str, object]:
    entry: dict[str, object] = {"role": role}
    if placement is not None:
        entry["pool"] = placement.backend.name
    if where.host:
        entry["host"] = where.host
    entry |= {"url": where.url, "metrics": where.metrics}
    if placement is not None and placement.server.name != process.id:
        entry["server"] = placement.server.name
    return entry


def _pool(placement: Placement) -> dict[str, object]:
    backend = placement.backend
    pool: dict[str, object] = {"backend": backend.name}
    if backend.held:
        pool["hold"] = True
    if backend.routing is not None:
        pool["routing"] = backend.routing
    return pool


def _container(process: Process, managed: Mapping[WorkerId, Managed]) -> str:
    return managed[process.id].unit.container if process.id in managed else ""


def _say_unsaid(places: Mapping[WorkerId, Reached], findings: Findings) -> None:
    """Where there is one machine, that is where all of them are."""
    others = dict.fromkeys(one.host for one in places.values() if one.host)
    for worker, one in places.items():
        if one.unsaid and others:
            findings.doubtful(
                ("workers", worker),
                f"no file says which machine it runs on, and others run on {', '.join(others)}",
                "`host`, and the addresses of that machine",
            )


def _say_same(key: str, addresses: Mapping[WorkerId, str | None], findings: Findings) -> None:
    """Two processes at one address: `rollout check` would refuse the second."""
    first: dict[str, WorkerId] = {}
    for worker, address in addresses.items():
        if address is not None and (other := first.setdefault(address, worker)) != worker:
            findings.missing(("workers", worker, key), f'by the files this is the one of "{other}" too', "its own: each process has one")


def _say_contained(contained: Sequence[WorkerId], managed: Mapping[WorkerId, Managed], findings: Findings) -> None:
    if contained:
        units = [str(managed[one].unit.place) for one in contained if one in managed]
        said = f" ({units[0]})" if units else ""
        findings.doubtful(
            ("workers",),
            f"{', '.join(contained)} run in containers{said}, and these addresses may hold only inside their network",
            "run rollout in that network, or publish the ports and write their addresses here",
        )
