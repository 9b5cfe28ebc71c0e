"""
What it costs to look at workers on hosts and to restart them over SSH, side by side, on two real hosts with systemd.

rollout            the driver systemd_ssh, all checks on: a look at everybody before and after each restart, ties and sudo before each act
Fabric, kept       a plain loop, one command after another, on one connection to each host that is kept
Fabric, fresh      the same, with a connection for each command
ansible-playbook   a play of a task for each thing, one worker after the other, as Ansible is set up when nothing is said;
… pipelining       with `pipelining`, which is the least that it can be made to cost

Each is a process of its own, which does a thing once, and another which does it some times more. *first s* is from the start to the end of
the first time, *each s* every further time. *cpu s* is the processor time of this machine for each (without ssh's process that keeps
Ansible's connections), *commands* and *connections* are those that the hosts' sshd had, for each. *beyond s* is what it takes beyond the
stop and start themselves (`systemctl`, asked on the host). *of Ansible's* compares that, or the look, with ansible-playbook's.
"""

import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from rollout.model.ids import WorkerId
from tests.benchmarks import ssh_ways
from tests.hosts.bed import USER, Bed, hosts
from tests.hosts.units import STEADY, TEMPLATE, install, settings_for, unit

ANSIBLE = "ansible-core==2.18.19"
INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 300
WORKERS = 8
FURTHER = {"look": 4, "restart": 4}
TIMES = 3
SHARE_MAX = 1 / 3
ANSIBLES = ("ansible-playbook", "… pipelining")
WAYS = {"rollout": "rollout", "Fabric, kept": "kept", "Fabric, fresh": "fresh"}

_NUMBERS = itertools.count(1)

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: seconds, and what sshd had."""

    wall_s: float
    cpu_s: float
    commands: int
    connections: int


def measure(place: Path) -> list[Row]:
    """Boot the hosts, and let everybody do it."""
    ansible, why_not = _install_ansible(place.resolve().parents[1] / "ansible")
    with hosts(place.resolve() / "beds", "a", "b") as bed:
        places = {WorkerId(f"sync{number}"): "ab"[number % 2] for number in range(WORKERS)}
        _prepare(bed, places)
        file = bed.place / "given.json"
        file.write_text(json.dumps({"settings": settings_for(bed), "places": places}))
        rows = []
        for what in ("look", "restart"):
            runs = {name: _ours(way, what, file) for name, way in WAYS.items()}
            if ansible is not None:
                runs |= {name: _ansible(ansible, what, bed, places, pipelining=name == ANSIBLES[1]) for name in ANSIBLES}
            bare_s = _bare_s(bed, places) if what == "restart" else 0.0
            rows += _rows(what, {name: _cost(bed, run, 1 + FURTHER[what]) for name, run in runs.items()}, bare_s, why_not)
    return rows


def _rows(what: str, costs: Mapping[str, tuple[Cost, Cost]], bare_s: float, why_not: str) -> list[Row]:
    reference = costs[ANSIBLES[0]][1].wall_s - bare_s if ANSIBLES[0] in costs else None
    title = {"look": f"a look at {WORKERS} workers", "restart": "stop and start of a worker"}[what]
    rows: list[Row] = []
    for name, (first, each) in costs.items():
        beyond_s = each.wall_s - bare_s
        share = None if reference is None else beyond_s / reference
        goal = None if share is None or name != "rollout" else "yes" if share <= SHARE_MAX else "NO"
        rows.append(
            {
                "what": title,
                "by": name,
                "first s": round(first.wall_s, 2),
                "each s": round(each.wall_s, 3),
                "beyond s": round(beyond_s, 3),
                "cpu s": round(each.cpu_s, 3),
                "commands": each.commands,
                "connections": each.connections,
                "of Ansible's": None if share is None else f"{100 * share:.0f} %",
                "≤ 33 %": goal,
            }
        )
    if why_not:
        rows.append({**dict.fromkeys(rows[0]), "what": title, "by": f"ansible-playbook could not be had: {why_not}", "≤ 33 %": "NOT KNOWN"})
    return rows


def _cost(bed: Bed, run: Callable[[int], None], times: int) -> tuple[Cost, Cost]:
    """Return what a process costs that does it once, and what each further time costs."""
    once, often = [], []
    # In turns, so that neither has the quiet part of the minute for itself.
    for _ in range(TIMES):
        once.append(_run(bed, run, 1))
        often.append(_run(bed, run, times))
    first, all_of_them = (
        Cost(median(one.wall_s for one in runs), median(one.cpu_s for one in runs), runs[0].commands, runs[0].connections)
        for runs in (once, often)
    )
    more = times - 1
    each = Cost(
        (all_of_them.wall_s - first.wall_s) / more,
        (all_of_them.cpu_s - first.cpu_s) / more,
        round((all_of_them.commands - first.commands) / more),
        round((all_of_them.connections - first.connections) / more),
    )
    return first, each


def _run(bed: Bed, run: Callable[[int], None], times: int) -> Cost:
    had = _had(bed)
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.perf_counter()
    run(times)
    wall_s = time.perf_counter() - began_s
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    commands, connections = (now - before for now, before in zip(_had(bed), had, strict=True))
    return Cost(wall_s, cpu_s, commands, connections)


def _had(bed: Bed) -> tuple[int, int]:
    """Count what the hosts' sshd has written down: commands, and connections."""
    logged = [sum(bed.logged(host, words) for host in bed.addresses) for words in ("Starting session", "Accepted publickey")]
    return logged[0], logged[1]


def _ours(way: str, what: str, file: Path) -> Callable[[int], None]:
    command = [sys.executable, "-m", ssh_ways.__name__, way, what]
    return lambda times: _call([*command, str(times), str(file)])


def _call(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False, env=environment)
    if done.returncode != 0:
        msg = f"{' '.join(command[:6])} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        raise RuntimeError(msg)


def _bare_s(bed: Bed, places: Mapping[WorkerId, str]) -> float:
    """How long systemd itself takes to stop and start one, asked on the host."""
    script = 'a=$(date +%s%N); systemctl stop "$0"; systemctl start "$0"; b=$(date +%s%N); echo $((b - a))'
    found = [int(bed.run(host, "bash", "-c", script, TEMPLATE.format(worker=worker))) / 1e9 for worker, host in places.items()]
    return median(found)


def _prepare(bed: Bed, places: Mapping[WorkerId, str]) -> None:
    """Start the workers; `deploy` may do all as root, which Ansible asks for."""
    for host in bed.addresses:
        install(bed, host, {"worker@.service": unit(STEADY)})
        bed.write(host, "/etc/sudoers.d/bench", f"{USER} ALL=(root) NOPASSWD: ALL\n", "440")
    for worker, host in places.items():
        bed.run(host, "systemctl", "start", TEMPLATE.format(worker=worker))


def _ansible(binary: Path, what: str, bed: Bed, places: Mapping[WorkerId, str], *, pipelining: bool) -> Callable[[int], None]:
    place = bed.place / f"ansible-{what}-{pipelining}"
    place.mkdir()
    shared = {
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(bed.identity_file),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={bed.known_hosts} -o StrictHostKeyChecking=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    known = {name: {"ansible_host": address} for name, address in bed.addresses.items()}
    (place / "hosts.yaml").write_text(yaml.safe_dump({"all": {"hosts": known, "vars": shared}}))
    environment = {
        "PATH": f"{binary.parent}:/usr/bin:/bin",
        "HOME": str(place),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_PIPELINING": str(pipelining),
    }

    def run(times: int) -> None:
        # Each process connects anew, as ours does.
        environment["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(bed.place / f"c{next(_NUMBERS)}")
        book = place / f"{times}.yaml"
        book.write_text(yaml.safe_dump(_plays(what, places, times), sort_keys=False))
        _call([str(binary), "-i", str(place / "hosts.yaml"), str(book)], environment)

    return run


def _plays(what: str, places: Mapping[WorkerId, str], times: int) -> list[dict[str, object]]:
    """A look is a play on both hosts at once; a restart one for each worker, one after the other."""
    units = {worker: TEMPLATE.format(worker=worker) for worker in places}
    if what == "look":
        of_host = {host: [units[worker] for worker in places if places[worker] == host] for host in set(places.values())}
        command = ["systemctl", "show", "--property=ActiveState,MainPID", "{{ item }}"]
        task = {"ansible.builtin.command": {"argv": command}, "loop": "{{ units[inventory_hostname] }}", "changed_when": False}
        return [{"hosts": "all", "gather_facts": False, "vars": {"units": of_host}, "tasks": [task]}] * times
    chosen = [list(places)[number % len(places)] for number in range(times)]
    return [
        {
            "hosts": places[worker],
            "gather_facts": False,
            "tasks": [
                *({"ansible.builtin.systemd": {"name": units[worker], "state": state}, "become": True} for state in ("stopped", "started")),
                {"ansible.builtin.command": {"argv": ["systemctl", "is-active", units[worker]]}, "changed_when": False},
            ],
        }
        for worker in chosen
    ]


def _install_ansible(place: Path) -> tuple[Path | None, str]:
    """Return ansible-playbook in an environment of its own, or why there is none."""
    binary = place / "bin/ansible-playbook"
    if binary.exists():
        return binary, ""
    try:
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(place / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--no-input", ANSIBLE],
        ):
            subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=True)
    except subprocess.CalledProcessError as error:
        return None, (error.stderr or error.stdout).strip().splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return (binary, "") if binary.exists() else (None, f"{ANSIBLE} has no ansible-playbook")
