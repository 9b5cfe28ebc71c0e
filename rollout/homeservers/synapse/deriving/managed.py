"""
Which unit of systemd starts which process, and what restarting main does to others.

A unit names the files that its process reads. That of a template stands for many: `%i` in a file's name is the instance's. In a container
the same file has another path, so where no path is the same, the file's name decides.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rollout.homeservers.synapse.deriving.findings import Findings
from rollout.homeservers.synapse.deriving.processes import Process
from rollout.homeservers.synapse.deriving.sources import Place, Unit
from rollout.homeservers.synapse.topology import MAIN
from rollout.model.ids import WorkerId

_INSTANCE = re.compile(r"%[iI]")


@dataclass(frozen=True, slots=True)
class Managed:
    """That *unit*, by the name *name* (with the instance in it), starts *process*."""

    process: Process
    name: str
    unit: Unit


def managed_by(processes: Sequence[Process], units: Sequence[Unit], findings: Findings) -> dict[WorkerId, Managed]:
    """Find the unit of each process. Says which have none, what isn't enabled, and what starts nobody."""
    found: dict[WorkerId, Managed] = {}
    for process in processes:
        matched = next(_main(process, units) if process.is_main else _workers(process, units), None)
        if matched is not None:
            found[process.id] = matched
    for one in found.values():
        _say_if_not_enabled(one, findings)
    _say_what_goes_along(found, findings)
    _say_what_starts_nobody(units, found, findings)
    return found


def _main(process: Process, units: Iterable[Unit]) -> Iterator[Managed]:
    return (Managed(process, unit.name, unit) for unit in units if unit.main)


def _workers(process: Process, units: Sequence[Unit]) -> Iterator[Managed]:
    for same in (_same_path, _same_name):
        for unit in units:
            for configured in unit.configs:
                if process.file is not None and (instance := same(configured, process.file)) is not None:
                    yield Managed(process, unit.name.replace("@.", f"@{instance}."), unit)


def _same_path(configured: str, file: str) -> str | None:
    before, marker, after = _split(configured)
    if not marker:
        return "" if configured == file else None
    middle = file[len(before) : len(file) - len(after)]
    return middle if file == f"{before}{middle}{after}" and middle and "/" not in middle else None


def _same_name(configured: str, file: str) -> str | None:
    return _same_path(configured.rpartition("/")[2], file.rpartition("/")[2])


def _split(configured: str) -> tuple[str, str, str]:
    parts = _INSTANCE.split(configured, maxsplit=1)
    return (parts[0], "%i", parts[1]) if len(parts) > 1 else (configured, "", "")


def _say_if_not_enabled(one: Managed, findings: Findings) -> None:
    enabled = {one.unit.name.replace("@.", f"@{instance}.") for instance in one.unit.instances}
    if enabled and one.name not in enabled:
        at = ("workers_driver", "units", one.process.id)
        findings.doubtful(at, f"{one.name} is not enabled, as others of {one.unit.name} are", f"systemctl status {one.name}: does it run?")


def _say_what_goes_along(found: dict[WorkerId, Managed], findings: Findings) -> None:
    """Restarting main would cut what these serve, however gently they were drained before."""
    main = next((one.name for one in found.values() if one.process.is_main), None)
    said: dict[str, list[tuple[str, Place]]] = {}
    for one in found.values():
        for tie in one.unit.ties:
            if tie.unit == main and not one.process.is_main:
                said.setdefault(tie.verb, []).append((one.process.id, tie.place))
    for verb, those in said.items():
        lines = list(dict.fromkeys(place for _, place in those))
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        findings.doubtful(
            ("workers_driver", "units", MAIN),
            f"systemd takes {', '.join(worker for worker, _ in those)} down along with {main}: {verb}={main} ({lines[0]}{more})",
            "Wants= in its place, and After= for the order (systemctl edit --full)",
        )


def _say_what_starts_nobody(units: Iterable[Unit], found: dict[WorkerId, Managed], findings: Findings) -> None:
    started = {one.name for one in found.values()}
    for unit in units:
        # A template by itself starts nobody; Debian's package brings one along.
        names = [unit.name.replace("@.", f"@{instance}.") for instance in unit.instances] if "@." in unit.name else [unit.name]
        for name in names:
            if unit.configs and name not in started:
                findings.contradict(f"{name} starts a worker of which no file was read", unit.place)
