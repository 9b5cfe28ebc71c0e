"""
Stopping and starting units with systemctl, on the host that they run on.

It does what the driver `systemd_ssh` does from afar, in the same order and by the same commands (systemctl.py): look and ask sudo first,
so that what fails until then has not happened; then act; then look what became of it. Why so: docs/decisions/0009-hosts-over-ssh.md.

```
{"kind": "systemd", "do": "stop" | "start", "unit": "worker@sync1.service", "workers": {"worker@sync1.service": "sync1", …},
 "worker": "sync1", "on": "b", "user": "deploy", "timeout_s": 60.0}         *workers*: all units of the inventory on this host
```
"""

import subprocess
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from rollout.agent import systemctl
from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault
from rollout.agent.units import Unit, units_in

# Of targets that tie units together, one behind the other.
TIES_DEPTH_MAX = 5
# A look at units, and sudo's answer whether it would, take a tenth of a second.
LOOK_TIMEOUT_S = 10.0
LINES_SHOWN = 5
WHY_LINES_MAX = 3
# Their members may read what others wrote to the journal.
READERS = frozenset({"systemd-journal", "adm", "root"})


class Said(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str

    @property
    def why(self) -> str:
        return "\n".join(self.out.strip().splitlines()[-WHY_LINES_MAX:])


def do(act: Mapping[str, Any]) -> None:
    """Do what *act* says. Raises Fault."""
    {"stop": _stop, "start": _start}[act["do"]](act, monotonic() + act["timeout_s"])


def _stop(act: Mapping[str, Any], end_s: float) -> None:
    name, worker = act["unit"], act["worker"]
    argv = systemctl.stop(name)
    units = _before(act, (argv,))
    before = units[name]
    if others := {act["workers"][other]: why for other, why in stopped_with(name, units).items() if other in act["workers"]}:
        raise Fault(
            PERMANENT,
            f"stopping it would stop {', '.join(sorted(others))} as well",
            where=worker,
            why="\n".join(others[other] for other in sorted(others)),
            remedy="write Wants= and After= in its place (systemctl edit --full, on the host), then systemctl daemon-reload",
        )
    if before.gone:
        return
    told = run(as_root(argv, act["user"]), end_s, worker)
    unit = _seen(worker, name)
    if unit.gone:
        return
    if told.status != 0 and unit.running and not unit.busy and unit.invocation == before.invocation:
        raise Fault(TRANSIENT, "systemd does not stop it", where=worker, why=told.why)
    raise Fault(UNKNOWN, "it was told to stop and still runs", where=worker, why=f"{unit.active} ({unit.sub}) on host {act['on']}")


def _start(act: Mapping[str, Any], end_s: float) -> None:
    name, worker = act["unit"], act["worker"]
    argvs = (systemctl.forget_failures(name), systemctl.start(name))
    before = _before(act, argvs)[name]
    if before.up and before.active == "active":
        return
    told = [run(as_root(argv, act["user"]), end_s, worker) for argv in argvs]
    # Twice the same process, a moment apart, is one that runs.
    last = _seen(worker, name)
    now = _settled(worker, name)
    if told[1].status != 0 and now.gone and now.invocation == before.invocation:
        raise Fault(TRANSIENT, "systemd does not start it", where=worker, why=told[1].why)
    while not now.up or now.pid != last.pid:
        if has_failed(now, last):
            raise _failed(act, now)
        if monotonic() >= end_s:
            raise Fault(UNKNOWN, "it was told to start and does not run yet", where=worker, why=f"{now.active} ({now.sub})")
        last, now = now, _settled(worker, name)


def stopped_with(name: str, units: Mapping[str, Unit]) -> dict[str, str]:
    """Return which units are stopped with one, and by what setting. Raises Fault."""
    known = dict(units)
    taken: dict[str, str] = {}
    ask = {name}
    for _ in range(TIES_DEPTH_MAX):
        if strange := sorted(one for one in ask if one not in known):
            known |= _show(strange, TRANSIENT, name)
        found = {tied: f"{tied} has {setting}{one}" for one in ask for tied, setting in known[one].ties}
        found = {tied: why for tied, why in found.items() if tied not in taken and tied != name}
        if not found:
            break
        taken |= found
        ask = set(found)
    return taken


def has_failed(now: Unit, last: Unit) -> bool:
    if now.running:
        # Another process than a moment ago: systemd has started it again.
        return last.up and last.pid != now.pid
    return now.gone or now.sub.startswith("auto-restart")


def as_root(argv: Sequence[str], user: str) -> list[str]:
    """Put sudo before it, which never asks for a password; root needs none."""
    return [*argv] if user == "root" else ["sudo", "-n", "--", *argv]


def may_as_root(argv: Sequence[str], user: str, where: str) -> Said:
    """Ask sudo whether it would do so. Nothing is done. Raises Fault (TRANSIENT) when it doesn't say."""
    if user == "root":
        return Said(0, "")
    return run(["sudo", "-n", "-l", "--", *argv], monotonic() + LOOK_TIMEOUT_S, where, changes=False)


def _before(act: Mapping[str, Any], argvs: Sequence[Sequence[str]]) -> dict[str, Unit]:
    """Look at all units of this host, and ask whether sudo allows *argvs*. Raises Fault if nothing is to be done."""
    name, worker, user, host = act["unit"], act["worker"], act["user"], act["on"]
    units = _show([*dict.fromkeys((name, *act["workers"]))], TRANSIENT, worker)
    unit = units[name]
    # What runs although its file is gone can still be stopped.
    if unit.load == "not-found" and not unit.running:
        remedy = "unit or units in the inventory's workers_driver"
        raise Fault(PERMANENT, f"systemd on host {host} has no unit {name}", where=worker, remedy=remedy)
    if unit.load != "loaded" and not unit.running:
        remedy = f"systemctl status {name} on host {host}"
        raise Fault(PERMANENT, f"systemd on host {host} can't use unit {name} ({unit.load})", where=worker, remedy=remedy)
    for argv in argvs:
        answer = may_as_root(argv, user, worker)
        if answer.status != 0:
            raise not_allowed(argv, user, host, worker, answer)
    return units


def not_allowed(argv: Sequence[str], user: str, host: str, where: str, answer: Said) -> Fault:
    return Fault(
        PERMANENT,
        f"sudo does not let {user} run `{' '.join(argv)}` on host {host}",
        where=where,
        why=answer.why or "no rule of /etc/sudoers.d there has it, or one wants a password",
        remedy=f"install on {host} what `rollout sudoers --host {host} -i INVENTORY` prints",
    )


def _show(names: Sequence[str], kind: str, where: str) -> dict[str, Unit]:
    said = run(systemctl.show(names), monotonic() + LOOK_TIMEOUT_S, where, changes=False)
    units = units_in(said.out)
    if len(units) != len(names):
        remedy = f"{systemctl.SYSTEMCTL} show there by hand; systemd must be 247 or newer"
        raise Fault(kind, "systemctl doesn't say what it was asked", where=where, why=said.why, remedy=remedy)
    return dict(zip(names, units, strict=True))


def _seen(worker: str, name: str) -> Unit:
    """Look at a unit that was just told something, which may have happened even if the look fails."""
    try:
        return _show([name], UNKNOWN, worker)[name]
    except Fault as fault:
        raise Fault(UNKNOWN, "what became of it can't be seen", where=worker, why=fault.what) from fault


def _settled(worker: str, name: str) -> Unit:
    run(systemctl.settle(), monotonic() + LOOK_TIMEOUT_S, worker, changes=False)
    return _seen(worker, name)


def _failed(act: Mapping[str, Any], unit: Unit) -> Fault:
    host, user = act["on"], act["user"]
    try:
        end_s = monotonic() + LOOK_TIMEOUT_S
        told = run(systemctl.last_lines(unit.name, LINES_SHOWN), end_s, act["worker"], changes=False)
        groups = run(systemctl.groups(), end_s, act["worker"], changes=False).out.split()
    except Fault:
        told, groups = Said(1, ""), []
    lines = told.out.splitlines()[-LINES_SHOWN:] if told.status == 0 else []
    why = [unit.fate]
    if lines:
        why += [f"its last words: {lines[0]}", *lines[1:]]
    elif told.status == 0 and not READERS.isdisjoint(groups):
        why.append("it wrote nothing to the journal (its own log file may say more)")
    else:
        why.append(f"what it wrote is not known: {user} may not read the journal on host {host} (group systemd-journal)")
    remedy = f"journalctl -u {unit.name} on host {host}"
    return Fault(PERMANENT, "it exits as soon as it is started", where=act["worker"], why="\n".join(why), remedy=remedy)


def run(argv: Sequence[str], end_s: float, where: str, *, changes: bool = True) -> Said:
    """Run a command to its end. Raises Fault: UNKNOWN when one that *changes* something takes too long."""
    try:
        done = subprocess.run(  # noqa: S603  (a list, and no shell)
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(0.001, end_s - monotonic()),
            check=False,
            # What ends the agent doesn't end what it has begun.
            start_new_session=True,
        )
    except OSError as error:
        raise Fault(PERMANENT, f"{argv[0]} can't be run", where=where, why=str(error)) from error
    except subprocess.TimeoutExpired as error:
        kind = UNKNOWN if changes else TRANSIENT
        raise Fault(kind, "systemctl did not come back in time", where=where, why=" ".join(argv)) from error
    return Said(done.returncode, done.stdout.decode(errors="replace"))
