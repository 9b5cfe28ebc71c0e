"""`rollout` run on a lab as anybody would run it: by its command, in a process of its own, so that what it costs can be measured."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollout.lab.paths import Lab
from rollout.model.errors import TransientDriverError

LOOK_EVERY_S = 0.25
ASK_TIMEOUT_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What the process itself has used; not what it started (an installer, Synapse checking a configuration)."""

    cpu_s: float
    rss_mb: float


class Tool:
    """The command line on one lab, with a playbook and a journal of its own. *where* goes before it where it runs elsewhere."""

    def __init__(self, lab: Lab, playbook: Path, journal: Path, where: Sequence[str] = ()) -> None:
        self._command = [*where, sys.executable, "-m", "rollout"]
        self._environment: Mapping[str, str] = {
            **os.environ,
            "ROLLOUT_INVENTORY": str(lab.inventory),
            "ROLLOUT_PLAYBOOK": str(playbook.resolve()),
            "ROLLOUT_JOURNAL": str(journal.resolve()),
        }

    def start(self, *arguments: str, log: Path | None = None) -> "Running":
        """Start a command; what it prints goes to *log*, or where ours goes."""
        return Running([*self._command, *arguments], self._environment, log)

    def ask(self, *arguments: str) -> Any:  # noqa: ANN401  (what a command prints as JSON)
        """Return what a command with `--json` prints. Raises TransientDriverError when it fails."""
        done = subprocess.run(
            [*self._command, *arguments, "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise TransientDriverError(f"rollout {' '.join(arguments)} ended with {done.returncode}", why=done.stderr[-2000:])
        return json.loads(done.stdout)


class Running:
    """One command under way. Use as a context manager: leaving kills it if it still runs."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path | None) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._cost = Cost(0.0, 0.0)

    def __enter__(self) -> Self:
        """Start it."""
        if self._log is None:
            self._process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL)
        else:
            with self._log.open("ab") as out:
                self._process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process; only inside the `with` block."""
        if self._process is None:
            msg = "it was not started"
            raise RuntimeError(msg)
        return self._process

    @property
    def cost(self) -> Cost:
        """What it had used a quarter of a second before its end, at the latest."""
        return self._cost

    def wait(self, timeout_s: float) -> int:
        """Wait for its end, and return its exit code. Raises TransientDriverError after *timeout_s*."""
        for _ in range(int(timeout_s / LOOK_EVERY_S)):
            try:
                return self.process.wait(LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                self._cost = _cost_of(self.process.pid) or self._cost
        raise TransientDriverError(f"{' '.join(self._command)} has not ended after {timeout_s:.0f} s")


def _cost_of(pid: int) -> Cost | None:
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:
        return None
    if "VmHWM" not in status:
        return None
    # Fields 14 and 15 of proc(5), counted after the command's name: time in user mode and in the kernel.
    return Cost((int(times[11]) + int(times[12])) / _TICKS_PER_S, int(status["VmHWM"].split()[0]) / 1024)
