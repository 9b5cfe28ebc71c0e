"""
A hold under stress: 500 clients come to a backend whose only server is down for 20 s, before a real HAProxy with hold.lua.

nobody           no client and no hold: what the proxy does anyway
let go           held until the proxy itself sees the server up again, then let go by whoever held
tool killed      whoever held is killed (SIGKILL) at once; hold_s is 12: the proxy lets go by itself, and what comes then meets no server
more than most   hold_max is 200: the others are answered 503 with Retry-After at once

*held* and *shed* are the proxy's own counts. *boot s* is from the server's end until the proxy saw it up. *slowest s* is the longest that a
client waited for its answer. CPU (of one core), files and memory are the proxy's, over the whole stretch, files and memory at their peak.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from rollout.adapters.traffic.haproxy import Haproxy
from rollout.lab.processes import listens, wait_until
from rollout.lab.programs import haproxy_binary
from rollout.model.ids import WorkerId
from rollout.model.plan import HoldBound
from rollout.ports.traffic import Server
from tests.contracts.proxy import ask

CLIENTS = 500
BOOT_S = 20.0
# All come while the server is down, evenly.
ARRIVE_S = 15.0
TIMEOUT_S = 5.0
MAIN = Server("main", "main")
VARIANTS = {
    "nobody": HoldBound(30.0, 1000),
    "let go": HoldBound(30.0, 1000),
    "tool killed": HoldBound(12.0, 1000),
    "more than most": HoldBound(30.0, 200),
}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
ThreadingHTTPServer.request_queue_size = 1024
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
_HOLDER = """
import sys, time
from pathlib import Path
from rollout.adapters.traffic.haproxy import Haproxy
from rollout.model.plan import HoldBound
from rollout.ports.traffic import Server
Haproxy((Path(sys.argv[1]),), None).hold(Server("main", "main"), HoldBound(float(sys.argv[2]), int(sys.argv[3])), 5.0)
print("held", flush=True)
time.sleep(600)
"""


@dataclass(slots=True)
class _Seen:
    """What clients got, and what the proxy took for it."""

    statuses: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    retry_after: int = 0
    files: int = 0
    rss_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class _Plant:
    """A proxy, its runtime API, and where its server listens."""

    traffic: Haproxy
    admin: Path
    pid: int
    port: int
    server_port: int


def measure(place: Path) -> list[dict[str, object]]:
    """Measure every variant on a proxy of its own."""
    return [_measure(place, way) for way in VARIANTS]


def _measure(place: Path, way: str) -> dict[str, object]:
    with _plant(place) as plant:
        cpu_s, began_s = _cpu_s(plant.pid), time.monotonic()
        seen, boot_s = asyncio.run(_stress(plant, way))
        pool = plant.traffic.pools(("main",), TIMEOUT_S)["main"]
        spent_s = time.monotonic() - began_s
        return {
            "way": way,
            "hold_s, hold_max": f"{VARIANTS[way].hold_s:g}, {VARIANTS[way].hold_max}",
            "clients": sum(seen.statuses.values()),
            "answers": ", ".join(f"{count} × {status}" for status, count in sorted(seen.statuses.items())),
            "held": pool.hold.waiting_max,
            "shed": pool.hold.shed,
            "with Retry-After": seen.retry_after,
            "let go late": pool.hold.let_go_late,
            "boot s": boot_s,
            "slowest s": round(seen.slowest_s, 2),
            "proxy CPU s": round(_cpu_s(plant.pid) - cpu_s, 2),
            "of a core": f"{(_cpu_s(plant.pid) - cpu_s) / spent_s:.1%}",
            "files": seen.files,
            "memory MB": round(seen.rss_mb, 1),
        }


async def _stress(plant: _Plant, way: str) -> tuple[_Seen, float | None]:
    seen = _Seen()
    watching = asyncio.create_task(_watch(plant.pid, seen))
    if way == "nobody":
        await asyncio.sleep(BOOT_S)
        watching.cancel()
        return seen, None
    server = _start_server(plant.server_port)
    await asyncio.to_thread(wait_until, lambda: _is_up(plant), 10.0, "the proxy sees the server up")
    # One request must have passed, or nothing shows that requests do pass through the hold.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(60)) as session:
        await _ask(session, plant.port, _Seen())
        await asyncio.to_thread(_hold, plant, way)
        server.kill()
        server.wait()
        down_s = time.monotonic()
        clients = [asyncio.create_task(_ask(session, plant.port, seen, number * ARRIVE_S / CLIENTS)) for number in range(CLIENTS)]
        await asyncio.sleep(BOOT_S - (time.monotonic() - down_s))
        server = _start_server(plant.server_port)
        await asyncio.to_thread(wait_until, lambda: _is_up(plant), 10.0, "the proxy sees the server up")
        boot_s = time.monotonic() - down_s
        if way != "tool killed":
            plant.traffic.let_go(MAIN, TIMEOUT_S)
        await asyncio.gather(*clients)
    server.kill()
    server.wait()
    watching.cancel()
    return seen, round(boot_s, 2)


def _hold(plant: _Plant, way: str) -> None:
    bound = VARIANTS[way]
    if way != "tool killed":
        plant.traffic.hold(MAIN, bound, TIMEOUT_S)
        return
    command = [sys.executable, "-c", _HOLDER, str(plant.admin), str(bound.hold_s), str(bound.hold_max)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGKILL)


async def _ask(session: aiohttp.ClientSession, port: int, seen: _Seen, after_s: float = 0.0) -> None:
    await asyncio.sleep(after_s)
    began_s = time.monotonic()
    try:
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            await answer.read()
            seen.statuses[str(answer.status)] += 1
            seen.retry_after += "Retry-After" in answer.headers
    except (aiohttp.ClientError, TimeoutError) as error:
        seen.statuses[type(error).__name__] += 1
    seen.slowest_s = max(seen.slowest_s, time.monotonic() - began_s)


async def _watch(pid: int, seen: _Seen) -> None:
    while True:
        _look_at(pid, seen)
        await asyncio.sleep(0.25)


def _look_at(pid: int, seen: _Seen) -> None:
    seen.files = max(seen.files, len(list(Path(f"/proc/{pid}/fd").iterdir())))
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    seen.rss_mb = max(seen.rss_mb, int(status["VmRSS"].split()[0]) / 1024)


def _cpu_s(pid: int) -> float:
    # Fields 14 and 15 of proc(5), counted after the command's name.
    times = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(times[11]) + int(times[12])) / _TICKS_PER_S


def _is_up(plant: _Plant) -> bool:
    return plant.traffic.look({WorkerId("main"): MAIN}, TIMEOUT_S)[WorkerId("main")].up


def _start_server(port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _SERVER, str(port)])


@contextmanager
def _plant(place: Path) -> Iterator[_Plant]:
    port, server_port, admin = _free_port(), _free_port(), place.resolve() / "admin.sock"
    lua = Path("rollout/adapters/traffic/hold.lua").resolve()
    (place / "haproxy.cfg").write_text(
        f"""\
global
    stats socket {admin} mode 600 level admin
    lua-load {lua}
    maxconn 4000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout queue 10s
    retries 0
frontend clients
    bind 127.0.0.1:{port}
    default_backend main
backend main
    http-request lua.rollout_hold
    server main 127.0.0.1:{server_port} check inter 500ms fastinter 200ms downinter 200ms rise 2 fall 2
"""
    )
    with (place / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([str(haproxy_binary()), "-db", "-f", str(place / "haproxy.cfg")], stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port), 10.0, "the proxy listens")
        pid = int(next(line for line in ask(admin, "show info").splitlines() if line.startswith("Pid:")).split()[1])
        yield _Plant(Haproxy((admin,), None, ("main",)), admin, pid, port, server_port)
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
