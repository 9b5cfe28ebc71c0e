"""What `systemctl show` says of units, read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

# Stopping a unit stops those in these lists of its properties; each is the other end of the setting beside it in the other unit's file.
TIES: Mapping[str, str] = {
    "RequiredBy": "Requires=",
    "RequisiteOf": "Requisite=",
    "BoundBy": "BindsTo=",
    "ConsistsOf": "PartOf=",
    "PropagatesStopTo": "StopPropagatedFrom=",
}
_CODES: Mapping[str, str] = {"1": "exited with status", "2": "was killed by signal", "3": "was killed, with a core dump, by signal"}
_ENDED = frozenset({"inactive", "failed"})


@dataclass(frozen=True, slots=True)
class Unit:
    """
    One unit. *running*: its main process is there. *started_at_s*: when that one was started, by the host's clock at that time, to 1 µs.
    *ties*: (unit, by what) that are stopped with it.
    """

    name: str
    load: str
    active: str
    sub: str
    pid: int
    busy: bool
    invocation: str
    started_at_s: float | None
    exit: str
    result: str
    restarts: int
    ties: tuple[tuple[str, str], ...]

    @property
    def running(self) -> bool:
        return self.pid != 0

    @property
    def up(self) -> bool:
        """It runs, and isn't about to end."""
        return self.running and self.active != "deactivating"

    @property
    def gone(self) -> bool:
        """Nothing of it runs, and nothing is about to."""
        return not self.running and not self.busy and self.active in _ENDED

    @property
    def fate(self) -> str:
        """Say how it ended, and how often systemd has started it again by itself."""
        ends = [self.exit] if self.exit else []
        if self.result not in {"", "success"}:
            ends.append(f"systemd: {self.result}")
        return ", ".join([*ends, f"NRestarts={self.restarts}"])


def units_in(shown: str) -> list[Unit]:
    """Read the blocks of `systemctl show`, in their order."""
    return [_unit(properties) for properties in _blocks(shown)]


def _blocks(shown: str) -> Iterator[dict[str, str]]:
    block: dict[str, str] = {}
    for line in [*shown.splitlines(), ""]:
        key, equals, value = line.partition("=")
        if equals:
            block[key] = value
        elif not line:
            # A service of which it isn't said whether it has a process is no answer, or it would read as one that doesn't run.
            if "Id" in block and (block.get("MainPID", "").isdecimal() or not block["Id"].endswith(".service")):
                yield block
            block = {}


def _unit(properties: Mapping[str, str]) -> Unit:
    pid = _number(properties.get("MainPID", ""))
    started = properties.get("ExecMainStartTimestamp", "")
    code = _CODES.get(properties.get("ExecMainCode", ""), "")
    return Unit(
        name=properties["Id"],
        load=properties.get("LoadState", ""),
        active=properties.get("ActiveState", ""),
        sub=properties.get("SubState", ""),
        pid=pid,
        busy=_number(properties.get("Job", "")) != 0 or _number(properties.get("ControlPID", "")) != 0,
        invocation=properties.get("InvocationID", ""),
        started_at_s=time_of(started) if pid and started else None,
        exit=f"it {code} {properties.get('ExecMainStatus', '')}" if code and not pid else "",
        result=properties.get("Result", ""),
        restarts=_number(properties.get("NRestarts", "")),
        ties=tuple((other, setting) for key, setting in TIES.items() for other in properties.get(key, "").split()),
    )


def time_of(stamp: str) -> float | None:
    """Read a time as `--timestamp=us+utc` prints it, `Sun 2026-11-29 10:51:13.774221 UTC`; None for anything else."""
    try:
        return datetime.strptime(stamp.partition(" ")[2], "%Y-%m-%d %H:%M:%S.%f %Z").replace(tzinfo=timezone.utc).timestamp()  # noqa: UP017  (hosts may have Python 3.10)
    except ValueError:
        return None


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
