"""
supervisord through XML-RPC on its unix socket: a program has its worker's id as its name.

Starting and stopping are the agent's (rollout.agent.processes). supervisord knows start times in whole seconds only; what a worker runs is
told by whether it started before or after its link was switched, so the start is read from /proc, to 10 ms.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault as Refusal

from rollout.adapters.faults import run, translated
from rollout.adapters.settings import FilePath, Settings, check
from rollout.agent.process_table import status
from rollout.agent.processes import LOOK_TIMEOUT_S, call
from rollout.model.errors import TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.ports.acts import Acts

LOG_BYTES = 8_000


class SupervisorSettings(Settings):
    """*socket*: supervisord's unix socket."""

    socket: FilePath


def build(settings: Mapping[str, object], inventory: Inventory) -> "Supervisor":
    """Open the driver; nothing is connected yet."""
    del inventory
    return Supervisor(check(SupervisorSettings, settings, "workers_driver").socket)


@dataclass(frozen=True, slots=True)
class Process:
    """See ports.workers.ProcessState."""

    running: bool
    started_at_s: float | None


class Supervisor:
    """See ports.workers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: dict[tuple[int, str], float] = {}

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> dict[WorkerId, Process]:
        """See ports.workers."""
        known = self._ask("getAllProcessInfo", (), timeout_s)
        wanted = frozenset(workers)
        return {WorkerId(one["name"]): self._process(int(one["pid"])) for one in known if one["name"] in wanted}

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        run(self.stop_acts(worker, timeout_s))

    def stop_acts(self, worker: WorkerId, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._command("stop", worker, timeout_s)

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        run(self.start_acts(worker, timeout_s))

    def start_acts(self, worker: WorkerId, timeout_s: float) -> Acts:
        """See ports.acts."""
        return self._command("start", worker, timeout_s)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers."""
        # Its file is read here, because supervisord hands on nothing that isn't UTF-8 (a character cut in two is enough) or valid in XML.
        try:
            known = self._ask("getProcessInfo", (worker,), LOOK_TIMEOUT_S)
            path = Path(str(known["stdout_logfile"]))
            if not path.is_file():
                return ()
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - LOG_BYTES))
                text = log.read(LOG_BYTES).decode(errors="replace")
        except (Refusal, TransientDriverError, OSError):
            return ()
        return tuple(text.splitlines()[-lines_max:])

    def _command(self, do: str, worker: WorkerId, timeout_s: float) -> Acts:
        place = str(self._path.absolute())
        return ({"kind": "supervisord", "socket": place, "program": worker, "do": do, "timeout_s": timeout_s},)

    def _process(self, pid: int) -> Process:
        fields = status(pid)
        if fields is None:
            return Process(running=False, started_at_s=None)
        try:
            up_s = float(Path("/proc/uptime").read_text().split()[0])
        except OSError:
            return Process(running=False, started_at_s=None)
        ticks = fields[18]
        started_at_s = time.time() - up_s + int(ticks) / os.sysconf("SC_CLK_TCK")  # noqa: TID251  (the machine's own clock)
        # Clock and uptime are read one after the other, so the difference moves by milliseconds: the first answer is kept.
        return Process(running=True, started_at_s=self._starts.setdefault((pid, ticks), started_at_s))

    def _ask(self, method: str, arguments: tuple[Any, ...], timeout_s: float) -> Any:  # noqa: ANN401  (XML-RPC)
        with translated():
            return call(str(self._path), method, arguments, timeout_s, changes=False)
