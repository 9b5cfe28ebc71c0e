"""Starting and stopping through supervisord's XML-RPC on its unix socket: a program has its worker's id as its name."""

import http.client
import socket
import time
from typing import Any
from xml.parsers.expat import ExpatError
from xmlrpc.client import Error, ServerProxy, Transport
from xmlrpc.client import Fault as Refusal

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault
from rollout.agent.process_table import status

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
LOOK_TIMEOUT_S = 5.0


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

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_s = timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401  (as the base class has it; it closes what is kept)
        connection = _UnixConnection(self._path, self._timeout_s)
        self._connection = host, connection
        return connection


def stop(place: str, program: str, timeout_s: float) -> None:
    """Stop it and wait until it is gone; one that doesn't run is no error. Raises Fault."""
    try:
        call(place, "stopProcess", (program, True), timeout_s, changes=True)
    except Refusal as refusal:
        if refusal.faultCode != NOT_RUNNING:
            raise _refused(program, refusal) from refusal
    if _runs(place, program):
        raise Fault(UNKNOWN, "it was told to stop and still runs", where=program)


def start(place: str, program: str, timeout_s: float) -> None:
    """Start it and return once it runs; one that runs already is no error. Raises Fault."""
    try:
        call(place, "startProcess", (program, True), timeout_s, changes=True)
    except Refusal as refusal:
        # Said also of one that exits again and again and is about to be tried once more: whether it runs is looked at below.
        if refusal.faultCode != ALREADY_STARTED:
            raise _refused(program, refusal) from refusal
    time.sleep(SETTLE_S)
    if not _runs(place, program):
        raise Fault(PERMANENT, "it exits as soon as it is started", where=program)


def _runs(place: str, program: str) -> bool:
    """Look at a program that was just told something, which may have happened even if the look fails."""
    try:
        known = call(place, "getAllProcessInfo", (), LOOK_TIMEOUT_S, changes=False)
    except Fault as fault:
        raise Fault(UNKNOWN, "what became of it can't be seen", where=program, why=str(fault)) from fault
    return any(status(int(one["pid"])) is not None for one in known if one["name"] == program)


def call(place: str, method: str, arguments: tuple[Any, ...], timeout_s: float, *, changes: bool) -> Any:  # noqa: ANN401  (XML-RPC)
    """Ask supervisord. Raises Fault, and Refusal when it answers with one; what *changes* something is in doubt when it isn't answered."""
    try:
        with ServerProxy("http://localhost", transport=_UnixTransport(place, timeout_s)) as server:
            return getattr(server.supervisor, method)(*arguments)
    except Refusal:
        raise
    except TimeoutError as error:
        kind = UNKNOWN if changes else TRANSIENT
        raise Fault(kind, f"supervisord did not answer within {timeout_s:.0f} s", where=place) from error
    except ConnectionRefusedError as error:
        raise Fault(TRANSIENT, "supervisord can't be reached", where=place, why=str(error)) from error
    except FileNotFoundError as error:
        raise Fault(TRANSIENT, "supervisord's socket is not there", where=place) from error
    except (OSError, http.client.HTTPException, Error, ExpatError) as error:
        kind = UNKNOWN if changes else TRANSIENT
        raise Fault(kind, "supervisord broke off", where=place, why=str(error)) from error


def _refused(program: str, refusal: Refusal) -> Fault:
    if refusal.faultCode == BAD_NAME:
        return Fault(PERMANENT, "supervisord has no program of this name", where=program)
    if refusal.faultCode in _CANNOT_BE_RUN:
        return Fault(PERMANENT, "its command can't be run", where=program, why=refusal.faultString)
    if refusal.faultCode in _GONE_AT_ONCE:
        return Fault(PERMANENT, "it exits as soon as it is started", where=program, why=refusal.faultString)
    return Fault(TRANSIENT, "supervisord refused", where=program, why=refusal.faultString)
