"""
What the sequential gate is to reach, beside what it reaches. Figures are of evaluation seeds; nothing was chosen on those.

detected     runs taken back within 15 min, and the median (and 95th percentile) of when, of all runs
passed       the median of when a good worker passed
taken back   good ones that were, with the upper bound of that (95 %, Clopper and Pearson). The goal is met where the bound is within it,
             and "not shown" where the share is and the bound isn't
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.benchmarks.gates import long, ours
from tests.benchmarks.gates.contest import Tale, quantile, upper_bound
from tests.benchmarks.gates.scenarios import LEVELS

_RESTART, _ROLLOUT = ours.PER_RESTART.name, ours.PER_ROLLOUT.name
COLD = ("cold", "cold, plateau", "cold, power law")

Tales = Mapping[tuple[str, str, float], Tale]


class Met(StrEnum):
    """Whether a goal is."""

    YES = "yes"
    NO = "NO"
    NOT_SHOWN = "not shown"

    @staticmethod
    def when(met: bool) -> "Met":  # noqa: FBT001  (it is the whole question)
        return Met.YES if met else Met.NO


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: *figure* writes what was reached, and *met* tells whether that is enough."""

    what: str
    goal: str
    reached: Callable[[Tales], tuple[str, Met]]


def detected(
    scenario: str, level: float, share: float, median_s: float, p95_s: float = math.inf, gate: str = _RESTART
) -> Callable[[Tales], tuple[str, Met]]:
    """Ask for a share that is found, and by when."""

    def reached(tales: Tales) -> tuple[str, Met]:
        tale = tales[gate, scenario, level]
        times_s = [course.failed_s for course in tale.courses]
        found, half_s, most_s = tale.failed / tale.runs, quantile(times_s, 0.5), quantile(times_s, 0.95)
        told = f"{found:.1%} of {tale.runs}, {half_s:.0f} s, {most_s:.0f} s"
        return told, Met.when(found >= share and half_s <= median_s and most_s <= p95_s)

    return reached


def passed(levels: Sequence[float], median_s: float) -> Callable[[Tales], tuple[str, Met]]:
    """Ask by when good workers pass."""

    def reached(tales: Tales) -> tuple[str, Met]:
        times_s = [quantile([course.passed_s for course in tales[_RESTART, "healthy", level].courses], 0.5) for level in levels]
        return ", ".join(f"{time_s:.0f} s" for time_s in times_s), Met.when(all(time_s <= median_s for time_s in times_s))

    return reached


def taken_back(cells: Sequence[tuple[str, float]], most: float) -> Callable[[Tales], tuple[str, Met]]:
    """Ask how often good ones are taken back, in the worst of *cells*."""

    def reached(tales: Tales) -> tuple[str, Met]:
        those = [tales[_RESTART, scenario, level] for scenario, level in cells]
        worst = max(those, key=lambda tale: tale.failed / tale.runs)
        told, met = _seldom(worst.failed, worst.runs, most)
        return f"{told}, the worst of {len(those)} ({worst.scenario}, {worst.level:g}/s)" if len(those) > 1 else told, met

    return reached


def _seldom(failed: int, runs: int, most: float) -> tuple[str, Met]:
    bound = upper_bound(failed, runs)
    within = Met.YES if bound <= most else Met.NOT_SHOWN
    return f"{failed} of {runs}, at most {bound:.2%}", within if failed / runs <= most else Met.NO


def rollouts_taken_back(tales: Tales) -> tuple[str, Met]:
    """Ask how often rollouts of good workers are: counted by `make bench-long`, which takes too long for a table."""
    del tales
    found = json.loads(long.OUT.read_text())
    everything = found["rollouts"][-1]
    told, met = _seldom(everything["taken back"], everything["runs"], 0.01)
    return f"{told} ({long.OUT.name}, at {found['commit'][:7]})", met


def blind(tales: Tales) -> tuple[str, Met]:
    """Ask what is ruled without a sample."""
    those = [tale for (gate, scenario, _), tale in tales.items() if gate == _RESTART and scenario.startswith("outage")]
    passes, fails = sum(tale.passed_blindly for tale in those), sum(tale.failed_blindly for tale in those)
    return f"{passes} passes and {fails} roll-backs in {sum(tale.runs for tale in those)}", Met.when(passes == fails == 0)


GOALS = (
    Goal("p95 ×2 at 5/s", "99 %, 120 s, p95 280 s", detected("p95 ×2", 5.0, 0.99, 120, 280)),
    Goal("healthy at 5/s is taken back", "≤ 0.1 %", taken_back([("healthy", 5.0)], 0.001)),
    Goal("p95 ×1.5 at 5/s", "97 %, 240 s", detected("p95 ×1.5", 5.0, 0.97, 240)),
    Goal("errors 5 % at 5/s", "40 s", detected("errors 5 %", 5.0, 0.5, 40)),
    Goal("errors 5 % at 20/s", "15 s", detected("errors 5 %", 20.0, 0.5, 15)),
    Goal("errors 1 % at 5/s, 1 % a restart", "97 %, 150 s", detected("errors 1 %", 5.0, 0.97, 150)),
    Goal("errors 1 % at 5/s, 1 % a rollout of 30", "97 %, 300 s", detected("errors 1 %", 5.0, 0.97, 300, gate=_ROLLOUT)),
    Goal("healthy passes, at 1, 5, 20 and 200/s", "≤ 150 s", passed(LEVELS[1:], 150)),
    Goal(
        "cold, three shapes, all levels, taken back",
        "≤ 1 %",
        taken_back([(shape, level) for shape in COLD for level in LEVELS], 0.01),
    ),
    Goal("rollout of 30 good workers, taken back", "≤ 1 %", rollouts_taken_back),
    Goal("metrics outage", "0 and 0", blind),
)


def rows(tales: Tales) -> list[dict[str, object]]:
    """Return a row for each goal. Raises KeyError when a cell is missing that a goal asks for."""
    found = [(goal, *goal.reached(tales)) for goal in GOALS]
    return [{"what": goal.what, "goal": goal.goal, "reached": told, "met": str(met)} for goal, told, met in found]
