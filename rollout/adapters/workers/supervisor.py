"""
supervisord through XML-RPC on its unix socket: a program has its worker's id as its name.

supervisord knows start times in whole seconds only; what a worker runs is told by whether it started before or after its link was
switched, so the start is read from /proc, to 10 ms. A process that has ended but was not yet waited for (a zombie) does not run.
"""

import http.client
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError
from xmlrpc.client import Error, Fault, ServerProxy, Transport

from rollout.adapters.settings import FilePath, Settings, check
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory

# Fault codes of supervisor.xmlrpc.Faults.
BAD_NAME = 10
NO_FILE = 20
NOT_EXECUTABLE = 21
ABNORMAL_TERMINATION = 40
SPAWN_ERROR = 50
ALREADY_STARTED = 60
NOT_RUNNING = 70
_GONE_AT_ONCE = frozenset({ABNORMAL_TERMINATION, SPAWN_ERROR})
_CANNOT_BE_RUN = frozenset({NO_FILE, NOT_EXECUTABLE})
# A process that exits at once has usually done so by then.
SETTLE_S = 0.3
LOG_BYTES = 8_000
LOOK_TIMEOUT_S = 5.0


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


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixTransport(Transport):
    """XML-RPC over a unix socket with a timeout on every read; supervisor's own transport has none."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__()
        self._path = str(path)
        self._timeout_s = timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401  (as the base class has it; it closes what is kept)
        connection = _UnixConnection(self._path, self._timeout_s)
        self._connection = host, connection
        return connection


class Supervisor:
    """See ports.workers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._starts: dict[tuple[int, str], float] = {}

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> dict[WorkerId, Process]:
        """See ports.workers."""
        known = self._call("getAllProcessInfo", (), timeout_s, changes=False)
        wanted = frozenset(workers)
        return {WorkerId(one["name"]): self._process(int(one["pid"])) for one in known if one["name"] in wanted}

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        try:
            self._call("stopProcess", (worker, True), timeout_s, changes=True)
        except Fault as fault:
            if fault.faultCode != NOT_RUNNING:
                raise _refusal(worker, fault) from fault
        if self._runs(worker):
            raise OutcomeUnknownError("it was told to stop and still runs", where=worker)

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers."""
        try:
            self._call("startProcess", (worker, True), timeout_s, changes=True)
        except Fault as fault:
            # Said also of one that exits again and again and is about to be tried once more: whether it runs is looked at below.
            if fault.faultCode != ALREADY_STARTED:
                raise _refusal(worker, fault) from fault
        time.sleep(SETTLE_S)  # noqa: TID251  (a real process needs real time to fail)
        if not self._runs(worker):
            raise PermanentDriverError("it exits as soon as it is started", where=worker)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers."""
        # Its file is read here, because supervisord hands on nothing that isn't UTF-8 (a character cut in two is enough) or valid in XML.
        try:
            known = self._call("getProcessInfo", (worker,), LOOK_TIMEOUT_S, changes=False)
            path = Path(str(known["stdout_logfile"]))
            if not path.is_file():
                return ()
            with path.open("rb") as log:
                log.seek(max(0, path.stat().st_size - LOG_BYTES))
                text = log.read(LOG_BYTES).decode(errors="replace")
        except (Fault, TransientDriverError, OSError):
            return ()
        return tuple(text.splitlines()[-lines_max:])

    def _runs(self, worker: WorkerId) -> bool:
        """Look at a worker that was just told something, which may have happened even if the look fails."""
        try:
            return self.look([worker], LOOK_TIMEOUT_S)[worker].running
        except TransientDriverError as error:
            raise OutcomeUnknownError("what became of it can't be seen", where=worker, why=str(error)) from error

    def _process(self, pid: int) -> Process:
        if pid == 0:
            return Process(running=False, started_at_s=None)
        try:
            # The command's name stands in brackets and may hold spaces; the state is the first field behind it, the start time the 20th.
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            up_s = float(Path("/proc/uptime").read_text().split()[0])
        except OSError:
            return Process(running=False, started_at_s=None)
        if state == "Z":
            return Process(running=False, started_at_s=None)
        ticks = fields[18]
        started_at_s = time.time() - up_s + int(ticks) / os.sysconf("SC_CLK_TCK")  # noqa: TID251  (the machine's own clock)
        # Clock and uptime are read one after the other, so the difference moves by milliseconds: the first answer is kept.
        return Process(running=True, started_at_s=self._starts.setdefault((pid, ticks), started_at_s))

    def _call(self, method: str, arguments: tuple[Any, ...], timeout_s: float, *, changes: bool) -> Any:  # noqa: ANN401  (XML-RPC)
        try:
            with ServerProxy("http://localhost", transport=_UnixTransport(self._path, timeout_s)) as server:
                return getattr(server.supervisor, method)(*arguments)
        except Fault:
            raise
        except TimeoutError as error:
            kind = OutcomeUnknownError if changes else TransientDriverError
            raise kind(f"supervisord did not answer within {timeout_s:.0f} s", where=str(self._path)) from error
        except ConnectionRefusedError as error:
            raise TransientDriverError("supervisord can't be reached", where=str(self._path), why=str(error)) from error
        except FileNotFoundError as error:
            raise TransientDriverError("supervisord's socket is not there", where=str(self._path)) from error
        except (OSError, http.client.HTTPException, Error, ExpatError) as error:
            kind = OutcomeUnknownError if changes else TransientDriverError
            raise kind("supervisord broke off", where=str(self._path), why=str(error)) from error


def _refusal(worker: WorkerId, fault: Fault) -> PermanentDriverError | TransientDriverError:
    if fault.faultCode == BAD_NAME:
        return PermanentDriverError("supervisord has no program of this name", where=worker)
    if fault.faultCode in _CANNOT_BE_RUN:
        return PermanentDriverError("its command can't be run", where=worker, why=fault.faultString)
    if fault.faultCode in _GONE_AT_ONCE:
        return PermanentDriverError("it exits as soon as it is started", where=worker, why=fault.faultString)
    return TransientDriverError("supervisord refused", where=worker, why=fault.faultString)
