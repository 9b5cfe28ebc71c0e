"""
What becomes of good and of bad releases: rolled out again and again on one lab under load, by playbooks/demo.yaml.

A good one is 1.163.2 in its next generation (`--restart`); each of the lab's bad ones is derived from it (lab/bad_releases.py). Right is
`deployed` for the good one, and for a bad one `rolled_back`, or `refused` when it was prepared, before anybody is drained; a plan that is
refused never began and is right for neither. *found after s* counts from when the
first worker on the release got traffic (None where none ever did), *reached* is the most workers that a bad release got, *cut* and *server
errors* are what users saw in all runs together, from the beginning of each to its end.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.bad_releases import BAD_VERSIONS, make_bad_release
from rollout.lab.demo import observe
from rollout.lab.load.process import LoadProcess
from rollout.lab.load.records import Record, window
from rollout.lab.tool import Tool

PLAYBOOK = Path("playbooks/demo.yaml")
GOOD = VERSIONS[1]
GOOD_RUNS = 5
BAD_RUNS = 3
ROLLOUT_TIMEOUT_S = 900.0
BEFORE_S = 20.0
SETTLE_S = 10.0
NEVER_BEGAN: dict[str, Any] = {"outcome": "never began", "touched": [], "workers": {}, "rollback_at_s": None, "rollback_why": ""}
RIGHT = {"good": {"deployed"}, "bad": {"rolled_back", "refused"}}


def measure(place: Path) -> list[dict[str, object]]:
    """Run all of them, in turns, so that no release has a part of the hour for itself."""
    directory = place / "lab"
    cluster.down(directory, purge=True, say=lambda _: None)
    (place / "journal.db").unlink(missing_ok=True)
    try:
        lab = cluster.up(directory, GOOD, venvs=Path("build/venvs"))
        # Refused when it is prepared, which is what shall be seen.
        for version in BAD_VERSIONS:
            if not version.endswith("+config"):
                cluster.install(lab, version)
            else:
                make_bad_release(version, lab.target / "locks")
        tool = Tool(lab, PLAYBOOK, place / "journal.db")
        turns = [turn for number in range(GOOD_RUNS) for turn in ([GOOD] + (list(BAD_VERSIONS) if number < BAD_RUNS else []))]
        runs: dict[str, list[tuple[float, float, int, dict[str, Any]]]] = {}
        with LoadProcess(lab, place / "load") as load:
            time.sleep(BEFORE_S)
            for version in turns:
                runs.setdefault(version, []).append(_roll(tool, version, place / "rollout.log"))
            report = load.stop()
        mixed = {seen.version for seen in observe(lab).values()} != {GOOD}
    finally:
        cluster.down(directory)
    if mixed or report.lost_events or report.lost_federation_events:
        msg = f"mixed releases: {mixed}; events lost: {report.lost_events}, at the peer {report.lost_federation_events}"
        raise RuntimeError(msg)
    return [_row(version, done, report.records) for version, done in runs.items()]


def _roll(tool: Tool, version: str, log: Path) -> tuple[float, float, int, dict[str, Any]]:
    began_s = time.time()
    what = ("--restart",) if version == GOOD else ("--to", version)
    with tool.start("deploy", *what, "--yes", log=log) as rollout:
        code = rollout.wait(ROLLOUT_TIMEOUT_S)
    ended_s = time.time()
    time.sleep(SETTLE_S)
    last = tool.ask("history")[:1]
    # One that was never begun has no account.
    return began_s, ended_s, code, last[0] if last and last[0]["began_at_s"] >= began_s else NEVER_BEGAN


def _row(version: str, runs: Sequence[tuple[float, float, int, dict[str, Any]]], records: list[Record]) -> dict[str, object]:
    seen = [window(records, began_s, ended_s + SETTLE_S) for began_s, ended_s, _, _ in runs]
    accounts = [account for _, _, _, account in runs]
    found = [seconds for account in accounts if (seconds := _found_after_s(account)) is not None]
    right = RIGHT["good" if version == GOOD else "bad"]
    return {
        "release": version,
        "runs": len(runs),
        "right": sum(account["outcome"] in right for account in accounts),
        "outcomes": ", ".join(f"{count} {outcome}" for outcome, count in Counter(account["outcome"] for account in accounts).items()),
        "exit codes": ", ".join(sorted({str(code) for _, _, code, _ in runs})),
        "reached": max(len(account["touched"]) for account in accounts),
        "found after s": round(median(found), 1) if found else None,
        "at the latest": round(max(found), 1) if found else None,
        "requests": sum(one.requests for one in seen),
        "cut": sum(one.cut for one in seen),
        "server errors": sum(one.release_errors for one in seen),
        "seconds": round(median(ended_s - began_s for began_s, ended_s, _, _ in runs), 1),
        "why": "; ".join(dict.fromkeys(account["rollback_why"].partition(":")[0] for account in accounts if account["rollback_why"])),
    }


def _found_after_s(account: dict[str, Any]) -> float | None:
    admitted = [its["admitted_at_s"] for its in account["workers"].values() if its["admitted_at_s"] is not None]
    turned_s = account["rollback_at_s"]
    return turned_s - min(admitted) if turned_s is not None and admitted and min(admitted) < turned_s else None
