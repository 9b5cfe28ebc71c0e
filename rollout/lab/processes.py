"""supervisord, and what runs under it."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from rollout.lab.paths import LOOPBACK, Lab
from rollout.lab.templates import python
from rollout.model.errors import PermanentDriverError, TransientDriverError

LOG_LINES_MAX = 15
_ALREADY_STARTED = 60
_NOT_RUNNING = 70


class Supervisor:
    """The lab's process manager."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def _server(self) -> ServerProxy:
        return ServerProxy("http://supervisor", transport=SupervisorTransport(None, None, f"unix://{self._lab.supervisor_socket}"))

    def answers(self) -> bool:
        """Tell whether supervisord is there."""
        try:
            with self._server() as server:
                return bool(server.supervisor.getState())
        except (OSError, http.client.HTTPException):
            return False

    def launch(self) -> None:
        """Start supervisord, which goes on when we end."""
        conf = self._lab.target / "etc/supervisord.conf"
        done = subprocess.run(
            [python(), "-m", "supervisor.supervisord", "-c", str(conf)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=self._lab.target,
        )
        if done.returncode != 0:
            raise PermanentDriverError("supervisord did not start", where=str(conf), why=(done.stderr or done.stdout).strip())
        wait_until(self.answers, 10, "supervisord answers")

    def start(self, name: str) -> None:
        """Start a program that isn't running."""
        try:
            with self._server() as server:
                server.supervisor.startProcess(name, True)  # noqa: FBT003  (XML-RPC has no names)
        except Fault as fault:
            if fault.faultCode != _ALREADY_STARTED:
                raise PermanentDriverError(f"{name} did not start", where=name, why=self.last_lines(name)) from fault

    def stop(self, name: str) -> None:
        """Stop a program that is running."""
        try:
            with self._server() as server:
                server.supervisor.stopProcess(name, True)  # noqa: FBT003  (XML-RPC has no names)
        except Fault as fault:
            if fault.faultCode != _NOT_RUNNING:
                raise PermanentDriverError(f"{name} did not stop", where=name, why=fault.faultString) from fault

    def pids(self) -> dict[str, int]:
        """Return the running programs with their process ids."""
        with self._server() as server:
            known = server.supervisor.getAllProcessInfo()
        return {str(one["name"]): int(one["pid"]) for one in known if isinstance(one, dict) and one["pid"]}  # type: ignore[union-attr]

    def runs(self, name: str) -> bool:
        """Tell whether a program is running."""
        return name in self.pids()

    def last_lines(self, name: str) -> str:
        """Return what a program said last."""
        log = self._lab.target / "log" / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_MAX:]) if log.exists() else "it has said nothing"

    def end(self) -> None:
        """End supervisord and everything below it, by its process id."""
        pid_file = self._lab.runtime / "supervisord.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text())
        if self.answers():
            with self._server() as server:
                server.supervisor.shutdown()
        wait_until(lambda: not _alive(pid), 60, "everything has ended")

    def kill(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a running program."""
        os.kill(self.pids()[name], number)


def _alive(pid: int) -> bool:
    # A process that has ended may linger as a zombie until its parent looks.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Look ten times a second. Raises TransientDriverError when *what* is not so in time."""
    end_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= end_s:
            raise TransientDriverError(f"after {seconds:.0f} s it is still not so that {what}")
        time.sleep(0.1)


def listens(port: int, address: str = LOOPBACK) -> bool:
    """Tell whether somebody takes connections there."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((address, port)) == 0


def status_of(url: str, timeout_s: float = 2.0) -> int | None:
    """GET *url*; None when there is no answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
