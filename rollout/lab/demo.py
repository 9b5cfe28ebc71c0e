"""
The demonstration: a cluster under load is taken to a new release, and then to a bad one, which is taken back by itself. Everything that its
users could have noticed is counted.

The load counts for itself, and it is shown first that it can: one worker is restarted as an impatient person would, without draining, and
if that cuts nothing, the whole run says nothing and counts as void.
"""

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rollout.adapters.metrics.scrape import Scrape
from rollout.homeservers.synapse.metrics import PREFIXES, read_counters
from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.load.clients import Rates
from rollout.lab.load.process import LoadProcess, LoadReport
from rollout.lab.load.records import Record, Window, open_long_polls, window
from rollout.lab.paths import WORKERS, Lab
from rollout.lab.processes import Supervisor, status_of, wait_until
from rollout.lab.tool import Cost, Tool
from rollout.model.errors import DriverError, PermanentDriverError
from rollout.model.ids import WorkerId

CONTROL = "sync1"
BEFORE_S = 10.0
# After the control, and after the rollout: what was cut has come back by then.
SETTLE_S = 5.0
ROLLOUT_TIMEOUT_S = 1200.0
BOOT_TIMEOUT_S = 90.0

BAD = f"{VERSIONS[1]}+slow"
# Less than usual: on two slow cores nothing is left while a worker boots, and what then waits looks like the release.
RATES = Rates(reads=7.0, initial_syncs=0.7, main=55.0)

CUTS_MIN = 5
LONG_POLLS_MIN = 8
REQUESTS_MIN = 50
HELD_MIN = 100
# What a request may wait longer than main takes to boot: half a second. Where main needs more than two seconds, half of what it needs more
# besides: what was under way has to end before the restart, what waited is answered after it, and both are as slow there.
HOLD_MARGIN_S, QUICK_BOOT_S, HOLD_MARGIN_SHARE = 0.5, 2.0, 0.5
ROLLING_S_MAX = 300.0
BOTH_S_MAX = 480.0
# A sibling takes over there.
REPLACEABLE = ("sync", "client")
NOUGHT = ("cut_requests", "client_errors", "lost_events", "duplicate_events", "lost_federation_events")


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
        # Now, while nobody uses the machine: what is shown is what becomes of it, not how it is installed.
        for version in (VERSIONS[1], BAD):
            cluster.install(lab, version, say=_say)
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
    began_s = time.monotonic()
    with LoadProcess(lab, out / "load", RATES) as load:
        _say(f"{BEFORE_S:.0f} s of untroubled load")
        before = _during(lambda: time.sleep(BEFORE_S))
        _say(f"the control: {CONTROL} is restarted without a drain")
        control = _during(lambda: restart_without_drain(lab, CONTROL))
        time.sleep(SETTLE_S)
        good = _roll(lab, out, playbook, VERSIONS[1])
        bad = _roll(lab, out, playbook, BAD)
        report = load.stop()
    untroubled = window(report.records, before.from_s, before.to_s)
    return {
        "control": {"worker": CONTROL, "cut_requests": window(report.records, *_bounds(control, SETTLE_S), REPLACEABLE).cut},
        "good": _about(good, report, untroubled),
        "bad": {**_about(bad, report, untroubled), **_about_failure(bad)},
        "good_and_bad_s": round(time.monotonic() - began_s, 1),
    }


@dataclass(frozen=True, slots=True)
class Rolled:
    """One rollout as it was seen from outside: its account, its exit code, what it cost, and what each worker ran before and after."""

    account: Mapping[str, Any]
    code: int
    cost: Cost
    during: Span
    before: Mapping[str, Observed]
    after: Mapping[str, Observed]


def _roll(lab: Lab, out: Path, playbook: Path, version: str) -> Rolled:
    journal = out / f"journal-{version}.db"
    journal.unlink(missing_ok=True)
    tool = Tool(lab, playbook, journal)
    before = observe(lab)
    from_s = time.time()
    with tool.start("deploy", "--to", version, "--yes") as rollout:
        code = rollout.wait(ROLLOUT_TIMEOUT_S)
    during = Span(from_s, time.time())
    time.sleep(SETTLE_S)
    accounts = tool.ask("history")
    if not accounts:
        raise PermanentDriverError(f"`rollout deploy --to {version}` ended with {code} before it began: what it said stands above")
    return Rolled(accounts[0], code, rollout.cost, during, before, observe(lab))


def _about(rolled: Rolled, report: LoadReport, before: Window) -> dict[str, Any]:
    account, during = rolled.account, rolled.during
    return {
        "outcome": account["outcome"],
        "exit_code": rolled.code,
        "from": ", ".join(account["from_versions"]),
        "to": account["to_version"],
        "workers": len(account["touched"]),
        **_noticed(report, window(report.records, *_bounds(during, SETTLE_S)), before),
        "duration_s": round(during.to_s - during.from_s, 1),
        "rolling_s": _rolling_s(account),
        "waiting_s": {cause: round(seconds, 1) for cause, seconds in account["waiting_s"].items()},
        "tool_cpu_s": round(rolled.cost.cpu_s, 1),
        "tool_rss_mb": round(rolled.cost.rss_mb, 1),
        "versions_after": _versions(rolled.before, rolled.after),
        "by_worker": {worker: about_worker(report.records, WORKERS[worker][1], its) for worker, its in account["workers"].items()},
        "main": _main(report.records, account["workers"]["main"]),
    }


def _about_failure(rolled: Rolled) -> dict[str, Any]:
    """When the bad release was found out, counted from when its first worker got traffic."""
    account = rolled.account
    admitted = [its["admitted_at_s"] for its in account["workers"].values() if its["admitted_at_s"] is not None]
    turned_s = account["rollback_at_s"]
    return {
        "touched": account["touched"],
        "why": account["rollback_why"],
        "detected_after_s": round(turned_s - min(admitted), 1) if admitted and turned_s is not None else None,
    }


def _noticed(report: LoadReport, during: Window, before: Window) -> dict[str, Any]:
    """What users could have noticed."""
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


def _main(records: list[Record], account: Mapping[str, Any]) -> dict[str, Any]:
    """What happened to the requests that came for main while it was held; None of all where it wasn't."""
    from_s, to_s = account["drained_at_s"], account["admitted_at_s"]
    if from_s is None or to_s is None:
        return {"held_requests": 0}
    waited = [one for one in records if one.pool == "main" and from_s <= one.began_s < to_s]
    return {
        "held_requests": len(waited),
        "held_s": round(account["held_s"], 2),
        "boot_s": round(account["boot_s"], 2),
        "slowest_s": round(max((one.ended_s - one.began_s for one in waited), default=0.0), 2),
        "replication_failures": account["replication_failures"],
    }


def about_worker(records: list[Record], pool: str | None, account: Mapping[str, Any]) -> dict[str, Any]:
    """Sum up one worker's restart from its account (`rollout history --json`) and from what the load saw of its pool meanwhile."""
    times = {name: round(account[f"{name}_s"], 1) for name in ("drain", "boot", "ramp", "soak", "out")}
    drained_at_s = account["drained_at_s"]
    if pool is None or drained_at_s is None:
        return {"pool": pool, **{f"{name}_s": seconds for name, seconds in times.items()}}
    # Until it had its full share again, a part of what comes has to go elsewhere.
    while_out = window(records, drained_at_s, drained_at_s + account["out_s"] + account["ramp_s"], (pool,))
    return {
        "pool": pool,
        "open_long_polls_at_drain": open_long_polls(records, pool, drained_at_s),
        "requests_while_out": while_out.requests,
        "cut_while_out": while_out.cut,
        **{f"{name}_s": seconds for name, seconds in times.items()},
    }


def what_is_missed(summary: Mapping[str, Any]) -> list[str]:
    """Say what did not hold of all that has to."""
    missed = []
    cuts = summary["control"]["cut_requests"]
    if cuts < CUTS_MIN:
        missed.append(f"void: a restart without drain cut {cuts} requests, fewer than {CUTS_MIN}; a count of nought would say nothing")
    missed += _missed_by_good(summary["good"])
    missed += _missed_by_bad(summary["bad"])
    if summary["good_and_bad_s"] > BOTH_S_MAX:
        missed.append(f"both took {summary['good_and_bad_s']} s, more than {BOTH_S_MAX:.0f}")
    return missed


def _missed_by_good(good: Mapping[str, Any]) -> Iterator[str]:
    if (good["outcome"], good["exit_code"]) != ("deployed", 0):
        yield f"the rollout ended as {good['outcome']}, with {good['exit_code']}"
    yield from (f"{name} is {good[name]}, not 0" for name in (*NOUGHT, "release_errors") if good[name])
    if good["rolling_s"] is None or good["rolling_s"] > ROLLING_S_MAX:
        yield f"rolling took {good['rolling_s']} s, more than {ROLLING_S_MAX:.0f}"
    yield from _not_running(good, VERSIONS[1])
    for worker, seen in good["by_worker"].items():
        if seen["pool"] not in REPLACEABLE:
            continue
        if seen.get("open_long_polls_at_drain", 0) < LONG_POLLS_MIN:
            yield f"void: fewer than {LONG_POLLS_MIN} long-polls were open on pool {seen['pool']} when {worker} was drained"
        if seen.get("requests_while_out", 0) < REQUESTS_MIN:
            yield f"void: fewer than {REQUESTS_MIN} requests came to pool {seen['pool']} while {worker} was out"
    main = good["main"]
    if main["held_requests"] < HELD_MIN:
        yield f"void: {main['held_requests']} requests came for main while it was held, fewer than {HELD_MIN}"
    elif main["slowest_s"] > main["boot_s"] + HOLD_MARGIN_S + HOLD_MARGIN_SHARE * max(0.0, main["boot_s"] - QUICK_BOOT_S):
        yield f"a request for main took {main['slowest_s']} s, and main's boot {main['boot_s']} s"


def _missed_by_bad(bad: Mapping[str, Any]) -> Iterator[str]:
    if (bad["outcome"], bad["exit_code"]) != ("rolled_back", 3):
        yield f"the bad release ended as {bad['outcome']}, with {bad['exit_code']}"
    yield from (f"with the bad release {name} is {bad[name]}, not 0" for name in NOUGHT if bad[name])
    if len(bad["touched"]) > 1:
        yield f"the bad release reached {', '.join(bad['touched'])}, not the canary alone"
    yield from _not_running(bad, VERSIONS[1], restarted=bad["touched"])


def _not_running(seen: Mapping[str, Any], version: str, restarted: Collection[str] | None = None) -> Iterator[str]:
    """Say who doesn't run *version*, as a new process if it is among *restarted* (everybody if None)."""
    for worker, after in seen["versions_after"].items():
        new = restarted is None or worker in restarted
        if after["version"] != version or (new and not after["restarted"]):
            yield f"{worker} runs {after['version']}{'' if after['restarted'] or not new else ', as the same process as before'}"


def restart_without_drain(lab: Lab, worker: str) -> None:
    """Restart a worker as it stands, and wait until it answers."""
    supervisor = Supervisor(lab)
    supervisor.stop(worker)
    supervisor.start(worker)
    await_answer(lab, worker)


def await_answer(lab: Lab, worker: str) -> None:
    """Wait until a worker answers /health. Raises TransientDriverError when it doesn't in time."""
    url = f"{lab.url(worker)}/health"
    wait_until(lambda: status_of(url) == 200, BOOT_TIMEOUT_S, f"{worker} answers")  # noqa: PLR2004


def observe(lab: Lab) -> dict[str, Observed]:
    """Read from each worker's own page what it runs, and since when. Raises DriverError when one can't be read."""
    workers = [WorkerId(worker) for worker in WORKERS]
    urls = {worker: lab.metrics_url(worker) for worker in workers}
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
