"""
What a process does, and so its role.

What the shared settings give it by its name comes first, for nobody else does that; then what its own file makes it; then, for a worker
that could do anything, what the proxy sends to it. Of several roles it gets the one whose absence is felt most.

Source: docs/workers.md, and WorkerConfig and ContentRepositoryConfig (synapse/config/workers.py, repository.py) of 1.163.2.
"""

import re
from collections.abc import Iterable, Iterator

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.proxied import Placement
from rollout.homeservers.synapse.roles import ROLE_ORDER, duty_of, evidence_of
from rollout.homeservers.synapse.topology import Topology
from rollout.model.ids import Role
from rollout.model.plan import Duty

_OF_STREAMS = {"events": "event_persister", "quarantined_media_changes": "quarantined_media"}
_OF_SETTINGS = {
    "federation_sender_instances": "federation_sender",
    "pusher_instances": "pusher",
    "update_user_directory_from_worker": "user_dir",
    "notify_appservices_from_worker": "appservice",
    "run_background_tasks_on": "background",
    "media_instance_running_background_jobs": "media",
}
# Kinds of workers from before there was one for everything; most of these are that one by another name.
_OF_APPS = {
    "federation_sender": "federation_sender",
    "pusher": "pusher",
    "user_dir": "user_dir",
    "appservice": "appservice",
    "media_repository": "media",
    "synchrotron": "sync",
    "client_reader": "client",
    "event_creator": "client",
    "frontend_proxy": "client",
    "federation_reader": "federation_reader",
}
# Sliding sync is a client worker's (roles.py), and what has media in its path is of the media repository, whatever it begins with.
_SLIDING, _MEDIA = "simplified_msc3575", "/media"
_FEDERATION = re.compile(r"\bfederation\b|_matrix/key\b")
_CLIENT = re.compile(r"\bclient\b|_matrix\W*$|_synapse/admin")
_SYNC = re.compile(r"/sync\b|[/|(](?:events|initialSync)\b")
_SEVERITY = {Duty.REPLACEABLE: 0, Duty.SHARDED: 1, Duty.SINGLETON: 2}
# A worker that several of these lead to is rolled as the first one.
_BY_CARE = (Role("sync"), Role("client"), Role("federation_reader"), Role("media"))


def role_of(process: Process, topology: Topology, placements: Iterable[Placement], findings: Findings) -> Role | None:
    """Tell a process's role; None, and a mark, when nothing says it."""
    at = ("workers", process.id, "role")
    if process.is_main:
        return Role("main")
    given = [*_given(process, topology), *_of_itself(process)]
    roles = sorted(dict.fromkeys(given), key=_weight, reverse=True)
    if roles:
        if others := roles[1:]:
            findings.doubtful(
                at,
                f"it is {' and '.join(others)} too ({process.place}), and a worker has one role",
                "keep the one whose pause is felt most; the gates of the others don't look at it",
            )
        return roles[0]
    return _of_traffic(process, list(placements), findings)


def streams_of(process: Process, topology: Topology) -> tuple[str, ...]:
    """List the streams that it writes."""
    return tuple(key.partition(".")[2] for key, names in topology.items() if key.startswith("stream_writers.") and process.id in names)


def _given(process: Process, topology: Topology) -> Iterator[Role]:
    written = {Role(_OF_STREAMS.get(stream, stream)) for stream in streams_of(process, topology)}
    # A stream that is newer than this table is still written by nobody else.
    written = {role if role in ROLE_ORDER else Role("stream_writer") for role in written}
    if len(written) > 1:
        yield Role("stream_writer")
    else:
        yield from written
    yield from (Role(role) for setting, role in _OF_SETTINGS.items() if process.id in topology.get(setting, ()))


def _of_itself(process: Process) -> Iterator[Role]:
    if process.app in _OF_APPS:
        yield Role(_OF_APPS[process.app])
    resources = {name for one in process.listeners for name in one.resources}
    if "media" in resources and (process.values.get("enable_media_repo") is True or resources.isdisjoint({"client", "federation"})):
        yield Role("media")


def _weight(role: Role) -> tuple[int, bool, int]:
    return _SEVERITY[duty_of(role)], bool(evidence_of(role)), ROLE_ORDER.index(role)


def _of_traffic(process: Process, placements: list[Placement], findings: Findings) -> Role | None:
    at = ("workers", process.id, "role")
    routes = [route for one in placements for route in one.backend.routes]
    if any(one.backend.catches_all for one in placements):
        routes.append("/_matrix/client")
    found = of_routes(routes)
    if len(found) > 1:
        where = ", ".join(dict.fromkeys(one.backend.name for one in placements))
        findings.doubtful(
            at,
            f"the proxy sends it what {', '.join(found)} workers are asked for (by {where})",
            "keep the one that most of its traffic is; a pool for each would give each gates of its own",
        )
    if found:
        return found[0]
    resources = {name for one in process.listeners for name in one.resources}
    if resources & {"client", "federation"} == {"federation"}:
        return Role("federation_reader")
    if "client" in resources:
        why = "the proxy's configuration leads nobody to it" if not placements else "no path that leads to it says more"
        findings.doubtful(at, f"{why}: client was taken, for its listener serves that", "role: sync, if it is asked for /sync")
        return Role("client")
    known = "no shared setting names it, and it serves neither clients nor federation" if process.known else "nothing but its name is known"
    findings.missing(at, known, "a role (`rollout schema inventory` lists them); if it does nothing, leave it out of here and stop it")
    return None


def of_routes(routes: Iterable[str]) -> tuple[Role, ...]:
    """Tell whose work the paths are, the one that asks for most care first."""
    found = {role for route in routes for role in _of_path(route)}
    return tuple(role for role in _BY_CARE if role in found)


def _of_path(route: str) -> Iterator[Role]:
    if _SLIDING in route:
        yield Role("client")
    elif _MEDIA in route:
        yield Role("media")
    else:
        if _FEDERATION.search(route):
            yield Role("federation_reader")
        if _CLIENT.search(route):
            yield Role("sync") if _SYNC.search(route) else Role("client")
