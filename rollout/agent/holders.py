"""
Which process holds a lease, and whether it is gone for certain.

A process number says little: it is given out again, and another container has its own. So a process is named by the kernel that runs it
(its boot), its namespace of process numbers, and when it started. Only of a process of this very namespace can it be said that it is gone;
of any other nothing is known, and its lease has to run out.
"""

import os
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the name, which ends with the last `)`: the state first, and twenty fields later the start.
_STATE, _STARTED = 0, 19
_DEAD = frozenset({"Z", "X", "x"})


def me() -> str:
    """Name this process; empty where the system doesn't say."""
    place, stat = _place(), _stat(os.getpid())
    return f"{place} {stat[_STARTED]}" if place and stat else ""


def is_gone(pid: int, process: str) -> bool:
    """Tell whether the process that was *pid* and named *process* is seen to be gone; False wherever that can't be told."""
    place, _, started = process.rpartition(" ")
    if not place or place != _place():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        # It is somebody else's.
        return False
    stat = _stat(pid)
    return bool(stat) and (stat[_STATE] in _DEAD or stat[_STARTED] != started)


def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
