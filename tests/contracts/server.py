"""An HTTP server that answers as it is told, for what is asked over HTTP."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """*answer* gets the handler; *asked* keeps paths and headers, *callers* the port at the other end of each connection."""

    daemon_threads = True

    def __init__(self, answer: Callable[["Handler"], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []
        self.callers: set[int] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.server.callers.add(self.client_address[1])
        try:
            self.server.answer(self)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Says:
    """
    An answer: *body* with the length that it has, or with the one that it is said to have; dripping with *pause_s* between bytes. A *bare*
    body is all that is sent: it has its own status line and header, or none. The connection is closed afterwards unless it is *kept*.
    """

    body: bytes = b""
    status: int = 200
    kind: str = "text/plain; version=0.0.4"
    length: int | None = None
    pause_s: float = 0.0
    bare: bool = False
    kept: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def __call__(self, handler: Handler) -> None:
        handler.close_connection = not self.kept
        if not self.bare:
            handler.send_response(self.status)
            handler.send_header("Content-Type", self.kind)
            handler.send_header("Content-Length", str(len(self.body) if self.length is None else self.length))
            handler.end_headers()
        if not self.pause_s:
            handler.wfile.write(self.body)
            return
        for at in range(len(self.body)):
            handler.wfile.write(self.body[at : at + 1])
            if self.ended.wait(self.pause_s):
                return


@contextmanager
def serving(answer: Callable[[Handler], None]) -> Iterator[Server]:
    """Run one."""
    server = Server(answer)
    # It looks this often whether it shall end: the half second that is usual is most of a test.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        if isinstance(answer, Says):
            answer.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
