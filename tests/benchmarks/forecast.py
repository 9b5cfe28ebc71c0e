"""
How good forecasts are: restarts of three workers (both of pool sync, and one client) under two loads, one after the other on the same lab.

The second load is so many times the first that it takes most of the machine, and no more than that: on one that can't keep up a rollout is
taken back, rightly, and says nothing of forecasts. How many times is in the rows, with the share of the processors that each load takes.

Each load has a journal of its own, so that its first rollout is forecast by assumptions alone and each later one by those before it. Judged
is from the third on. No assumption (planning/forecast.py) was made at either load: those come from the demonstration's, which is between
the two. A row says what was forecast and what it took, in all and for what varies (without baseline, ramps, least soaks and watch), and the
parts of that; *within p90*: it took no longer than nine of ten should. The last row of a load has the medians of what the forecasts were
off, without their signs; the goals are 15 % in all and 25 % for what varies.
"""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from rollout.lab import cluster
from rollout.lab.artefacts import VERSIONS
from rollout.lab.load.clients import Rates
from rollout.lab.load.process import LoadProcess
from rollout.lab.paths import Lab
from rollout.lab.tool import Tool

PLAYBOOK = Path(__file__).with_name("forecast.yaml")
QUIET = Rates(sends=0.8, reads=6.0, initial_syncs=1.0, main=20.0)
BUSY_SHARE, BUSY_TIMES_MAX = 0.7, 3.5
UNTIL = "client1"
RUNS = 5
JUDGED_FROM = 3
ROLLOUT_TIMEOUT_S = 300.0
BEFORE_S = 15.0
SETTLE_S = 5.0
PARTS = ("drains", "boots", "recovery", "preparation")


def measure(place: Path) -> list[dict[str, object]]:
    """Roll under one load after the other."""
    directory = place / "lab"
    cluster.down(directory, purge=True, say=lambda _: None)
    try:
        lab = cluster.up(directory, VERSIONS[1], venvs=Path("build/venvs"))
        share, quiet = _measure(lab, place, "quiet", 1.0)
        _, busy = _measure(lab, place, "busy", min(BUSY_TIMES_MAX, BUSY_SHARE / share))
        return [*quiet, *busy]
    finally:
        cluster.down(directory)


def _measure(lab: Lab, place: Path, name: str, times: float) -> tuple[float, list[dict[str, object]]]:
    """Return the share of the processors that *times* the quiet load takes, and the rows of its rollouts."""
    journal = place / f"journal-{name}.db"
    journal.unlink(missing_ok=True)
    tool = Tool(lab, PLAYBOOK, journal)
    rates = replace(QUIET, **{rate: times * getattr(QUIET, rate) for rate in ("sends", "reads", "initial_syncs", "main")})
    with LoadProcess(lab, place / name, rates) as load:
        time.sleep(SETTLE_S)
        before = _processors()
        time.sleep(BEFORE_S)
        busy, all_of_it = (now - then for now, then in zip(_processors(), before, strict=True))
        scores = [_roll(tool, place / f"rollout-{name}.log") for _ in range(RUNS)]
        load.stop()
    share = busy / all_of_it
    judged = list(enumerate(scores, start=1))[JUDGED_FROM - 1 :]
    label = f"{name} × {times:.1f}, {share:.0%}"
    rows = [_row(label, str(number), score) for number, score in judged]
    return share, [*rows, _medians(label, [score for _, score in judged])]


def _processors() -> tuple[float, float]:
    """Return the time that all processors were busy, and all of it, in ticks since the machine started (proc_stat(5))."""
    ticks = [float(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _roll(tool: Tool, log: Path) -> dict[str, Any]:
    """Restart, and return the score of it. Raises RuntimeError for a rollout that has none: it wasn't deployed."""
    with tool.start("deploy", "--restart", "--until", UNTIL, "--yes", log=log) as rollout:
        code = rollout.wait(ROLLOUT_TIMEOUT_S)
    account = tool.ask("history", "--limit", "1")[0]
    if code != 0 or account["forecast"] is None:
        msg = f"rollout {account['id']} ended with {code}, as {account['outcome']}: see {log}"
        raise RuntimeError(msg)
    time.sleep(SETTLE_S)
    score: dict[str, Any] = account["forecast"]
    return score


def _row(load: str, number: str, score: dict[str, Any]) -> dict[str, object]:
    whole, variable = score["whole"], score["variable"]
    nothing = {"forecast_s": 0.0, "took_s": 0.0}
    return {
        "load": load,
        "rollout": number,
        "forecast s": round(whole["forecast_s"], 1),
        "took s": round(whole["took_s"], 1),
        "off %": _percent(_off(whole)),
        "varies: forecast s": round(variable["forecast_s"], 1),
        "varies: took s": round(variable["took_s"], 1),
        "varies: off %": _percent(_off(variable)),
        **{part: "{forecast_s:.1f} / {took_s:.1f}".format(**score["parts"].get(part, nothing)) for part in PARTS},
        "within p90": whole["took_s"] <= score["p90_s"],
        "left out s": round(sum(score["left_out"].values()), 1),
    }


def _medians(load: str, scores: list[dict[str, Any]]) -> dict[str, object]:
    of = {part: [score[part] for score in scores] for part in ("whole", "variable")}
    return {
        "load": load,
        "rollout": "median",
        "forecast s": round(median(one["forecast_s"] for one in of["whole"]), 1),
        "took s": round(median(one["took_s"] for one in of["whole"]), 1),
        "off %": _percent(median(abs(_off(one)) for one in of["whole"])),
        "varies: forecast s": round(median(one["forecast_s"] for one in of["variable"]), 1),
        "varies: took s": round(median(one["took_s"] for one in of["variable"]), 1),
        "varies: off %": _percent(median(abs(_off(one)) for one in of["variable"])),
        **dict.fromkeys(PARTS, ""),
        "within p90": all(score["whole"]["took_s"] <= score["p90_s"] for score in scores),
        "left out s": "",
    }


def _off(compared: dict[str, float]) -> float:
    """Return by how much it took longer, as a fraction of the forecast."""
    return (compared["took_s"] - compared["forecast_s"]) / compared["forecast_s"]


def _percent(share: float) -> float:
    return round(100 * share, 1)
