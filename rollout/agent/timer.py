"""
The dead-man as a timer of systemd's: there while something of ours is out, gone when nothing is.

It is started by a command that the tool writes down word for word, because sudo allows it by its words. systemd forgets it with a reboot;
whoever beats sees that it is gone and starts it again. Starting and stopping go under one lock, so that nobody stops what somebody else
has just started: a mark is written down before it is started, and it is stopped only while there is none.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

from rollout.agent.book import Book, locked
from rollout.agent.fault import TRANSIENT, Fault
from rollout.agent.systemctl import SYSTEMCTL
from rollout.agent.systemd import Said, as_root, may_as_root, not_allowed, run

WAIT_S = 10.0
TIMEOUT_S = 10.0
# Its whole name as `unit`, the command that starts it as `arm`, `user` and host (`on`).
Timer = Mapping[str, Any]


def disarming(unit: str) -> list[str]:
    """Write the command that takes it away."""
    return [SYSTEMCTL, "stop", unit]


def arm(book: Book, timer: Timer) -> None:
    """Have it there. Raises Fault when it can't be started."""
    with _alone(book):
        if is_armed(timer["unit"]):
            return
        check(timer)
        said = _run(as_root(timer["arm"], timer["user"]), timer["unit"])
        if not is_armed(timer["unit"]):
            raise Fault(TRANSIENT, "the dead-man's timer can't be started", where=timer["unit"], why=said.why or f"status {said.status}")


def disarm(book: Book, timer: Timer) -> None:
    """Take it away, unless something of ours is out. Raises Fault."""
    with _alone(book):
        if book.read().marks or not is_armed(timer["unit"]):
            return
        said = _run(as_root(disarming(timer["unit"]), timer["user"]), timer["unit"])
        if said.status != 0 and is_armed(timer["unit"]):
            raise Fault(TRANSIENT, "the dead-man's timer can't be stopped", where=timer["unit"], why=said.why)


def keep(book: Book, timer: Timer) -> None:
    """Have it there if something of ours is out, and not otherwise. Raises Fault."""
    if book.read().marks:
        arm(book, timer)
    else:
        disarm(book, timer)


def check(timer: Timer) -> None:
    """Raise Fault (PERMANENT) when sudo does not allow it."""
    for argv in (timer["arm"], disarming(timer["unit"])):
        answer = may_as_root(argv, timer["user"], timer["unit"])
        if answer.status != 0:
            raise not_allowed(argv, timer["user"], timer["on"], timer["unit"], answer)


def is_armed(unit: str) -> bool:
    return _run([SYSTEMCTL, "is-active", "--quiet", unit], unit, changes=False).status == 0


def _alone(book: Book) -> AbstractContextManager[None]:
    return locked(book.path.with_suffix(".timer.lock"), WAIT_S, "starts or stops the dead-man's timer", where=str(book.path))


def _run(argv: Sequence[str], where: str, *, changes: bool = True) -> Said:
    return run(argv, monotonic() + TIMEOUT_S, where, changes=changes)
