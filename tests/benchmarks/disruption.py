"""
What users notice of three ways to restart the same seven workers, one after the other, on the same lab under the same load.

restart         stop and start, as they stand
drain, restart  what a serial play does: drain, wait for the sessions to end, restart, wait for /health, ready; no gates, no ramp
rollout         `rollout deploy --restart` with playbooks/demo.yaml

Each way has a stretch of untroubled load before it; the latencies of each are compared with those of all three stretches. *cut* and the
latencies are those of the two pools in which a sibling takes over (main has none; what was cut there stands apart). *seconds* is the whole
command. *rolling s* is the part in which workers are out or watched; before it a rollout prepares and watches the untroubled homeserver.
*floor s* is what that part cannot do without: the drains and boots that were observed, and the ramps and shortest times for evidence that
its plan printed.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.journal.sql import open_journal
from rollout.engine.drivers import open_drivers
from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.demo import REPLACEABLE, await_answer, restart_without_drain
from rollout.lab.load.process import LoadProcess
from rollout.lab.load.records import Record, Window, window
from rollout.lab.paths import WORKERS, Lab
from rollout.lab.processes import wait_until
from rollout.lab.tool import Tool
from rollout.model.event import StepBegan, StepFinished
from rollout.model.ids import WorkerId
from rollout.model.plan import steps_of
from rollout.ports.journal import Journal
from rollout.ports.traffic import Server, Traffic

PLAYBOOK = Path("playbooks/demo.yaml")
BEFORE_S = 40.0
# What was cut has come back by then, and nothing of one way is seen in the next.
SETTLE_S = 15.0
DRAIN_TIMEOUT_S = 60.0
ROLLOUT_TIMEOUT_S = 900.0
PROXY_TIMEOUT_S = 5.0
# As the demonstration's playbook goes: replaceable ones first, main last.
ORDER = ("sync1", "sync2", "client1", "client2", "event_persister1", "fedsender1", "main")


def measure(place: Path) -> list[dict[str, object]]:
    """Measure all three on one lab."""
    directory = place / "lab"
    cluster.down(directory, purge=True, say=lambda _: None)
    try:
        lab = cluster.up(directory, VERSIONS[1], venvs=Path("build/venvs"))
        (place / "journal.db").unlink(missing_ok=True)
        tool = Tool(lab, PLAYBOOK, place / "journal.db")
        with LoadProcess(lab, place / "load") as load:
            spans = {
                "restart": _measured(lambda: _restart_all(lab)),
                "drain, restart": _measured(lambda: _drain_and_restart_all(lab)),
                "rollout": _measured(lambda: _roll(tool, place / "rollout.log")),
            }
            records = load.stop().records
        (account,) = tool.ask("history")
        if account["outcome"] != "deployed":
            msg = f"the rollout ended as {account['outcome']}: there is nothing to compare ({place / 'rollout.log'})"
            raise RuntimeError(msg)
        rolling = _rolling(open_journal(str(place / "journal.db")), account)
    finally:
        cluster.down(directory)
    untroubled = [record for record in records if any(from_s <= record.ended_s < to_s for from_s, to_s, _ in spans.values())]
    before = window(untroubled, pools=REPLACEABLE)
    return [_row(way, records, times, before, rolling if way == "rollout" else None) for way, times in spans.items()]


def _measured(act: Callable[[], None]) -> tuple[float, float, float]:
    """Return when the untroubled stretch began, when the act began, and when it ended."""
    untroubled_s = time.time()
    time.sleep(BEFORE_S)
    began_s = time.time()
    act()
    ended_s = time.time()
    time.sleep(SETTLE_S)
    return untroubled_s, began_s, ended_s


def _restart_all(lab: Lab) -> None:
    for worker in ORDER:
        restart_without_drain(lab, worker)


def _drain_and_restart_all(lab: Lab) -> None:
    traffic = open_drivers(read_inventory(lab.inventory)).traffic
    for worker in ORDER:
        pool = WORKERS[worker][1]
        if pool not in REPLACEABLE:
            restart_without_drain(lab, worker)
            continue
        server = Server(pool, worker)
        traffic.drain(server, PROXY_TIMEOUT_S)
        wait_until(lambda server=server: _sessions(traffic, server) == 0, DRAIN_TIMEOUT_S, f"{worker} has no sessions left")  # type: ignore[misc]
        restart_without_drain(lab, worker)
        await_answer(lab, worker)
        traffic.admit(server, 100, PROXY_TIMEOUT_S)


def _sessions(traffic: Traffic, server: Server) -> int | None:
    worker = WorkerId(server.name)
    return traffic.look({worker: server}, PROXY_TIMEOUT_S)[worker].sessions


def _roll(tool: Tool, log: Path) -> None:
    with tool.start("deploy", "--restart", "--yes", log=log) as rollout:
        rollout.wait(ROLLOUT_TIMEOUT_S)


def _rolling(journal: Journal, account: dict[str, Any]) -> tuple[float, float]:
    """Return how long workers were out or watched, and how long that takes at the least."""
    plan = journal.plan(account["id"])
    steps = {step.id: step for step in steps_of(plan.phases)}
    times = [
        event.at_s
        for _, event in journal.events(account["id"])
        if isinstance(event, StepBegan | StepFinished) and steps[event.step_id].worker is not None
    ]
    observed_s = sum(one["drain_s"] + one["boot_s"] for one in account["workers"].values())
    return max(times) - min(times), float(observed_s + sum(plan.forecast.evidence_s.values()))


def _row(
    way: str, records: list[Record], times: tuple[float, float, float], before: Window, rolling: tuple[float, float] | None
) -> dict[str, object]:
    _, began_s, ended_s = times
    # The last seconds count: what a restart cuts may be noticed a little later.
    during = window(records, began_s, ended_s + SETTLE_S, REPLACEABLE)
    return {
        "way": way,
        "requests": during.requests,
        "cut": during.cut,
        "cut at main": window(records, began_s, ended_s + SETTLE_S, ("main",)).cut,
        "server errors": during.release_errors,
        "initial sync p99, ms": during.sync_initial_p99_ms,
        "× before": _ratio(during.sync_initial_p99_ms, before.sync_initial_p99_ms),
        "other p99, ms": during.other_p99_ms,
        "other × before": _ratio(during.other_p99_ms, before.other_p99_ms),
        "seconds": round(ended_s - began_s, 1),
        "rolling s": None if rolling is None else round(rolling[0], 1),
        "floor s": None if rolling is None else round(rolling[1], 1),
        "× floor": None if rolling is None else round(rolling[0] / rolling[1], 2),
    }


def _ratio(during_ms: float | None, before_ms: float | None) -> float | None:
    return None if during_ms is None or not before_ms else round(during_ms / before_ms, 2)
