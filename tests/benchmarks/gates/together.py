"""
A release that is a little slower everywhere, and by which worker that is seen when all that were restarted are looked at together.

The workers follow one another every 300 s, and each goes on being watched for the whole horizon. What is asked, at the end of each worker's
300 s, is the pooled gate (rollout/gating/pooled.py); a worker's own gate may speak before.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.gating import pooled
from rollout.gating.latency import Level
from rollout.model.gate import Metric, Ruling
from tests.benchmarks.gates import ours, rollouts
from tests.benchmarks.gates.draw import STEP_S
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.traces import Restart

_APART_S = rollouts.APART_STEPS * STEP_S
# 30 workers with two gates each, and the two of them all together.
ODDS = (30 * 2 + 2) / 0.01


@dataclass(frozen=True, slots=True)
class Seen:
    """By which worker (from 1; infinity: never) a rollout was taken back, by all together or by one alone."""

    together: float
    alone: float


def watch(restarts: Sequence[Restart], level: float) -> Seen:
    """Let a rollout's gates watch it, until one of them says FAIL."""
    told = [_told(restart, level) for restart in restarts]
    for newest in range(1, len(restarts) + 1):
        now = [told[index].at(newest - index) for index in range(newest)]
        if any(failed for _, failed in now):
            return Seen(math.inf, newest)
        odds, _ = pooled.weigh([level for level, _ in now if level is not None])
        if odds >= math.log(ODDS):
            return Seen(newest, math.inf)
    return Seen(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a worker's gate had found after each 300 s, and whether it had failed by then."""

    found: tuple[tuple[Level | None, bool], ...]

    def at(self, turns: int) -> tuple[Level | None, bool]:
        return self.found[min(turns, len(self.found)) - 1]


def _told(restart: Restart, level: float) -> _Told:
    judge = ours.Ours("", restarts=31).judge(restart, level)
    found: list[tuple[Level | None, bool]] = []
    failed, passed_s = False, math.inf
    for scrape in restart.scrapes:
        ruling = judge.see(scrape) if not failed else Ruling.FAIL
        failed = ruling is Ruling.FAIL
        if ruling is Ruling.PASS:
            passed_s = min(passed_s, scrape.at_s)
        if scrape.at_s % _APART_S == 0:
            odds = judge.odds.get(Metric.LATENCY_P95)
            found.append((None if odds is None else pooled.since(odds.levels, passed_s), failed))
    return _Told(tuple(found))


def goal(n: int = 20) -> dict[str, object]:
    """Return the row of its goal: 1.2 times as slow, with one request in five seconds."""
    seen = run(0.2, 1.2, n, Purpose.EVALUATION)
    by = sorted(min(one.together, one.alone) for one in seen)[len(seen) // 2]
    fine = run(0.2, 1.0, n, Purpose.EVALUATION)
    wrong = sum(math.isfinite(one.together) for one in fine)
    told = f"by worker {by:.0f} (median of {n}); {wrong} of {n} good ones are taken back by it"
    return {"what": "p95 ×1.2 at 0.2/s, all together", "goal": "by worker 12 of 30", "reached": told, "met": "yes" if by <= _BY else "NO"}


_BY = 12


def run(level: float, ratio: float, n: int, purpose: Purpose) -> list[Seen]:
    """Watch *n* rollouts of 30 workers, all *ratio* times as slow as before."""
    return [watch(rollouts.traces(purpose, level, index, 30, ratio), level) for index in range(n)]
