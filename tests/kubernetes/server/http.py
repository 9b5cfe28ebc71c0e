"""The stand-in's HTTP: one thread a connection, watches in chunks."""

import json
import socket
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

from tests.kubernetes.server import access, patching, paths
from tests.kubernetes.server.answering import Answers, Request, act_of
from tests.kubernetes.server.forwarding import forward
from tests.kubernetes.server.listing import wanted
from tests.kubernetes.server.objects import Object, Value
from tests.kubernetes.server.refusals import RefusedError, bad_request
from tests.kubernetes.server.resources import Resources
from tests.kubernetes.server.store import Store
from tests.kubernetes.server.watching import Ended, watched

# Whom the tests' own faults and counts leave out.
KUBELET_AGENT = "rollout-test-kubelet"


class Desk:
    """What all connections share, across restarts: the objects, who may do what, and which faults are on."""

    def __init__(self) -> None:
        self.store = Store()
        self.resources = Resources(self.store)
        self.access = access.Access(self.store)
        self.answers = Answers(self.resources, self.access)
        self.ended = Ended(self.store)
        self.asked: list[tuple[str, str]] = []
        self.throttled = 0
        self.retry_after_s = 0

    def throttles(self) -> bool:
        """Tell whether this request is one too many."""
        with self.store.held():
            if self.throttled:
                self.throttled -= 1
                return True
            return False


class Listener(ThreadingHTTPServer):
    """*connections* are those that are open, so that they can be ended."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, desk: Desk, port: int) -> None:
        self.desk = desk
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, *_: object) -> None:
        """Say nothing of callers that went away."""

    def finish_request(self, request: socket.socket | tuple[bytes, socket.socket], address: Value) -> None:
        assert isinstance(request, socket.socket)
        self.connections.add(request)
        try:
            super().finish_request(request, address)
        finally:
            self.connections.discard(request)

    def end_connections(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A header and its body go in one packet, or the caller's kernel waits with its acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Listener

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        desk = self.server.desk
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        agent = self.headers.get("User-Agent") or ""
        if KUBELET_AGENT not in agent:
            desk.asked.append((self.command, self.path))
            if desk.throttles():
                # By API Priority and Fairness, in plain text: staging/src/k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go.
                self._say(429, "Too many requests, please try again later.\n", {"Retry-After": str(desk.retry_after_s)})
                return
        try:
            self._answer(desk, raw, agent)
        except RefusedError as refused:
            after = refused.details.get("retryAfterSeconds")
            self._say(refused.code, refused.status(), {"Retry-After": str(after)} if after else {})
        except OSError:
            # The caller has gone.
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must fail of it
            desk.resources.failures.append(traceback.format_exc())
            self._say(500, RefusedError(500, "InternalError", f"{type(error).__name__}: {error}").status(), {})

    def _answer(self, desk: Desk, raw: bytes, agent: str) -> None:
        asked = paths.read(self.path)
        if asked.parts in {("healthz",), ("livez",), ("readyz",)}:
            self._say(200, "ok", {})
            return
        user = desk.access.user(self.headers.get("Authorization"))
        if (known := paths.discovered(asked.parts)) is not None and self.command == "GET":
            self._say(200, known, {})
            return
        how = (self.headers.get("Content-Type") or "").partition(";")[0].strip()
        body = _body(raw, how)
        if (review := access.ANSWERS.get(paths.review(asked.parts))) is not None and self.command == "POST":
            self._say(201, review(desk.access, user, body), {})
            return
        request = Request(self.command, paths.place(asked.parts), asked.query, body, how, agent, user)
        if request.place.subresource == "portforward" and request.method == "GET":
            self.close_connection = True
            forward(desk.answers, request, self.headers, self.connection)
            return
        if act_of(request).verb == "watch":
            self._watch(desk, request)
            return
        code, said = desk.answers.to(request)
        warnings = ", ".join('299 - "{}"'.format(one.replace('"', '\\"')) for one in request.warnings)
        self._say(code, said, {"Warning": warnings} if warnings else {})

    def _say(self, code: int, said: Object | str, more: dict[str, str]) -> None:
        plain = isinstance(said, str)
        body = said.encode() if isinstance(said, str) else json.dumps(said, separators=(",", ":")).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if plain else "application/json")
        self.send_header("Content-Length", str(len(body)))
        for key, value in more.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _watch(self, desk: Desk, request: Request) -> None:
        desk.access.require(request.user, act_of(request))
        which = wanted(request.place.kind, request.place.namespace, request.query)
        events = watched(desk.store, which, request.query, desk.ended)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for event in events:
            if event is None:
                if self._has_gone():
                    self.close_connection = True
                    return
                continue
            line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def _has_gone(self) -> bool:
        try:
            return not bytes(self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _body(raw: bytes, how: str) -> Value:
    if not raw:
        return None
    try:
        return yaml.safe_load(raw) if how == patching.APPLY and raw.lstrip()[:1] != b"{" else json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from None
