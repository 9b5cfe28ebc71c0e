"""Main and workers, one by one, as their files describe them; and those of whom only others speak."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.listeners import Listener, read_listeners
from rollout.homeservers.synapse.deriving.sources import ParsedFile, Place, Shared, Sources
from rollout.homeservers.synapse.topology import MAIN, Topology, read_topology
from rollout.model.ids import WorkerId

_APPS = "synapse.app."
_MAIN_APP = f"{_APPS}homeserver"
# What a file has that belongs to a worker. All else in a directory of workers (how to log, most often) is somebody else's.
_A_WORKERS = ("worker_app", "worker_name", "worker_listeners")


@dataclass(frozen=True, slots=True)
class Mapped:
    """Where the instance map says that others reach a process for replication."""

    host: str
    port: int | None
    place: Place


@dataclass(frozen=True, slots=True)
class Process:
    """
    One process. *app* is without `synapse.app.`; *file* is the worker's own, and None for main, and for a worker of which there is none.

    *values* is what it reads: its own file over the shared ones.
    """

    id: WorkerId
    app: str
    place: Place
    values: Mapping[str, object]
    listeners: tuple[Listener, ...] = ()
    file: str | None = None
    mapped: Mapped | None = None

    @property
    def is_main(self) -> bool:
        return self.id == MAIN

    @property
    def known(self) -> bool:
        """Whether there is a file that describes it."""
        return self.is_main or self.file is not None


@dataclass(frozen=True, slots=True)
class Named:
    """That a setting of the shared files gives something to a process, by its name."""

    name: str
    setting: str
    place: Place


def processes_of(sources: Sources, findings: Findings) -> tuple[Process, ...]:
    """List main, then the workers with a file, by name, then those that are named without one. Says what contradicts."""
    shared = sources.shared
    mapped = dict(_mapped(shared))
    found: dict[str, Process] = {MAIN: _main(shared, mapped.get(MAIN))}
    workers: dict[str, Process] = {}
    for file in sources.workers:
        if not _is_worker(file, shared, findings):
            continue
        worker = _worker(file, shared, mapped, findings)
        if worker.id == MAIN:
            findings.contradict("a worker is called main, as the main process is", worker.place)
        elif worker.id in workers:
            findings.contradict(f'two workers are called "{worker.id}": this one, and that in {workers[worker.id].place}', worker.place)
        else:
            workers[worker.id] = worker
    found |= {name: workers[name] for name in sorted(workers, key=natural)}
    for one in named(shared):
        if one.name not in found:
            what = "which has no worker file" if sources.workers else "and no worker file was given"
            findings.contradict(f'{one.setting} names "{one.name}", {what}', one.place)
            found[one.name] = Process(WorkerId(one.name), "", one.place, shared.values, mapped=mapped.get(one.name))
    return tuple(found.values())


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sort sync2 before sync10."""
    return tuple((int(part) if part.isdecimal() else 0, part) for part in re.split(r"([0-9]+)", name))


def topology_of(shared: Shared) -> Topology:
    """Read who does what."""
    return read_topology(shared.values)


def named(shared: Shared) -> Iterator[Named]:
    """List every process that a shared setting names, main left out."""
    for key, names in topology_of(shared).items():
        section, _, part = key.partition(".")
        if section == "instance_map":
            if part != MAIN:
                yield Named(part, "instance_map", shared.place("instance_map", part))
        elif section in {"redis", "enable_media_repo"}:
            continue
        else:
            place = shared.place(*key.split(".", 1))
            yield from (Named(name, key, place) for name in names if name != MAIN)


def _main(shared: Shared, mapped: Mapped | None) -> Process:
    listeners = list(read_listeners(shared.values.get("listeners"), lambda index: shared.place("listeners", index)))
    port = shared.values.get("metrics_port")
    if isinstance(port, int) and port:
        # An old setting that Synapse still heeds.
        listeners.append(Listener("metrics", shared.place("metrics_port"), port=port, addresses=("127.0.0.1",)))
    return Process(WorkerId(MAIN), "homeserver", shared.place("listeners"), shared.values, tuple(listeners), mapped=mapped)


def _is_worker(file: ParsedFile, shared: Shared, findings: Findings) -> bool:
    """Tell whether a file is that of a worker, and of one of this homeserver."""
    if not any(key in file.values for key in _A_WORKERS) or file.name in {one.name for one in shared.files}:
        return False
    if file.values.get("worker_app") == _MAIN_APP:
        return False
    ours, theirs = shared.values.get("server_name"), file.values.get("server_name")
    if theirs is not None and theirs != ours:
        findings.contradict(f"this is a worker of {theirs}, not of {ours}: it was left out", file.place("server_name"))
        return False
    main = dict(_mapped(shared)).get(MAIN)
    other = dict(_mapped(Shared((file,)))).get(MAIN)
    if main and other and (main.host, main.port) != (other.host, other.port):
        there, here = f"{other.host}:{other.port}", f"{main.host}:{main.port}"
        what = f"this worker's main process is at {there}, and this homeserver's is at {here}: it was left out"
        findings.contradict(what, other.place)
        return False
    return True


def _worker(file: ParsedFile, shared: Shared, mapped: Mapping[str, Mapped], findings: Findings) -> Process:
    app = str(file.values.get("worker_app") or "")
    name = file.values.get("worker_name")
    if not isinstance(name, str) or not name:
        # What Synapse does then.
        name = app or "unnamed"
        findings.contradict(f'a worker without worker_name is called "{name}" by Synapse, and only one may be', file.place("worker_app"))
    listeners = tuple(read_listeners(file.values.get("worker_listeners"), lambda index: file.place("worker_listeners", index)))
    values = {**shared.values, **file.values}
    return Process(WorkerId(name), app.removeprefix(_APPS), file.place("worker_name"), values, listeners, file.name, mapped.get(name))


def _mapped(shared: Shared) -> Iterator[tuple[str, Mapped]]:
    instances = shared.values.get("instance_map")
    for name, place in instances.items() if isinstance(instances, Mapping) else ():
        if isinstance(place, Mapping):
            canonical = MAIN if name in {MAIN, "master"} else str(name)
            port = place.get("port")
            yield (
                canonical,
                Mapped(str(place.get("host") or ""), port if isinstance(port, int) else None, shared.place("instance_map", name)),
            )
