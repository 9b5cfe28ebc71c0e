"""
Probes.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes; pkg/kubelet/prober/worker.go in
kubernetes/kubernetes.
"""

import http.client
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass, field

from tests.kubernetes.kubelet.api import Object
from tests.kubernetes.kubelet.processes import Running


@dataclass(slots=True)
class Probe:
    """What one probe of one container has come to; *passing* is None before it has a result of its own."""

    said: Object
    ports: dict[str, int]
    address: str
    passing: bool | None = None
    output: str = ""
    _row: int = 0
    _last: bool | None = None
    _due: float = field(default=0.0)

    def begin(self) -> None:
        """A container has been started."""
        self.passing, self._row, self._last = None, 0, None
        self._due = time.monotonic() + float(self.said.get("initialDelaySeconds") or 0)

    def ask(self, running: Running) -> bool:
        """Probe if it is time for that, and tell whether there was a result; a result counts after enough of the same."""
        if time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + float(self.said["periodSeconds"])
        went_well, self.output = self._once(running)
        self._row = self._row + 1 if went_well == self._last else 1
        self._last = went_well
        if self._row >= int(self.said["successThreshold" if went_well else "failureThreshold"]):
            self.passing = went_well
        return True

    @property
    def last(self) -> bool | None:
        return self._last

    def _once(self, running: Running) -> tuple[bool, str]:
        timeout_s = float(self.said["timeoutSeconds"])
        try:
            if "httpGet" in self.said:
                return self._http(self.said["httpGet"], timeout_s)
            if "tcpSocket" in self.said:
                with socket.create_connection((self.address, self._port(self.said["tcpSocket"]["port"])), timeout_s):
                    return True, ""
            return self._command(running, timeout_s)
        except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
            return False, str(error)

    def _port(self, said: int | str) -> int:
        return self.ports[said] if isinstance(said, str) else said

    def _http(self, said: Object, timeout_s: float) -> tuple[bool, str]:
        port = self._port(said["port"])
        host = said.get("host") or self.address
        if said.get("scheme") == "HTTPS":
            # A kubelet checks no certificate here.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        headers = {one["name"]: one["value"] for one in said.get("httpHeaders") or []}
        try:
            connection.request("GET", said.get("path") or "/", headers={"User-Agent": "kube-probe/1.36", "Connection": "close", **headers})
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        return 200 <= answer.status < 400, f"HTTP probe failed with statuscode: {answer.status}"

    def _command(self, running: Running, timeout_s: float) -> tuple[bool, str]:
        argv = [*running.inside(), *self.said["exec"]["command"]]
        done = subprocess.run(argv, env=running.env, capture_output=True, text=True, timeout=timeout_s, check=False)
        return done.returncode == 0, done.stdout + done.stderr
