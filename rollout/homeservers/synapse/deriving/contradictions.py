"""
What can't all be true. Each is said in one sentence; whether Synapse would start on it is beside the point, for most of these it does.

Source: WorkerConfig.read_config (synapse/config/workers.py) of 1.163.2 for what it refuses itself.
"""

from collections.abc import Iterable, Sequence

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.listeners import Listener
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.sources import Shared
from rollout.homeservers.synapse.roles import ROLES, duty_of
from rollout.homeservers.synapse.topology import MAIN, Topology
from rollout.model.ids import Role
from rollout.model.plan import Duty

_STREAMS = "stream_writers."
# Where each stream has the role of its own name, its duty says whether it may have more than one writer; these two have other names.
_SEVERAL = frozenset({"events", "quarantined_media_changes"})


def find_contradictions(processes: Sequence[Process], topology: Topology, shared: Shared, findings: Findings) -> None:
    """Look for all of them, but for those that are found on the way (processes.py, proxied.py, managed.py)."""
    _of_writers(topology, shared, findings)
    for process in processes:
        _of_mapping(process, findings)
        _of_metrics(process, findings)
    _of_ports(processes, findings)


def _of_writers(topology: Topology, shared: Shared, findings: Findings) -> None:
    mapped = {key.partition(".")[2] for key in topology if key.startswith("instance_map.")}
    for key, names in topology.items():
        stream = key.removeprefix(_STREAMS)
        if stream == key:
            continue
        place = shared.place("stream_writers", stream)
        for name in names:
            if name != MAIN and name not in mapped:
                findings.contradict(f'"{name}" writes {stream}, and isn\'t in instance_map, where others would find it', place)
        if len(names) > 1 and not _may_be_several(stream):
            findings.contradict(f"{stream} has {len(names)} writers ({', '.join(names)}), and may have one", place)
    if any(key != "instance_map.main" for key in topology if key.startswith("instance_map.")) and MAIN not in mapped:
        findings.contradict("instance_map has no main, so no worker finds it", shared.place("instance_map"))


def _may_be_several(stream: str) -> bool:
    # Of a stream that is newer than this program nothing is known.
    return stream in _SEVERAL or stream not in ROLES or duty_of(Role(stream)) is not Duty.SINGLETON


def _of_mapping(process: Process, findings: Findings) -> None:
    """The instance map leads to a listener that carries replication, or to nothing."""
    mapped = process.mapped
    if mapped is None or not process.known or mapped.port is None:
        return
    there = [one for one in process.listeners if one.kind == "http" and one.port == mapped.port]
    if not there:
        ports = ", ".join(str(one.port) for one in process.listeners if one.kind == "http" and one.port) or "none"
        what = (
            f'instance_map says that "{process.id}" is at port {mapped.port}, and its http listeners are at {ports} ({process.place.file})'
        )
        findings.contradict(what, mapped.place)
    elif not any(one.replicates for one in there):
        findings.contradict(f'instance_map leads to this listener of "{process.id}", which doesn\'t carry replication', there[0].place)


def _of_metrics(process: Process, findings: Findings) -> None:
    """That there is no page at all is marked where its address is missing (reached.py)."""
    pages = [one for one in process.listeners if one.shows_metrics]
    if pages and process.values.get("enable_metrics") is not True:
        findings.contradict(f'"{process.id}" has a metrics listener, and enable_metrics is not true, so its page is empty', pages[0].place)


def _of_ports(processes: Iterable[Process], findings: Findings) -> None:
    """Two on one port of one machine. Whether it is one machine only the instance map can tell; it is taken to be, if that is silent."""
    taken: dict[int, list[tuple[Process, Listener]]] = {}
    for process in processes:
        for one in process.listeners:
            if one.port is None:
                continue
            for other, theirs in taken.setdefault(one.port, []):
                if _one_machine(process, other) and _overlap(one, theirs):
                    who = f'"{other.id}" ({theirs.place})' if other is not process else f"another listener of it ({theirs.place})"
                    findings.contradict(f'"{process.id}" listens on port {one.port}, and so does {who}', one.place)
                    break
            taken[one.port].append((process, one))


def _one_machine(one: Process, other: Process) -> bool:
    if one is other or one.mapped is None or other.mapped is None:
        return True
    return one.mapped.host == other.mapped.host


def _overlap(one: Listener, other: Listener) -> bool:
    return one.everywhere or other.everywhere or not set(one.addresses).isdisjoint(other.addresses)
