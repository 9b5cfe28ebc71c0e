"""
Reading the metrics pages of a thousand workers, and where the processor time of that goes.

The pages are Synapse's own (tests/data/metrics), filled up with lines of other families to the length that they have in production. They
are served on a port each by another process, whose time is not counted. What a phase takes is counted in the thread that does it; *connect*
is from asking to the header of the answer, *rest* is what no phase has: handing work to threads, mostly.
"""

import asyncio
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import requests

from rollout.adapters.metrics.scrape import Scrape
from rollout.engine.survey import Surveyor
from rollout.homeservers.synapse import metrics as synapse_metrics
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sample import Page
from rollout.ports.clock import Clock
from rollout.simulation.rehearse import Stage

PAGE_BYTES = 150_000
SWEEPS = 3
STARTS_WITHIN_S = 60.0
FILES = 8192
DATA = Path(__file__).parents[1] / "data/metrics"
PAGES = {
    "main": "main.txt",
    "event_persister": "event_persister.txt",
    "sync": "sync.txt",
    "client": "client.txt",
    "federation_sender": "federation_sender.txt",
}
_FILLING = 'synapse_util_caches_response_cache_hits_total{{name="cache_{number}",server_name="example.org"}} {number}.0\n'


class _RealClock:
    def now_s(self) -> float:
        return time.time()

    def elapsed_s(self) -> float:
        """See ports.clock."""
        return time.monotonic()


def sweep(stage: Stage) -> tuple[dict[str, float], int]:
    """Measure every worker of *stage*; return seconds of processor time by phase (`all` is everything), and how long a page is."""
    _allow_files()
    bodies = {role: _page(name) for role, name in PAGES.items()}
    roles: list[str] = [entry.role for entry in stage.inventory.workers.values()]
    with _served(bodies, roles) as ports:
        urls = {worker: f"http://127.0.0.1:{port}/" for worker, port in zip(stage.inventory.workers, ports, strict=True)}
        entries = {worker: entry.model_copy(update={"metrics": urls[worker]}) for worker, entry in stage.inventory.workers.items()}
        inventory = stage.inventory.model_copy(update={"workers": entries})
        taken = [_once(stage, inventory, _RealClock()) for _ in range(SWEEPS)]
    return {phase: median(one[phase] for one in taken) for phase in taken[0]}, len(next(iter(bodies.values())))


def _once(stage: Stage, inventory: Inventory, clock: Clock) -> dict[str, float]:
    metrics = _Timed(inventory)
    surveyor = Surveyor(replace(stage.drivers, metrics=metrics), inventory, clock)
    workers = tuple(inventory.workers)
    # A difference needs two looks; the first opens the connections, as the first of a rollout does.
    surveyor.measure(workers, with_canaries=False)
    metrics.phases.clear()
    began_s = time.process_time()
    measured = surveyor.measure(workers, with_canaries=False)
    # What was filtered a second time, to know what the first takes, is no part of it.
    all_s = time.process_time() - began_s - sum(one["filter"] for one in metrics.phases)
    if measured.unmeasured:
        msg = f"{len(measured.unmeasured)} could not be measured: {next(iter(measured.unmeasured.values()))}"
        raise RuntimeError(msg)
    spent = {phase: sum(one[phase] for one in metrics.phases) for phase in ("connect", "read", "filter", "parse")}
    spent["fold"] = _fold_s(metrics.pages)
    return {"all": all_s, **spent, "rest": all_s - sum(spent.values())}


def _fold_s(pages: dict[WorkerId, Page]) -> float:
    began_s = time.thread_time()
    for page in pages.values():
        counters = synapse_metrics.read_counters(page.samples)
        if not isinstance(counters, str):
            synapse_metrics.tally(counters, counters, 0.0, 1.0)
    return time.thread_time() - began_s


class _Timed(Scrape):
    """Counts what each part of reading a page takes."""

    def __init__(self, inventory: Inventory) -> None:
        super().__init__({worker: entry.metrics for worker, entry in inventory.workers.items()}, 16_000_000)
        self.phases: list[dict[str, float]] = []
        self.pages: dict[WorkerId, Page] = {}
        self._here = threading.local()
        self._genuine = self._asker.get
        self._asker.get = self._timed_get  # type: ignore[method-assign]

    def _timed_get(self, url: str, timeout_s: float) -> requests.Response:
        began_s = time.thread_time()
        answer = self._genuine(url, timeout_s)
        self._here.connect_s = time.thread_time() - began_s
        return answer

    def _text(self, url: str, timeout_s: float) -> str:
        began_s = time.thread_time()
        self._here.text = super()._text(url, timeout_s)
        self._here.text_s = time.thread_time() - began_s
        return str(self._here.text)

    def _page(self, worker: WorkerId, wanted: tuple[str, ...], timeout_s: float) -> Page | str:
        began_s = time.thread_time()
        page = super()._page(worker, wanted, timeout_s)
        whole_s = time.thread_time() - began_s
        # Filtered once more, to tell it from what is parsed afterwards.
        began_s = time.thread_time()
        _ = [line for line in self._here.text.splitlines() if line.startswith(wanted)]
        filter_s = time.thread_time() - began_s
        here = self._here
        phases = {"connect": here.connect_s, "read": here.text_s - here.connect_s, "filter": filter_s}
        self.phases.append({**phases, "parse": whole_s - here.text_s - filter_s})
        if isinstance(page, Page):
            self.pages[worker] = page
        return page


def _page(name: str) -> bytes:
    """Return a page with the families that are read, and so many others that it is as long as in production."""
    text = (DATA / name).read_text()
    filling: list[str] = []
    left = PAGE_BYTES - len(text)
    while left > 0:
        filling.append(_FILLING.format(number=len(filling)))
        left -= len(filling[-1])
    return (text + "".join(filling)).encode()


def _allow_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, most), most))


@contextmanager
def _served(bodies: dict[str, bytes], roles: list[str]) -> Iterator[list[int]]:
    """Serve a page for each role in the list, on a port of its own; return the ports."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, bodies, roles), daemon=True)
    process.start()
    try:
        if not here.poll(STARTS_WITHIN_S):
            msg = "the pages are not served"
            raise RuntimeError(msg)
        yield here.recv()
    finally:
        process.kill()
        process.join()


def _serve(connection: Connection, bodies: dict[str, bytes], roles: list[str]) -> None:
    _allow_files()
    asyncio.run(_serve_all(connection, bodies, roles))


async def _serve_all(connection: Connection, bodies: dict[str, bytes], roles: list[str]) -> None:
    header = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\r\n"
    answers = {role: header.format(len(body)).encode() + body for role, body in bodies.items()}
    servers = []
    for role in roles:

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = answers[role]) -> None:
            # Whoever has read enough hangs up.
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(said)
                    await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))
    connection.send([server.sockets[0].getsockname()[1] for server in servers])
    await asyncio.Event().wait()
