"""
A cold sync worker comes back to a herd of initial syncs, in several ways, one after the other on the same lab.

sync1 is drained and restarted, so that its caches are empty, then admitted while initial syncs arrive at a steady rate:

all at once      its full weight at once
fixed steps      25, 50, 100 %, ten seconds each
ours             rollout's own ramp: from 10 %, every 5 s as much more as keeps it below 70 % of a core (deciding/admission.py)
warm, at once    all at once, after rollout's own warming as the users who were there last
warm, ours       rollout's own ramp after warming

*full after s* is from its admission to its full weight, *warming s* comes before that. *busiest* is the most CPU of sync1 in five seconds,
as a share of a core, and *usual* that of the stretch before. Latencies and cuts are those of initial syncs at both workers of the pool, for
WATCH_S from the admission on; *before* are those of the stretch before sync1 was drained.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.read import read_inventory
from rollout.deciding.admission import next_weight
from rollout.engine.drivers import Drivers, open_drivers, servers
from rollout.engine.survey import Surveyor
from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.demo import restart_without_drain
from rollout.lab.load.clients import Rates
from rollout.lab.load.process import LoadProcess
from rollout.lab.load.records import INITIAL, Record, percentile_ms, window
from rollout.lab.paths import Lab
from rollout.lab.processes import wait_until
from rollout.model.gate import Tally
from rollout.model.ids import WorkerId
from rollout.model.warming import WarmBudget
from rollout.ports.traffic import Server

WORKER = WorkerId("sync1")
USERS, ROOMS = 80, 24
HERD = Rates(sends=1.0, reads=2.0, initial_syncs=8.0, main=2.0, sliding_users=0)
WAYS = ("all at once", "fixed steps", "ours", "warm, at once", "warm, ours")
FIXED = (25, 50, 100)
FIXED_S = 10.0
FIRST, STEP_S, UTILISATION_MAX = 10, 5.0, 0.7
BUDGET = WarmBudget(users_max=USERS, concurrency=2, seconds=30.0, cpu_max=0.9)
BEFORE_S = 30.0
WATCH_S = 60.0
SETTLE_S = 10.0
TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 60.0


@dataclass(slots=True)
class _Bench:
    """The lab's drivers, and what was measured of WORKER lately."""

    drivers: Drivers
    surveyor: Surveyor
    server: Server
    busiest: float = 0.0
    tallies: list[Tally] = field(default_factory=list)

    def measure(self) -> Tally | None:
        """Return what it did since the last time."""
        tally = self.surveyor.measure((WORKER,), with_canaries=False).tallies.get(WORKER)
        if tally is not None and tally.until_s > tally.since_s:
            self.busiest = max(self.busiest, tally.cpu_s / (tally.until_s - tally.since_s))
        return tally

    def admit(self, weight: int) -> None:
        self.drivers.traffic.admit(self.server, weight, TIMEOUT_S)

    def sessions(self) -> int | None:
        return self.drivers.traffic.look({WORKER: self.server}, TIMEOUT_S)[WORKER].sessions

    def is_up(self) -> bool:
        return self.drivers.traffic.look({WORKER: self.server}, TIMEOUT_S)[WORKER].up


def measure(place: Path) -> list[dict[str, object]]:
    """Measure all ways on one lab."""
    directory = place / "lab"
    cluster.down(directory, purge=True, say=lambda _: None)
    try:
        lab = cluster.up(directory, VERSIONS[1], venvs=Path("build/venvs"), users=USERS, rooms=ROOMS)
        return [_measure(lab, place, way) for way in WAYS]
    finally:
        cluster.down(directory)


def _measure(lab: Lab, place: Path, way: str) -> dict[str, object]:
    inventory = read_inventory(lab.inventory)
    drivers = open_drivers(inventory)
    bench = _Bench(drivers, Surveyor(drivers, inventory, SystemClock()), servers(inventory)[WORKER])
    with LoadProcess(lab, place / way.replace(", ", "-").replace(" ", "-"), HERD) as load:
        before_s = time.time()
        bench.measure()
        time.sleep(BEFORE_S)
        baseline, usual = bench.measure(), bench.busiest
        drained_s = time.time()
        drivers.traffic.drain(bench.server, TIMEOUT_S)
        wait_until(lambda: bench.sessions() == 0, DRAIN_TIMEOUT_S, f"{WORKER} has no sessions left")
        restart_without_drain(lab, WORKER)
        wait_until(bench.is_up, DRAIN_TIMEOUT_S, f"the proxy sees {WORKER} up")
        warmed_s = _warm(bench) if way.startswith("warm") else None
        bench.measure()
        bench.busiest = 0.0
        admitted_s = time.time()
        full_s = _ramp(bench, way, baseline, admitted_s)
        while time.time() < admitted_s + WATCH_S:
            time.sleep(STEP_S)
            bench.measure()
        time.sleep(SETTLE_S)
        records = load.stop().records
    return _row(way, records, (before_s, drained_s, admitted_s), full_s, warmed_s) | {
        "busiest": round(bench.busiest, 2),
        "usual": round(usual, 2),
    }


def _warm(bench: _Bench) -> float:
    if bench.drivers.warming is None or bench.drivers.database is None:
        msg = "the lab has nothing to warm with"
        raise RuntimeError(msg)
    users = bench.drivers.database.active_users(USERS, TIMEOUT_S)
    return bench.drivers.warming.warm(WORKER, users, BUDGET).seconds


def _ramp(bench: _Bench, way: str, baseline: Tally | None, admitted_s: float) -> float:
    """Give it its traffic back, and return after how many seconds it had all of it."""
    if way.endswith("at once"):
        bench.admit(100)
        return 0.0
    for weight, seconds in _weights(bench, way, baseline):
        bench.admit(weight)
        if weight == 100:
            break
        time.sleep(seconds)
    return time.time() - admitted_s


def _weights(bench: _Bench, way: str, baseline: Tally | None) -> Iterator[tuple[int, float]]:
    if way == "fixed steps":
        yield from ((weight, FIXED_S) for weight in FIXED)
        return
    weight = FIRST
    while True:
        yield weight, STEP_S
        tally = bench.measure()
        if tally is not None:
            weight = next_weight(weight, tally, baseline, UTILISATION_MAX)


def _row(way: str, records: list[Record], times: tuple[float, float, float], full_s: float, warmed_s: float | None) -> dict[str, object]:
    before_s, drained_s, admitted_s = times
    initial = [one for one in records if one.kind == INITIAL]
    before = [one for one in initial if before_s <= one.began_s < drained_s]
    after = [one for one in initial if admitted_s <= one.began_s < admitted_s + WATCH_S]
    seen = window(after)
    return {
        "way": way,
        "warming s": None if warmed_s is None else round(warmed_s, 1),
        "full after s": round(full_s, 1),
        "initial syncs": len(after),
        "p50, ms": percentile_ms(after, 0.5),
        "p99, ms": percentile_ms(after, 0.99),
        "p99 before, ms": percentile_ms(before, 0.99),
        "p99 × before": round((percentile_ms(after, 0.99) or 0.0) / (percentile_ms(before, 0.99) or 1.0), 2),
        "cut": seen.cut,
    }
