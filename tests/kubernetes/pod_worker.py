"""
A worker in a pod, without a Synapse: it answers /health, tells Synapse's metrics, and takes as long for `/wait?s=0.3` as that says.

As Synapse does, it compresses its metrics for whoever takes that. Its release is in VERSION, and LIVES_S is after how many seconds it ends
by itself. On SIGTERM it accepts nothing more, ends what it has begun, and is gone.
"""

import gzip
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT = 8080
LABELS = 'method="GET",servlet="RoomStateRestServlet",tag="",code="200"'
IN_FLIGHT = "synapse_http_server_in_flight_requests_count"
TIME = "synapse_http_server_response_time_seconds"


class Worker(ThreadingHTTPServer):
    """It answers everything with 200."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, version: str) -> None:
        super().__init__(("", PORT), Answer)
        self.began_s = time.time()
        self.version = version
        self.served = 0
        self.in_flight = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Say nothing of somebody who went away."""

    def page(self) -> str:
        lines = [
            f'synapse_build_info{{version="{self.version}"}} 1',
            f"process_start_time_seconds {self.began_s}",
            f"process_cpu_seconds_total {time.process_time()}",
            "process_open_fds 10",
            "process_max_fds 1000",
            # As Synapse: announced always, and a sample only for servlets with open requests.
            f"# TYPE {IN_FLIGHT} gauge",
            *([f'{IN_FLIGHT}{{method="GET",servlet="RoomStateRestServlet"}} {self.in_flight}'] if self.in_flight else []),
            *(f'{TIME}_bucket{{{LABELS},le="{edge}"}} {self.served}' for edge in os.environ["EDGES"].split(",")),
            f"{TIME}_count{{{LABELS}}} {self.served}",
            f"{TIME}_sum{{{LABELS}}} {self.served * 0.001}",
        ]
        return "\n".join([*lines, ""])


class Answer(BaseHTTPRequestHandler):
    """What a request comes to."""

    server: Worker

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/_synapse/metrics":
            self._say(self.server.page(), compressed="gzip" in (self.headers.get("Accept-Encoding") or ""))
        elif parts.path == "/health":
            self._say("OK")
        else:
            with self.server.lock:
                self.server.in_flight += 1
            try:
                time.sleep(float(parse_qs(parts.query).get("s", ["0"])[0]))
                self._say(self.server.version)
            finally:
                with self.server.lock:
                    self.server.in_flight -= 1
                    self.server.served += 1

    def _say(self, text: str, *, compressed: bool = False) -> None:
        body = gzip.compress(text.encode()) if compressed else text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        if compressed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def serve() -> None:
    version = os.environ["VERSION"]
    _write(f"worker {version} begins")
    if lives_s := os.environ.get("LIVES_S"):
        time.sleep(float(lives_s))
        _write("a fault of this release: it ends now")
        sys.exit(3)
    worker = Worker(version)
    thread = threading.Thread(target=worker.serve_forever, args=(0.02,), daemon=True)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    thread.start()
    ended.wait()
    worker.shutdown()
    worker.socket.close()
    end_s = time.monotonic() + 8
    while worker.in_flight and time.monotonic() < end_s:
        time.sleep(0.01)


def main(what: str) -> None:
    if what == "facts":
        _write("looking at what it is")
        _write(json.dumps([os.environ["VERSION"], 94, 84, ["94/01_a.sql"]]))
    elif what == "migrate":
        _write(f"migrating with {os.environ['VERSION']}")
        time.sleep(float(os.environ.get("MIGRATION_S", "0.5")))
        if os.environ.get("MIGRATION") == "fails":
            _write("the database doesn't want to")
            sys.exit(4)
    else:
        serve()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "serve")
