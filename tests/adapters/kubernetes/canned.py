"""An API server that says what a test has it say: what a real one is hard to bring to, and what isn't one at all."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.cluster import Cluster, Object
from rollout.adapters.kubernetes.looking import looking

NAMESPACE = "matrix"
Answer = tuple[int, object]


@dataclass(slots=True)
class Canned:
    """
    *answer* is given method, path (with its query) and body; a text is answered as it is, all else as JSON. *asked* is what came.

    As Synapse does with its metrics, it compresses a text for whoever takes that.
    """

    answer: Callable[[str, str, Object], Answer]
    kubeconfig: Path
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, object]:
        return {"namespace": NAMESPACE, "kubeconfig": self.kubeconfig}

    @property
    def cluster(self) -> Cluster:
        return looking(ClusterSettings.model_validate(self.settings)).cluster

    def did(self, method: str) -> list[str]:
        """Return the names of what that was done to."""
        return [path.partition("?")[0].rpartition("/")[2] for its, path in self.asked if its == method]


def no_such(name: str) -> Answer:
    """Return what the API server says of an object that isn't there."""
    return 404, {"kind": "Status", "reason": "NotFound", "message": f'"{name}" not found', "details": {"name": name}}


def listed(*items: Object) -> Answer:
    return 200, {"kind": "List", "items": list(items)}


@contextmanager
def canned(place: Path, answer: Callable[[str, str, Object], Answer]) -> Iterator[Canned]:
    """Serve; its kubeconfig is written below *place*."""
    it = Canned(answer, place / "kubeconfig-canned")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            it.asked.append((self.command, self.path))
            status, said = it.answer(self.command, self.path, json.loads(raw) if raw else {})
            body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(status)
            if isinstance(said, str) and "gzip" in (self.headers.get("Accept-Encoding") or ""):
                body = gzip.compress(body)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def do_PATCH(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        it.url = f"http://127.0.0.1:{server.server_port}"
        it.kubeconfig.write_text(json.dumps(kubeconfig({"server": it.url})))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield it
        finally:
            server.shutdown()
            thread.join()


def kubeconfig(cluster: Mapping[str, object]) -> Object:
    """Return one for a cluster that lets in anybody."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "canned",
        "contexts": [{"name": "canned", "context": {"cluster": "canned", "user": "canned"}}],
        "clusters": [{"name": "canned", "cluster": dict(cluster)}],
        "users": [{"name": "canned", "user": {}}],
    }
