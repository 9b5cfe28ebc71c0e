"""
systemd over SSH: a look at all workers is one round trip to each host, hosts side by side; a stop or a start takes two.

**When a process was started** is told by its host's clock, as systemd wrote it down then, to a microsecond. The engine compares it with
when the worker's link was switched, which is the time of a file on the same host: the two agree however wrong that clock is, and a clock
that is set later moves neither (what `ExecMainStartTimestampMonotonic` and the boot time give would move, so it isn't used). But what
became of a restart whose outcome is unknown is told by whether the process is younger than the rollout's intent, which is this machine's
time. So every look compares the clocks, and a host whose clock is off by more than a second is not
believed (rollout.adapters.clocks).

**Who goes with whom.** Stopping a unit stops those that have `Requires=`, `Requisite=`, `BindsTo=` or `PartOf=` to it, through targets,
too. A rollout that stops main must not take its workers along unseen: such a stop is refused. Of units that don't run systemd may have
forgotten this; they have nothing to lose.

**Doubt.** Before anything is sent that changes something, the host is asked whether sudo allows it: what fails until then has not
happened. After that, no answer means that nobody knows, and nothing is sent again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic, time  # noqa: TID251  (how long a host takes, and this machine's clock, are what this is about)
from typing import TYPE_CHECKING

from rollout.adapters.asking_sudo import not_allowed
from rollout.adapters.clocks import check_clock
from rollout.adapters.remote_commands import Argv, Said, as_root, may_as_root
from rollout.adapters.side_by_side import ask_all
from rollout.adapters.ssh_shared import Hosts
from rollout.adapters.workers.systemd_ssh import refusals
from rollout.adapters.workers.systemd_ssh.settings import SystemdSshSettings, read_settings
from rollout.agent import systemctl as commands
from rollout.agent.units import Unit, units_in
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.ports.acts import Acts, at_hosts
from rollout.ports.privileges import Privileges

if TYPE_CHECKING:
    from rollout.adapters.ssh import Host

LINES_TIMEOUT_S = 5.0
LINES_SHOWN = 5
# Of targets that tie units together, one behind the other.
TIES_DEPTH_MAX = 5
# Their members may read what others wrote to the journal.
_READERS = frozenset({"systemd-journal", "adm", "root"})


def build(settings: Mapping[str, object], inventory: Inventory) -> "SystemdSsh":
    """Open the driver; nothing is connected yet."""
    checked, places = read_settings(settings, inventory)
    return SystemdSsh(checked, places)


@dataclass(frozen=True, slots=True)
class Process:
    """See ports.workers.ProcessState."""

    running: bool
    started_at_s: float | None


class SystemdSsh:
    """See ports.workers. For use by several threads."""

    def __init__(self, settings: SystemdSshSettings, places: Mapping[WorkerId, tuple[str, str]]) -> None:
        self._settings = settings
        self._places = dict(places)
        self._workers = {place: worker for worker, place in self._places.items()}
        self._hosts = Hosts(settings.hosts, settings.connect_timeout_s)

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> dict[WorkerId, Process]:
        """
        See ports.workers.

        One host that can't be asked makes the whole look fail: its workers, left out, would read as unknown to systemd.
        """
        by_host: dict[str, list[WorkerId]] = {}
        for worker in workers:
            if worker in self._places:
                by_host.setdefault(self._places[worker][0], []).append(worker)
        seen = ask_all({host: partial(self._look_at, host, asked, timeout_s) for host, asked in by_host.items()})
        return {worker: process for processes in seen.values() for worker, process in processes.items()}

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers. PermanentDriverError also when it would take other workers along, or sudo doesn't allow it."""
        end_s = monotonic() + timeout_s
        host, name = self._place(worker)
        argv = commands.stop(name)
        before = self._before(worker, (argv,), end_s)
        self._refuse_to_take_along(worker, host, before, end_s)
        if before[name].gone:
            return
        told, (unit,) = self._act(worker, (argv,), 1, end_s)
        if unit.gone:
            return
        if told[0].status != 0 and unit.running and not unit.busy and unit.invocation == before[name].invocation:
            raise TransientDriverError("systemd does not stop it", where=worker, why=told[0].why)
        raise OutcomeUnknownError("it was told to stop and still runs", where=worker, why=f"{unit.active} ({unit.sub}) on host {host}")

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers. Its exit status, how often systemd has tried and its last lines are in the error when it exits at once."""
        end_s = monotonic() + timeout_s
        host, name = self._place(worker)
        acts = (commands.forget_failures(name), commands.start(name))
        before = self._before(worker, acts, end_s)[name]
        if before.up and before.active == "active":
            return
        # Twice the same process, a moment apart, is one that runs.
        told, (last, now) = self._act(worker, acts, 2, end_s)
        if told[1].status != 0 and now.gone and now.invocation == before.invocation:
            raise TransientDriverError("systemd does not start it", where=worker, why=told[1].why)
        while not now.up or now.pid != last.pid:
            if self._has_failed(now, last):
                raise self._failed(worker, host, now)
            if monotonic() >= end_s:
                raise OutcomeUnknownError("it was told to start and does not run yet", where=worker, why=f"{now.active} ({now.sub})")
            last, now = now, self._watch(worker, end_s)

    def stop_acts(self, worker: WorkerId, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._as_acts("stop", worker, timeout_s)

    def start_acts(self, worker: WorkerId, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._as_acts("start", worker, timeout_s)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers. journalctl prints nothing to who may not read it, so of an empty answer nobody knows what it means."""
        if worker not in self._places:
            return ()
        try:
            return self._lines(worker, lines_max)[0]
        except DriverError:
            return ()

    def privileges(self) -> tuple[Privileges, ...]:
        """See ports.privileges."""
        return tuple(
            Privileges(
                host=name,
                reached=entry.spelled(),
                user=entry.user,
                commands=tuple(argv for host, unit in self._places.values() if host == name for argv in commands.acts_as_root(unit)),
            )
            for name, entry in self._settings.hosts.items()
            if any(host == name for host, _ in self._places.values())
        )

    def not_allowed(self, timeout_s: float) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_allowed(self.privileges(), self._host, timeout_s)

    def close(self) -> None:
        """End all connections that no other driver uses."""
        self._hosts.close()

    def _as_acts(self, do: str, worker: WorkerId, timeout_s: float) -> Acts:
        """Write down what `stop` and `start` do, for the agent on the worker's host (rollout.agent.systemd)."""
        host, unit = self._place(worker)
        act = {
            "kind": "systemd",
            "on": host,
            "do": do,
            "unit": unit,
            "worker": worker,
            "workers": {name: other for (on, name), other in self._workers.items() if on == host},
            "user": self._settings.hosts[host].user,
            "timeout_s": timeout_s,
        }
        return at_hosts({host: (act,)})

    def _look_at(self, name: str, workers: Sequence[WorkerId], timeout_s: float) -> dict[WorkerId, Process]:
        names = [self._places[worker][1] for worker in workers]
        sent_s = time()
        clock, shown = self._host(name).run((commands.clock(), commands.show(names)), timeout_s, changes=False)
        check_clock(self._host(name).where, sent_s, clock, time())
        units = self._read(name, shown, names)
        known = {worker: units[self._places[worker][1]] for worker in workers}
        return {
            worker: Process(unit.running, unit.started_at_s) for worker, unit in known.items() if unit.load != "not-found" or unit.running
        }

    def _read(self, host: str, shown: Said, names: Sequence[str]) -> dict[str, Unit]:
        units = units_in(shown.out)
        if len(units) != len(names):
            where, remedy = self._host(host).where, f"{commands.SYSTEMCTL} show there by hand; systemd must be 247 or newer"
            raise TransientDriverError("systemctl doesn't say what it was asked", where=where, why=shown.why, remedy=remedy)
        return dict(zip(names, units, strict=True))

    def _before(self, worker: WorkerId, acts: Sequence[Argv], end_s: float) -> dict[str, Unit]:
        """Look at all units of the worker's host, and ask whether sudo allows *acts*. Raises DriverError if nothing is to be done."""
        host, name = self._place(worker)
        user = self._settings.hosts[host].user
        names = [unit for other, unit in self._places.values() if other == host]
        asked = (commands.show(names), *(may_as_root(argv, user) for argv in acts))
        shown, *allowed = self._host(host).run(asked, end_s - monotonic(), changes=False)
        units = self._read(host, shown, names)
        # What runs although its file is gone can still be stopped.
        if units[name].load != "loaded" and not units[name].running:
            raise refusals.not_loaded(worker, host, name, units[name])
        for argv, answer in zip(acts, allowed, strict=True):
            if answer.status != 0:
                raise refusals.not_allowed(worker, host, user, argv, answer)
        return units

    def _act(self, worker: WorkerId, acts: Sequence[Argv], looks: int, end_s: float) -> tuple[tuple[Said, ...], list[Unit]]:
        """Do *acts*, and look afterwards, a moment apart; all in one round trip."""
        host, name = self._place(worker)
        user = self._settings.hosts[host].user
        shown = commands.show([name])
        after = (shown, *(argv for _ in range(looks - 1) for argv in (commands.settle(), shown)))
        try:
            told = self._host(host).run((*(as_root(argv, user) for argv in acts), *after), end_s - monotonic(), changes=True)
        except OutcomeUnknownError as error:
            what = f"whether it was told to {'stop' if acts[0] == commands.stop(name) else 'start'} is not known: {error.what}"
            raise OutcomeUnknownError(what, where=worker, why=f"{error.where}: {error.why}") from error
        return told[: len(acts)], [self._seen(worker, host, name, said) for said in told[len(acts) :: 2]]

    def _watch(self, worker: WorkerId, end_s: float) -> Unit:
        host, name = self._place(worker)
        try:
            _, shown = self._host(host).run((commands.settle(), commands.show([name])), end_s - monotonic(), changes=False)
        except DriverError as error:
            refusals.lost_sight(worker, error)
        return self._seen(worker, host, name, shown)

    def _seen(self, worker: WorkerId, host: str, name: str, shown: Said) -> Unit:
        try:
            return self._read(host, shown, [name])[name]
        except TransientDriverError as error:
            refusals.lost_sight(worker, error)

    def _refuse_to_take_along(self, worker: WorkerId, host: str, units: Mapping[str, Unit], end_s: float) -> None:
        taken = self._stopped_with(host, self._places[worker][1], units, end_s)
        others = {self._workers[host, name]: why for name, why in taken.items() if (host, name) in self._workers}
        if others:
            lines = {other: f"{self._places[other][1]} has {why}" for other, why in others.items()}
            raise refusals.takes_along(worker, lines)

    def _stopped_with(self, host: str, name: str, units: Mapping[str, Unit], end_s: float) -> dict[str, str]:
        """Return which units are stopped with one, and by what setting."""
        known = dict(units)
        taken: dict[str, str] = {}
        ask: Collection[str] = {name}
        for _ in range(TIES_DEPTH_MAX):
            if strange := sorted(one for one in ask if one not in known):
                shown, *_ = self._host(host).run((commands.show(strange),), end_s - monotonic(), changes=False)
                known |= self._read(host, shown, strange)
            found = {tied: f"{setting}{one}" for one in ask for tied, setting in known[one].ties if tied not in taken and tied != name}
            if not found:
                break
            taken |= found
            ask = found.keys()
        return taken

    @staticmethod
    def _has_failed(now: Unit, last: Unit) -> bool:
        if now.running:
            # Another process than a moment ago: systemd has started it again.
            return last.up and last.pid != now.pid
        return now.gone or now.sub.startswith("auto-restart")

    def _failed(self, worker: WorkerId, host: str, unit: Unit) -> PermanentDriverError:
        try:
            last_words = self._lines(worker, LINES_SHOWN)
        except DriverError:
            last_words = (), False
        return refusals.exits_at_once(worker, host, self._settings.hosts[host].user, unit, last_words)

    def _lines(self, worker: WorkerId, lines_max: int) -> tuple[tuple[str, ...], bool]:
        """Return its last lines, and whether we may read them at all."""
        host, name = self._place(worker)
        asked = (commands.last_lines(name, lines_max), commands.groups())
        told, groups = self._host(host).run(asked, LINES_TIMEOUT_S, changes=False)
        readable = told.status == 0 and not _READERS.isdisjoint(groups.out.split())
        return tuple(told.out.splitlines()[-lines_max:]) if told.status == 0 else (), readable

    def _place(self, worker: WorkerId) -> tuple[str, str]:
        if worker not in self._places:
            raise PermanentDriverError("the inventory has no worker of this name", where=worker)
        return self._places[worker]

    def _host(self, name: str) -> "Host":
        return self._hosts.get(name)
