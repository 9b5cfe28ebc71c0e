"""
What the kernel says of processes (proc(5)).

A process that has ended but was not yet waited for (a zombie) does not run.
"""

from pathlib import Path


def status(pid: int) -> list[str] | None:
    """Return what /proc says of a process, from its parent's id on (its start time is the 19th then); None when it doesn't run."""
    if pid == 0:
        return None
    try:
        # The command's name stands in brackets and may hold spaces; the state is the first field behind it.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if state == "Z" else fields
