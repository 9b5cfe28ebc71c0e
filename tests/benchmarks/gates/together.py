"""
A release that is a little slower everywhere, and by which worker that is seen when all that were restarted are looked at together.

The workers follow one another every 300 s, and each goes on being watched for the whole horizon. Every 30 s, as often as a block of its
evidence ends, the pooled gate is asked (rollout/gating/pooled.py); a worker's own gate is asked at each scrape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.gating import pooled, sequential
from rollout.gating.latency import Level
from rollout.model.gate import Metric, Ruling
from tests.benchmarks.gates import ours, rollouts
from tests.benchmarks.gates.draw import STEP_S
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.traces import Restart

_EVERY_S = sequential.BLOCK_S
# From one worker to the next, so many times.
_APART = round(rollouts.APART_STEPS * STEP_S / _EVERY_S)
# 30 workers with two gates each, and the two of them all together.
ODDS = (30 * 2 + 2) / 0.01


@dataclass(frozen=True, slots=True)
class Seen:
    """
    By which worker (from 1; infinity: never) a rollout was taken back, by all together or by one alone; *in_the_dark*: that one had been in
    an incident of the shared database while there was nobody to compare it with.
    """

    together: float
    alone: float
    in_the_dark: bool = False


def watch(restarts: Sequence[Restart], level: float, odds: float = ODDS) -> Seen:
    """Let a rollout's gates watch it, until one of them says FAIL: at these odds against a good release."""
    told = [_told(restart, level, odds) for restart in restarts]
    for turn in range(1, (len(restarts) - 1) * _APART + len(told[-1].found) + 1):
        newest = min(len(restarts), 1 + (turn - 1) // _APART)
        now = [told[index].at(turn - index * _APART) for index in range(newest)]
        if any(failed for _, failed in now):
            failing = [index for index, (_, failed) in enumerate(now) if failed]
            return Seen(math.inf, newest, all(_in_the_dark(restarts[index], told[index].failed_s) for index in failing))
        against, _ = pooled.weigh([level for level, _ in now if level is not None])
        if against >= math.log(odds):
            return Seen(newest, math.inf)
    return Seen(math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _Told:
    """What a worker's gates had found after each 30 s, and whether one had failed by then."""

    found: tuple[tuple[Level | None, bool], ...]
    failed_s: float

    def at(self, turns: int) -> tuple[Level | None, bool]:
        return self.found[min(turns, len(self.found)) - 1]


def _told(restart: Restart, level: float, odds: float) -> _Told:
    judge = ours.Judge(restart, tuple(ours.gate(metric, odds) for metric in ours.METRICS), ours.earlier(level))
    found: list[tuple[Level | None, bool]] = []
    failed, passed_s, failed_s = False, math.inf, math.inf
    for scrape in restart.scrapes:
        ruling = judge.see(scrape) if not failed else Ruling.FAIL
        failed = ruling is Ruling.FAIL
        failed_s = min(failed_s, scrape.at_s if failed else math.inf)
        if ruling is Ruling.PASS:
            passed_s = min(passed_s, scrape.at_s)
        if scrape.at_s % _EVERY_S == 0:
            its = judge.odds.get(Metric.LATENCY_P95)
            found.append((None if its is None else pooled.since(its.levels, passed_s), failed))
    return _Told(tuple(found), failed_s)


def _in_the_dark(restart: Restart, until_s: float) -> bool:
    alone_s = [scrape.at_s for scrape in restart.scrapes if scrape.controls is None and scrape.at_s <= until_s]
    return any(incident.from_s <= at_s <= incident.until_s for incident in restart.truth.incidents for at_s in alone_s)


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
