"""Who starts and stops the workers, and from where: the inventory's drivers for workers and releases."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.managed import Managed
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.sources import Sources, Supervisor, Unit
from rollout.model.ids import WorkerId

# What a worker's `host` is where it isn't said.
LOCAL = "local"
# Where the driver for virtual environments has each worker's own.
_TARGET = re.compile(r"(/.+)/current/[^/]+/venv/bin/python[\d.]*\Z")


def starts_synapse(units: Iterable[Unit]) -> bool:
    """Tell whether any of the units starts a part of Synapse."""
    return any(unit.main or unit.configs for unit in units)


def supervised(sources: Sources, processes: Sequence[Process]) -> Supervisor | None:
    """Return supervisord, if it starts any of the processes: each by the name that it has itself."""
    names = {process.id for process in processes}
    return sources.supervisor if sources.supervisor and any(one.name in names for one in sources.supervisor.programs) else None


def derive_workers_driver(
    sources: Sources,
    processes: Sequence[Process],
    managed: Mapping[WorkerId, Managed],
    hosts: Collection[str],
    findings: Findings,
) -> dict[str, object]:
    """Return the section; what is missing in it is None, and marked. *hosts* are the machines, empty for the proxy's own."""
    if (supervisor := supervised(sources, processes)) is not None:
        return _supervisor(supervisor, processes, findings)
    if starts_synapse(sources.units):
        return _systemd(processes, managed, hosts, findings)
    if sources.supervisor is not None:
        names = ", ".join(one.name for one in sources.supervisor.programs) or "none"
        why = f"supervisord starts none of the workers by its name (its programs: {names})"
    elif sources.looked_for_units:
        why = f"no unit that starts Synapse was found in {', '.join(sources.looked_for_units)}"
    else:
        why = "no unit was given"
    look = "for systemd --units DIRECTORY, for supervisord --supervisord FILE"
    findings.missing(("workers_driver", "socket"), why, f"{look}; or `file` under [unix_http_server] in supervisord's configuration")
    return {"driver": "supervisor", "socket": None}


def derive_releases_driver(
    sources: Sources, processes: Sequence[Process], managed: Mapping[WorkerId, Managed], findings: Findings
) -> dict[str, object]:
    """Return the section: where releases are is only told where they are where the driver would have them."""
    supervisor = supervised(sources, processes)
    if supervisor is not None:
        names = {process.id for process in processes}
        programs = [one.program for one in supervisor.programs if one.name in names]
    else:
        programs = [one.unit.program for one in managed.values() if one.unit.program]
    targets = {match[1] for program in programs if (match := _TARGET.match(program))}
    target = next(iter(targets)) if len(targets) == 1 else None
    if target is None:
        now = f"; now {', '.join(dict.fromkeys(programs))} is started" if programs else ""
        if any(one.unit.container for one in managed.values()):
            now = "; now containers are started, whose releases are images, and this driver makes virtual environments"
        look = "a directory; each worker is then started by DIRECTORY/current/WORKER/venv/bin/python (examples/lab/inventory.yaml)"
        findings.missing(("releases_driver", "target"), f"no file says where releases shall be made{now}", look)
    findings.missing(
        ("releases_driver", "locks"),
        "no file says where the recorded requirements of each release are",
        "a directory with VERSION.txt, with hashes",
    )
    return {"driver": "venv", "target": target, "locks": None}


def _supervisor(supervisor: Supervisor, processes: Sequence[Process], findings: Findings) -> dict[str, object]:
    here = ("workers_driver", "socket")
    if supervisor.socket is None:
        findings.missing(here, f"no `file` under [unix_http_server] in {', '.join(supervisor.files)}", "one; rollout speaks to that socket")
    for gap in supervisor.gaps:
        findings.doubtful(here, f"{gap.what} ({gap.place})", gap.look)
    names = {one.name for one in supervisor.programs}
    for process in processes:
        if process.id not in names:
            findings.doubtful(
                ("workers", process.id),
                f"supervisord has no program of this name ({', '.join(supervisor.files)})",
                "the program's name, as this worker's name here: the two must be the same",
            )
    return {"driver": "supervisor", "socket": supervisor.socket}


def _systemd(
    processes: Sequence[Process], managed: Mapping[WorkerId, Managed], hosts: Collection[str], findings: Findings
) -> dict[str, object]:
    places: dict[str, object] = {}
    for host in dict.fromkeys(hosts):
        places[host or LOCAL] = {"address": host or "127.0.0.1", "user": None}
        where = host or "this machine"
        look = "a user who may start and stop the units, by sudo; its key, and the host's own in known_hosts"
        findings.missing(("workers_driver", "hosts", host or LOCAL, "user"), f"no file says as whom rollout shall log in to {where}", look)
    units = {process.id: managed[process.id].name if process.id in managed else None for process in processes}
    for process in processes:
        if units[process.id] is None:
            why = f"no unit names {process.file}" if process.file else "it has no file that a unit could name"
            why = "no unit starts synapse.app.homeserver" if process.is_main else why
            findings.missing(("workers_driver", "units", process.id), why, "systemctl list-units '*synapse*'")
    return {"driver": "systemd_ssh", "hosts": places, "units": units}
