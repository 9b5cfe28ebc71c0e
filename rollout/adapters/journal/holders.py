"""
Which process of this machine holds a journal's file, from the kernel's own list of locks.

A commit takes milliseconds. Whoever holds the file for longer was stopped in its midst (Ctrl-Z, a machine that was short of memory, a
debugger), and nobody else can write until it goes on or is ended: then its name is what one needs to know.
"""

import os
from pathlib import Path

_PROC = Path("/proc")
# What SQLite locks to write: with a log, this byte of the file beside it (walformat.html, "WAL-Index Locks"); else any of the file itself.
_WRITE_BYTE = 120
# `1: POSIX ADVISORY WRITE 1234 fe:00:5678 120 120`; who only waits for it has an arrow after the number, which is one more.
_FIELDS = 8
_STOPPED = frozenset({"T", "t"})


def who_holds(path: Path) -> tuple[str, str] | None:
    """Return who else writes to the journal in *path*, in words, and what can be done about it; None where the system doesn't say."""
    pid = _holder(path)
    if pid is None or pid == os.getpid():
        return None
    try:
        name = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        state = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has just ended
        return None
    who = f"process {pid} ({name})"
    if state in _STOPPED:
        return f"{who}, which is stopped, is writing to it", f"kill -CONT {pid} if it shall go on, else kill -KILL {pid}; then again"
    return f"{who} is writing to it", "again"


def _holder(path: Path) -> int | None:
    try:
        lines = (_PROC / "locks").read_text().splitlines()
        files = {_inode(file): byte for file, byte in ((path.with_name(f"{path.name}-shm"), _WRITE_BYTE), (path, None)) if file.exists()}
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) != _FIELDS or fields[3] != "WRITE" or fields[5] not in files:
            continue
        byte, last = files[fields[5]], fields[7]
        if byte is None or (int(fields[6]) <= byte and (last == "EOF" or byte <= int(last))):
            return int(fields[4])
    return None


def _inode(file: Path) -> str:
    """Name a file as the list of locks does."""
    stat = file.stat()
    return f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
