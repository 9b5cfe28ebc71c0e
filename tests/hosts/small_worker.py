"""
A worker as small.py needs one: `small_worker.py NAME PORT STATE EDGES`, run on a host by whatever Python is there.

It runs the release that STATE/worker-NAME names, adds that to STATE/starts-NAME, and tells Synapse's metrics of the requests that it has
answered (EDGES: the buckets of their histogram, in seconds, with commas between). Release 3.0.0 ends by itself after ten seconds.
"""

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DYING, LIVES_S = "3.0.0", 10.0
_TIME = "synapse_http_server_response_time_seconds"
_LABELS = 'method="GET",servlet="RoomStateRestServlet",tag="",code="200"'


class Worker(ThreadingHTTPServer):
    """It answers everything with 200."""

    daemon_threads = True

    def __init__(self, port: int, version: str, edges: "list[str]") -> None:
        super().__init__(("", port), Answer)
        self.began_s = time.time()
        self.version = version
        self.edges = edges
        self.served = 0

    def handle_error(self, *_: object) -> None:
        """Say nothing of a proxy that went away in the middle of a check."""

    def page(self) -> str:
        lines = [
            f'synapse_build_info{{version="{self.version}"}} 1',
            f"process_start_time_seconds {self.began_s}",
            f"process_cpu_seconds_total {time.process_time()}",
            "process_open_fds 10",
            "process_max_fds 1000",
            *(f'{_TIME}_bucket{{{_LABELS},le="{edge}"}} {self.served}' for edge in self.edges),
            f"{_TIME}_count{{{_LABELS}}} {self.served}",
            f"{_TIME}_sum{{{_LABELS}}} {self.served * 0.001}",
        ]
        return "\n".join([*lines, ""])


class Answer(BaseHTTPRequestHandler):
    """What a request comes to."""

    server: Worker

    def do_GET(self) -> None:
        if self.path not in {"/health", "/_synapse/metrics"}:
            self.server.served += 1
        body = (self.server.page() if self.path == "/_synapse/metrics" else "OK").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _die() -> None:
    sys.stderr.write("a fault of this release: it ends now\n")
    sys.stderr.flush()
    os._exit(3)


def main(name: str, port: str, state: str, edges: str) -> None:
    version = Path(state, f"worker-{name}").read_text().strip()
    with Path(state, f"starts-{name}").open("a") as starts:
        starts.write(f"{version}\n")
    if version == DYING:
        threading.Timer(LIVES_S, _die).start()
    Worker(int(port), version, edges.split(",")).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
