"""Agents as processes of their own, started as the tool starts them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rollout.agent import agent
from rollout.agent.book import Book

WAIT_S = 20.0


class Agent:
    """One agent at work. *pid* is its process; `outcome` waits for what it says."""

    def __init__(self, *arguments: str, order: Mapping[str, Any] | None = None, program: str = agent.__file__) -> None:
        command = [sys.executable, "-I", "-S", program, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order))
        self.process.stdin.close()
        self.process.stdin = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def outcome(self) -> dict[str, Any]:
        """Wait until it has ended; what it said."""
        said, log = self.process.communicate(timeout=WAIT_S)
        assert said, log
        return dict(json.loads(said))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.communicate(timeout=WAIT_S)


@contextmanager
def acting(path: Path, **order: Any) -> Iterator[Agent]:  # noqa: ANN401  (whatever an order holds)
    """Let an agent act on sync1; *order* says what is not as usual."""
    usual = {"worker": "sync1", "number": 1, "token": 0, "owner": "a", "acts": [], "wait_s": 10.0, "what": "acts"}
    one = Agent("act", str(path), order={**usual, **order})
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.kill()


def act(path: Path, **order: Any) -> dict[str, Any]:  # noqa: ANN401  (as above)
    """Let an agent act, and return what came of it."""
    with acting(path, **order) as one:
        return one.outcome()


def write(place: Path, words: str, *, after_s: float = 0.0, once: Path | None = None) -> dict[str, Any]:
    """Return an act that says that it begins, takes its time (or waits until *once* is there), and says that it is done."""
    script = 'echo "begins $1" >> "$0"; sleep "$2"; while [ -n "$3" ] && [ ! -e "$3" ]; do sleep 0.02; done; echo "$1" >> "$0"'
    return {"kind": "command", "argv": ["sh", "-c", script, str(place), words, str(after_s), str(once or "")], "timeout_s": 15.0}


def done(place: Path) -> list[str]:
    """Name what was done to the end."""
    return [line for line in lines(place) if not line.startswith("begins")]


def lines(place: Path) -> list[str]:
    return place.read_text().splitlines() if place.exists() else []


def mark(why: str = "sync first", **more: Any) -> dict[str, Any]:  # noqa: ANN401  (as above)
    return {"release": "2.0.0-0a1b2c3d", "why": why, "condemned": None, **more}


def marks(path: Path) -> dict[str, Any]:
    return Book(path).read().marks


def until(holds: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end_s, what
        time.sleep(0.01)


def waits_at(pid: int, place: Path) -> bool:
    """Tell whether a process has opened *place*, which somebody else has locked."""
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{number}") == str(place) for number in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH115, PTH208
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
