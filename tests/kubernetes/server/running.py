"""The stand-in API server, running with its controllers in threads of this process."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.controllers.manager import Controllers
from tests.kubernetes.server.faults import Faults
from tests.kubernetes.server.http import Desk, Listener
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.resources import Writer

# What a cluster has before anybody makes one.
_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass(frozen=True, slots=True)
class Serving:
    """*kubeconfig* is the administrator's."""

    kubeconfig: Path
    faults: Faults


class _Server:
    """A listener that can go and come back on the same port: faults.py."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.controllers = Controllers(self.desk.resources)
        self._port = 0
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._back: threading.Timer | None = None
        self._switching = threading.Lock()
        for name in _NAMESPACES:
            self.desk.resources.create(BY_NAME["Namespace"], "", {"metadata": {"name": name}}, Writer("kube-apiserver"))

    def open(self) -> int:
        with self._switching:
            self._listener = Listener(self.desk, self._port)
            self._port = self._listener.server_port
            self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,), daemon=True)
            self._thread.start()
            self.controllers.go_on()
            return self._port

    def close(self) -> None:
        with self._switching:
            self.controllers.stand_still()
            if self._listener is not None and self._thread is not None:
                self._listener.shutdown()
                self._listener.server_close()
                self._thread.join()
                self.desk.ended.now()
                self._listener.end_connections()
            self._listener = self._thread = None

    def away(self, for_s: float) -> None:
        self.close()
        self._back = threading.Timer(for_s, self._return)
        self._back.daemon = True
        self._back.start()

    def _return(self) -> None:
        self._forget_watches()
        self.open()

    def restart(self) -> None:
        self.close()
        self._return()

    def _forget_watches(self) -> None:
        # Its cache begins anew, and with it how far watches reach back: cacher/watch_cache.go (listResourceVersion).
        with self.desk.store.held():
            self.desk.store.watchable = self.desk.store.revision

    def throttle(self, requests: int, retry_after_s: int) -> None:
        with self.desk.store.held():
            self.desk.throttled, self.desk.retry_after_s = requests, retry_after_s

    def drop_watches(self) -> None:
        self.desk.ended.now()

    def compact(self) -> None:
        self.desk.store.compact()

    def requests(self) -> list[tuple[str, str]]:
        return list(self.desk.asked)

    def end(self) -> None:
        if self._back is not None:
            self._back.cancel()
            self._back.join()
        self.close()
        self.controllers.end()


@contextmanager
def serving(place: Path) -> Iterator[Serving]:
    """Run one on a free port of loopback, with its files below *place*."""
    server = _Server()
    kubeconfig = place / "kubeconfig"
    port = server.open()
    try:
        kubeconfig.write_text(json.dumps(_kubeconfig(port, server.desk.access.administrator)))
        kubeconfig.chmod(0o600)
        yield Serving(kubeconfig, server)
    finally:
        server.end()
    assert not server.desk.resources.failures, "\n".join(server.desk.resources.failures)


def _kubeconfig(port: int, token: str) -> dict[str, object]:
    name = "stand-in"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": name, "user": {"token": token}}],
    }
