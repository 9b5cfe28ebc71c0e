"""
What is run on a host with systemd, word for word. Whatever changes something is in `acts_as_root`: what sudo must allow, and nothing else.

systemctl is named by its whole path, because sudoers goes by it.
"""

from collections.abc import Sequence

Argv = tuple[str, ...]
SYSTEMCTL = "/usr/bin/systemctl"
# A process that exits at once has usually done so by then.
SETTLE_S = 0.2
# Whether it runs and since when; why not; and who else is stopped with it.
_ASKED = (
    "Id", "LoadState", "ActiveState", "SubState", "Job", "MainPID", "ControlPID", "InvocationID",
    "ExecMainStartTimestamp", "ExecMainCode", "ExecMainStatus", "Result", "NRestarts",
    "RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "PropagatesStopTo",
)  # fmt: skip


def show(units: Sequence[str]) -> Argv:
    """Say what is known of *units*: one block each, in this order. Needs no rights. `us+utc` since systemd 247."""
    return (SYSTEMCTL, "show", "--no-pager", "--timestamp=us+utc", f"--property={','.join(_ASKED)}", *units)


def stop(unit: str) -> Argv:
    """Stop it; returns when it is gone."""
    return (SYSTEMCTL, "stop", unit)


def start(unit: str) -> Argv:
    """Begin to start it. Not waited for: of a unit that says itself when it is ready (Synapse's do) that would take all of its boot."""
    return (SYSTEMCTL, "start", "--no-block", unit)


def forget_failures(unit: str) -> Argv:
    """Have it start although a bad release has failed often lately: systemd would refuse the way back (`start-limit-hit`)."""
    return (SYSTEMCTL, "reset-failed", unit)


def acts_as_root(unit: str) -> tuple[Argv, ...]:
    return (stop(unit), start(unit), forget_failures(unit))


def settle() -> Argv:
    return ("sleep", str(SETTLE_S))


def clock() -> Argv:
    """Print the host's time, in seconds since the epoch."""
    return ("date", "+%s.%N")


def last_lines(unit: str, lines_max: int) -> Argv:
    """Print what the unit's own processes wrote last; systemd's remarks about it are left out."""
    return ("journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines_max}", f"_SYSTEMD_UNIT={unit}")


def groups() -> Argv:
    return ("id", "-Gn")
