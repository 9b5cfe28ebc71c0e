"""
A real Prometheus, and the targets that it scrapes once a second: pages like Synapse's, which tests make count, fall silent and begin anew.

Where Prometheus isn't installed, a test skips and says so; with ROLLOUT_ALL_HOSTS set, as .ci/run does, it fails.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout.model.gate import LATENCY_EDGES_S
from rollout.model.inventory import Inventory
from tests.contracts.proxy import free_port
from tests.contracts.server import Handler, Says, Server, serving

INSTALLED = shutil.which("prometheus")
VERSION = "1.163.2"
# It hands targets to its scrapers five seconds after it has begun, and this machine may be slow.
BEGINS_WITHIN_S = 30.0
REQUESTS_PER_SCRAPE = 10
CPU_PER_REQUEST_S = 0.01
_LABELS = 'method="GET",servlet="RoomRestServlet",tag="RoomRestServlet"'


def need_prometheus() -> str:
    """Return where it is."""
    if INSTALLED is None and os.environ.get("ROLLOUT_ALL_HOSTS"):
        pytest.fail("not installed: prometheus, and here it must be")
    if INSTALLED is None:
        pytest.skip("not installed: prometheus (.ci/run installs it)")
    return INSTALLED


@dataclass
class Target:
    """
    One process that is scraped. Each page that it gives has REQUESTS_PER_SCRAPE more requests on it; *served* are the times of these pages.

    *away*: it answers 503. *dated_s*: its lines say that they are so old. *edit* changes a page on its way out.
    """

    version: str = VERSION
    started_at_s: float = 0.0
    requests: int = 0
    away: bool = False
    dated_s: float | None = None
    edit: Callable[[str], str] = str
    served: list[float] = field(default_factory=list)
    server: Server | None = None

    def begin_anew(self, version: str | None = None) -> None:
        """Be another process."""
        self.version, self.started_at_s, self.requests = version or self.version, round(time.time(), 2), 0

    @property
    def address(self) -> str:
        """Its host:port."""
        assert self.server is not None
        return f"127.0.0.1:{self.server.server_port}"

    def __call__(self, handler: Handler) -> None:
        if self.away:
            Says(b"not now\n", status=503)(handler)
            return
        self.requests += REQUESTS_PER_SCRAPE
        self.served.append(time.time())
        Says(self.page().encode())(handler)

    def page(self) -> str:
        """Write its page as it is now."""
        cpu_s = self.requests * CPU_PER_REQUEST_S
        samples = {
            f'synapse_build_info{{osversion="Linux",pythonversion="CPython 3.11",version="{self.version}"}}': 1.0,
            "process_start_time_seconds": self.started_at_s,
            "process_cpu_seconds_total": cpu_s,
            "process_open_fds": 40,
            "process_max_fds": 1024,
            "python_gc_objects_collected_total": 7,
            f"synapse_http_server_response_time_seconds_count{{{_LABELS}}}": self.requests,
            f"synapse_http_server_response_ru_utime_seconds_total{{{_LABELS}}}": cpu_s,
        }
        for edge in (*map(str, LATENCY_EDGES_S), "+Inf"):
            many = 0 if edge == "0.005" else self.requests
            samples[f'synapse_http_server_response_time_seconds_bucket{{{_LABELS},le="{edge}"}}'] = many
        date = "" if self.dated_s is None else f" {round((time.time() - self.dated_s) * 1000)}"
        return self.edit("".join(f"{series} {value}{date}\n" for series, value in samples.items()))


@dataclass(frozen=True, slots=True)
class Running:
    """A Prometheus that scrapes *targets*, each as `instance="127.0.0.1:PORT", job="synapse"`."""

    url: str
    targets: Mapping[str, Target]

    def wait_for(self, names: Collection[str], more: int) -> None:
        """Wait until each has given so many more pages."""
        goals = {name: len(self.targets[name].served) + more for name in names}
        end_s = time.monotonic() + BEGINS_WITHIN_S
        while not all(len(self.targets[name].served) >= goal for name, goal in goals.items()):
            assert time.monotonic() < end_s, "Prometheus doesn't scrape"
            time.sleep(0.02)


@contextmanager
def prometheus(place: Path, targets: Mapping[str, Target], twice: Collection[str] = ()) -> Iterator[Running]:
    """Run one in a directory of its own, on a port of its own, and end it. Those that are *twice* have a job `again` too."""
    binary = need_prometheus()
    with ExitStack() as stack:
        for target in targets.values():
            target.started_at_s = target.started_at_s or round(time.time(), 2)
            target.server = stack.enter_context(serving(target))
        jobs = {"synapse": targets.values(), "again": [targets[name] for name in twice]}
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "900ms"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target.address for target in its]}]} for job, its in jobs.items()
            ],
        }
        path = place / "prometheus.yml"
        # JSON is YAML.
        path.write_text(json.dumps(configuration))
        address = f"127.0.0.1:{free_port()}"
        options = [f"--config.file={path}", f"--storage.tsdb.path={place / 'data'}", f"--web.listen-address={address}", "--log.level=warn"]
        stack.enter_context(_process([binary, *options], place / "prometheus.log"))
        found = Running(f"http://{address}", targets)
        found.wait_for(targets, 1)
        yield found


@contextmanager
def _process(command: list[str], log_path: Path) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10.0)


def inventory_of(addresses: Mapping[str, str]) -> Inventory:
    """Return an inventory of sync workers with metrics pages at these host:port."""
    driver = {"driver": "any"}
    return Inventory.model_validate(
        {
            "homeserver": "example.org",
            "workers": {
                name: {"role": "sync", "url": f"http://127.0.0.1:{8000 + number}", "metrics": f"http://{address}/_synapse/metrics"}
                for number, (name, address) in enumerate(addresses.items())
            },
            **dict.fromkeys(("workers_driver", "releases_driver", "traffic_driver", "ledger_driver"), driver),
        }
    )
