"""
The demonstration: a cluster under load is taken to a new release, and everything that its users could have noticed is counted.

The load counts for itself, and it is shown first that it can: one worker is restarted as an impatient person would, without draining, and
if that cuts nothing, the whole run says nothing and counts as void.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rollout.adapters.metrics.scrape import Scrape
from rollout.homeservers.synapse.metrics import PREFIXES, read_counters
from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.load.process import LoadProcess, LoadReport
from rollout.lab.load.records import Record, Window, open_long_polls, percentile_ms, window
from rollout.lab.paths import WORKERS, Lab
from rollout.lab.processes import Supervisor, status_of, wait_until
from rollout.lab.tool import Tool
from rollout.model.errors import DriverError
from rollout.model.ids import WorkerId

CONTROL = "sync1"
BEFORE_S = 40.0
# After the control, and after the rollout: what was cut has come back by then.
SETTLE_S = 10.0
ROLLOUT_TIMEOUT_S = 1200.0
BOOT_TIMEOUT_S = 90.0

CUTS_MIN = 5
LONG_POLLS_MIN = 8
REQUESTS_MIN = 50
ROLLING_S_MAX = 300.0
NOUGHT = ("cut_requests", "release_errors", "client_errors", "lost_events", "duplicate_events", "lost_federation_events")
# Main is one process without a sibling: what it costs to restart it is reported apart.
REPLACEABLE = ("sync", "client")


@dataclass(frozen=True, slots=True)
class Observed:
    """What a worker says of itself on its metrics page."""

    version: str
    started_at_s: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, in seconds since the epoch."""

    from_s: float
    to_s: float


def run_demo(out: Path, playbook: Path, *, keep: bool = False) -> int:
    """
    Run it on a lab of its own below *out*, write *out*/summary.json, and return 0 if everything held that has to.

    With *keep* the lab is left running.
    """
    out.mkdir(parents=True, exist_ok=True)
    directory = out / "lab"
    began_s = time.monotonic()
    cluster.down(directory, purge=True, say=lambda _: None)
    try:
        lab = cluster.up(directory, VERSIONS[0], venvs=out.parent / "venvs", say=_say)
        setup_s = time.monotonic() - began_s
        summary = {"setup_s": round(setup_s, 1), **_demonstrate(lab, out, playbook)}
    finally:
        if not keep:
            cluster.down(directory, say=_say)
    missed = what_is_missed(summary)
    summary["missed"] = missed
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    _say(f"\n{out / 'summary.json'}:\n{json.dumps(summary, indent=2)}\n")
    _say("everything held" if not missed else "NOT everything held:\n  " + "\n  ".join(missed))
    return 1 if missed else 0


def _demonstrate(lab: Lab, out: Path, playbook: Path) -> dict[str, Any]:
    (out / "journal.db").unlink(missing_ok=True)
    tool = Tool(lab, playbook, out / "journal.db")
    with LoadProcess(lab, out / "load") as load:
        _say(f"{BEFORE_S:.0f} s of untroubled load")
        before = _during(lambda: time.sleep(BEFORE_S))
        _say(f"the control: {CONTROL} is restarted without a drain")
        control = _during(lambda: restart_without_drain(lab, CONTROL))
        time.sleep(SETTLE_S)
        processes = observe(lab)
        with tool.start("deploy", "--to", VERSIONS[1], "--yes") as rollout:
            during = _during(lambda: rollout.wait(ROLLOUT_TIMEOUT_S))
        time.sleep(SETTLE_S)
        report = load.stop()
        after = observe(lab)
    (account,) = tool.ask("history")
    seen = window(report.records, *_bounds(during, SETTLE_S), REPLACEABLE)
    return {
        "control": {"worker": CONTROL, "cut_requests": window(report.records, *_bounds(control, SETTLE_S)).cut},
        "good": {
            "outcome": account["outcome"],
            "from": ", ".join(account["from_versions"]),
            "to": account["to_version"],
            "workers": len(WORKERS),
            **_noticed(report, seen, window(report.records, before.from_s, before.to_s, REPLACEABLE)),
            "duration_s": round(during.to_s - during.from_s, 1),
            "rolling_s": _rolling_s(account),
            "waiting_s": {cause: round(seconds, 1) for cause, seconds in account["waiting_s"].items()},
            "tool_cpu_s": round(rollout.cost.cpu_s, 1),
            "tool_rss_mb": round(rollout.cost.rss_mb, 1),
            "versions_after": _versions(processes, after),
            "by_worker": {worker: about_worker(report.records, WORKERS[worker][1], its) for worker, its in account["workers"].items()},
            "main": _main(window(report.records, *_bounds(during, SETTLE_S), ("main",)), report, during),
        },
    }


def _noticed(report: LoadReport, during: Window, before: Window) -> dict[str, Any]:
    """What users could have noticed, of all but main."""
    return {
        "requests": during.requests,
        "cut_requests": during.cut,
        "release_errors": during.release_errors,
        "client_errors": during.client_errors,
        "sent_events": report.sent_events,
        "lost_events": report.lost_events,
        "duplicate_events": report.duplicate_events,
        "federated_events": report.federated_events,
        "lost_federation_events": report.lost_federation_events,
        "sync_initial_p99_before_ms": before.sync_initial_p99_ms,
        "sync_initial_p99_during_ms": during.sync_initial_p99_ms,
        "other_p99_before_ms": before.other_p99_ms,
        "other_p99_during_ms": during.other_p99_ms,
    }


def _rolling_s(account: Mapping[str, Any]) -> float | None:
    """Return the time from the first drain to the end: without installing the release and watching what was there before."""
    drained = [its["drained_at_s"] for its in account["workers"].values() if its["drained_at_s"] is not None]
    return round(account["finished_at_s"] - min(drained), 1) if drained else None


def _main(seen: Window, report: LoadReport, during: Span) -> dict[str, Any]:
    answered = [one for one in report.records if one.pool == "main" and during.from_s <= one.ended_s < during.to_s]
    return {"requests": seen.requests, "cut_requests": seen.cut, "p99_during_ms": percentile_ms(answered, 0.99)}


def about_worker(records: list[Record], pool: str | None, account: Mapping[str, Any]) -> dict[str, Any]:
    """Sum up one worker's restart from its account (`rollout history --json`) and from what the load saw of its pool meanwhile."""
    times = {name: round(account[f"{name}_s"], 1) for name in ("drain", "boot", "ramp", "soak", "out")}
    drained_at_s = account["drained_at_s"]
    if pool is None or drained_at_s is None:
        return {"pool": pool, **{f"{name}_s": seconds for name, seconds in times.items()}}
    while_out = window(records, drained_at_s, drained_at_s + account["out_s"], (pool,))
    return {
        "pool": pool,
        "open_long_polls_at_drain": open_long_polls(records, pool, drained_at_s),
        "requests_while_out": while_out.requests,
        "cut_while_out": while_out.cut,
        **{f"{name}_s": seconds for name, seconds in times.items()},
    }


def what_is_missed(summary: Mapping[str, Any]) -> list[str]:
    """Say what did not hold of all that has to."""
    good = summary["good"]
    missed = []
    cuts = summary["control"]["cut_requests"]
    if cuts < CUTS_MIN:
        missed.append(f"void: a restart without drain cut {cuts} requests, fewer than {CUTS_MIN}; a count of nought would say nothing")
    if good["outcome"] != "deployed":
        missed.append(f"the rollout ended as {good['outcome']}")
    missed += [f"{name} is {good[name]}, not 0" for name in NOUGHT if good[name]]
    if good["rolling_s"] is None or good["rolling_s"] > ROLLING_S_MAX:
        missed.append(f"rolling took {good['rolling_s']} s, more than {ROLLING_S_MAX:.0f}")
    for worker, after in good["versions_after"].items():
        if after["version"] != VERSIONS[1] or not after["restarted"]:
            missed.append(f"{worker} runs {after['version']}{'' if after['restarted'] else ', as the same process as before'}")
    for worker, seen in good["by_worker"].items():
        if seen["pool"] not in REPLACEABLE:
            continue
        if seen.get("open_long_polls_at_drain", 0) < LONG_POLLS_MIN:
            missed.append(f"void: fewer than {LONG_POLLS_MIN} long-polls were open on pool {seen['pool']} when {worker} was drained")
        if seen.get("requests_while_out", 0) < REQUESTS_MIN:
            missed.append(f"void: fewer than {REQUESTS_MIN} requests came to pool {seen['pool']} while {worker} was out")
    return missed


def restart_without_drain(lab: Lab, worker: str) -> None:
    """Restart a worker as it stands, and wait until it answers."""
    supervisor = Supervisor(lab)
    supervisor.stop(worker)
    supervisor.start(worker)
    await_answer(lab, worker)


def await_answer(lab: Lab, worker: str) -> None:
    """Wait until a worker answers /health. Raises TransientDriverError when it doesn't in time."""
    url = f"http://127.0.0.1:{lab.ports.http[worker]}/health"
    wait_until(lambda: status_of(url) == 200, BOOT_TIMEOUT_S, f"{worker} answers")  # noqa: PLR2004


def observe(lab: Lab) -> dict[str, Observed]:
    """Read from each worker's own page what it runs, and since when. Raises DriverError when one can't be read."""
    workers = [WorkerId(worker) for worker in WORKERS]
    urls = {worker: f"http://127.0.0.1:{lab.ports.metrics[worker]}/_synapse/metrics" for worker in workers}
    found = {}
    for worker, page in Scrape(urls, 16_000_000).read(workers, PREFIXES, 10.0).items():
        counters = page if isinstance(page, str) else read_counters(page.samples)
        if isinstance(counters, str):
            raise DriverError("its metrics page can't be used", where=worker, why=counters)
        found[str(worker)] = Observed(counters.version, counters.started_at_s)
    return found


def _versions(before: Mapping[str, Observed], after: Mapping[str, Observed]) -> dict[str, Any]:
    return {worker: {**asdict(now), "restarted": now.started_at_s > before[worker].started_at_s} for worker, now in after.items()}


def _during(act: Callable[[], object]) -> Span:
    from_s = time.time()
    act()
    return Span(from_s, time.time())


def _bounds(span: Span, grace_s: float) -> tuple[float, float]:
    return span.from_s, span.to_s + grace_s


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
