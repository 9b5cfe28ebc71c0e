"""
A release that is a little slower everywhere, and by which worker that is seen when all that were restarted are looked at together.

The workers follow one another every 300 s, and each goes on being watched for half an hour. Every 30 s, as often as a block of its
evidence ends, the pooled gate is asked (rollout/gating/pooled.py), and who failed since whether the others excuse it
(rollout/gating/excuse.py); a worker's own gate is asked at each scrape.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rollout.gating import excuse, pooled, sequential
from rollout.gating.excuse import Passed
from rollout.gating.latency import Level
from rollout.gating.sequential import Kept, Odds
from rollout.model.gate import Gate, Metric, Ruling
from rollout.planning.evidence import odds_of
from tests.benchmarks.gates import ours, rollouts
from tests.benchmarks.gates.draw import STEP_S
from tests.benchmarks.gates.seeds import FRESH, Purpose
from tests.benchmarks.gates.traces import Restart

_EVERY_S = sequential.BLOCK_S
# From one worker to the next, so many times.
_APART = round(rollouts.APART_STEPS * STEP_S / _EVERY_S)
# 30 workers with two gates each, and the two of them all together.
ODDS = odds_of(30 * 2 + 2, 0.01)


@dataclass(frozen=True, slots=True)
class Seen:
    """
    By which worker (from 1; infinity: never) a rollout was taken back, by all together or by one alone, so long after its admission
    (*failed_s*); *in_the_dark*: that one had been in an incident of the shared database while there was nobody to compare it with.
    *passed_s* is the mean time in which they passed; infinity, if one didn't.
    """

    together: float
    alone: float
    failed_s: float
    passed_s: float
    in_the_dark: bool = False


def watch(restarts: Sequence[Restart], level: float, odds: float = ODDS) -> Seen:
    """Let a rollout's gates watch it, until one of them says FAIL: at these odds against a good release."""
    told = [_told(restart, level, odds) for restart in restarts]
    passed_s = sum(one.found[-1].passed_s for one in told) / len(told)
    for turn in range(1, (len(restarts) - 1) * _APART + len(told[-1].found) + 1):
        newest = min(len(restarts), 1 + (turn - 1) // _APART)
        now = [told[index].at(turn - index * _APART) for index in range(newest)]
        seen_s = [(turn - index * _APART) * _EVERY_S for index in range(newest)]
        if failing := [index for index, one in enumerate(now) if any(_fails(fail, index, now, restarts) for fail in one.fails)]:
            in_the_dark = all(_in_the_dark(restarts[index], seen_s[index]) for index in failing)
            return Seen(math.inf, newest, seen_s[failing[0]], passed_s, in_the_dark)
        those = [_passed(one, restart) for one, restart in zip(now, restarts, strict=False) if math.isfinite(one.passed_s)]
        if _against(those) >= math.log(odds) and _against(excuse.calm(those, those)) >= math.log(odds):
            return Seen(newest, math.inf, seen_s[-1], passed_s)
    return Seen(math.inf, math.inf, math.inf, passed_s)


def _passed(found: "_Found", restart: Restart) -> Passed:
    return Passed(found.levels, restart.admitted_s, restart.admitted_s + found.passed_s)


def _against(those: Sequence[Passed]) -> float:
    levels = [level for one in those if (level := pooled.since(one.levels, one.passed_at_s - one.admitted_at_s)) is not None]
    return pooled.weigh(levels)[0]


class _Failed(NamedTuple):
    """A gate's odds, and from what."""

    gate: Gate
    seen: sequential.Seen
    kept: Kept | None
    odds: Odds


def _fails(fail: _Failed, index: int, now: Sequence["_Found"], restarts: Sequence[Restart]) -> bool:
    """Tell whether somebody fails whatever the others show at the same moment, as a rollout asks (rollout/deciding/weighing.py)."""
    if fail.gate.metric in sequential.SHARES:
        return True
    others = [
        _passed(one, restart)
        for other, (one, restart) in enumerate(zip(now, restarts, strict=False))
        if other != index and math.isfinite(one.passed_s)
    ]
    return sequential.fails(fail.gate, excuse.without_common(fail.gate, fail.seen, fail.kept, fail.odds, others))


@dataclass(frozen=True, slots=True)
class _Found:
    """
    What a worker's gates had found by one moment: its *levels*, when it passed (s after its admission), and those that failed within the
    last 30 s.
    """

    levels: tuple[Level, ...]
    passed_s: float
    fails: tuple[_Failed, ...]


@dataclass(frozen=True, slots=True)
class _Told:
    """What they had found after each 30 s."""

    found: tuple[_Found, ...]

    def at(self, turns: int) -> _Found:
        """Who is watched no longer fails no more."""
        return self.found[turns - 1] if turns <= len(self.found) else replace(self.found[-1], fails=())


def _told(restart: Restart, level: float, odds: float) -> _Told:
    judge = ours.Judge(restart, tuple(ours.gate(metric, odds) for metric in ours.METRICS), ours.earlier(level))
    found: list[_Found] = []
    fails: dict[Metric, _Failed] = {}
    passed_s = math.inf
    for scrape in restart.scrapes:
        ruling = judge.see(scrape)
        if ruling is Ruling.FAIL:
            fails |= {one.gate.metric: one for one in _failing(judge)}
        if judge.passed:
            passed_s = min(passed_s, scrape.at_s)
        if scrape.at_s % _EVERY_S == 0:
            its = judge.odds.get(Metric.LATENCY_P95)
            levels = () if its is None else its.levels
            found.append(_Found(levels, passed_s, tuple(fails.values())))
            fails = {}
    return _Told(tuple(found))


def _failing(judge: ours.Judge) -> Iterator[_Failed]:
    for gate in judge.gates:
        odds = judge.odds.get(gate.metric)
        if odds is not None and sequential.fails(gate, odds):
            yield _Failed(gate, judge.seen(), judge.kept.get(gate.metric), odds)


def _in_the_dark(restart: Restart, until_s: float) -> bool:
    alone_s = [scrape.at_s for scrape in restart.scrapes if scrape.controls is None and scrape.at_s <= until_s]
    return any(incident.from_s <= at_s <= incident.until_s for incident in restart.truth.incidents for at_s in alone_s)


def goal(n: int = 20) -> dict[str, object]:
    """Return the row of its goal: 1.2 times as slow, with one request in five seconds."""
    seen = run(0.2, 1.2, n, Purpose.EVALUATION, FRESH)
    by = sorted(min(one.together, one.alone) for one in seen)[len(seen) // 2]
    fine = run(0.2, 1.0, n, Purpose.EVALUATION, FRESH)
    wrong = sum(math.isfinite(one.together) for one in fine)
    told = f"by worker {by:.0f} (median of {n}); {wrong} of {n} good ones are taken back by it"
    return {"what": "p95 ×1.2 at 0.2/s, all together", "goal": "by worker 12 of 30", "reached": told, "met": "yes" if by <= _BY else "NO"}


_BY = 12


def run(level: float, ratio: float, n: int, purpose: Purpose, first: int = 0) -> list[Seen]:
    """Watch *n* rollouts of 30 workers, from the run *first* on, all *ratio* times as slow as before."""
    return [watch(rollouts.traces(purpose, level, index, 30, ratio), level) for index in range(first, first + n)]
