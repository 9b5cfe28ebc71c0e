"""
What the sequential gate is to reach, beside what it reaches. Figures are of evaluation seeds; nothing was chosen on those.

detected     runs taken back within 15 min, and the median (and 95th percentile) of when, of all runs
passed       the median of when a good worker passed
taken back   good ones that were, with the upper bound of that (95 %, Clopper and Pearson)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.gates import ours
from tests.benchmarks.gates.contest import Tale, quantile, upper_bound

_RESTART, _ROLLOUT = ours.PER_RESTART.name, ours.PER_ROLLOUT.name
_COLD = ("cold", "cold, plateau", "cold, power law")

Tales = Mapping[tuple[str, str, float], Tale]


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: *figure* writes what was reached, and *met* tells whether that is enough."""

    what: str
    goal: str
    reached: Callable[[Tales], tuple[str, bool]]


def detected(
    scenario: str, level: float, share: float, median_s: float, p95_s: float = math.inf, gate: str = _RESTART
) -> Callable[[Tales], tuple[str, bool]]:
    """Ask for a share that is found, and by when."""

    def reached(tales: Tales) -> tuple[str, bool]:
        tale = tales[gate, scenario, level]
        times_s = [course.failed_s for course in tale.courses]
        found, half_s, most_s = tale.failed / tale.runs, quantile(times_s, 0.5), quantile(times_s, 0.95)
        told = f"{found:.1%} of {tale.runs}, {half_s:.0f} s, {most_s:.0f} s"
        return told, found >= share and half_s <= median_s and most_s <= p95_s

    return reached


def passed(levels: Sequence[float], median_s: float) -> Callable[[Tales], tuple[str, bool]]:
    """Ask by when good workers pass."""

    def reached(tales: Tales) -> tuple[str, bool]:
        times_s = [quantile([course.passed_s for course in tales[_RESTART, "healthy", level].courses], 0.5) for level in levels]
        return ", ".join(f"{time_s:.0f} s" for time_s in times_s), all(time_s <= median_s for time_s in times_s)

    return reached


def taken_back(gate: str, cells: Sequence[tuple[str, float]], most: float) -> Callable[[Tales], tuple[str, bool]]:
    """Ask how often good ones are taken back, in the worst of *cells*."""

    def reached(tales: Tales) -> tuple[str, bool]:
        those = [tales[gate, scenario, level] for scenario, level in cells]
        worst = max(those, key=lambda tale: tale.failed / tale.runs)
        bound = upper_bound(worst.failed, worst.runs)
        told = f"{worst.failed} of {worst.runs} ({worst.scenario}, {worst.level:g}/s), at most {bound:.1%}"
        return told, worst.failed / worst.runs <= most

    return reached


def blind(tales: Tales) -> tuple[str, bool]:
    """Ask what is ruled without a sample."""
    those = [tale for (gate, scenario, _), tale in tales.items() if gate == _RESTART and scenario.startswith("outage")]
    passes, fails = sum(tale.passed_blindly for tale in those), sum(tale.failed_blindly for tale in those)
    return f"{passes} passes and {fails} roll-backs in {sum(tale.runs for tale in those)}", passes == fails == 0


_LEVELS = (0.2, 1.0, 5.0, 20.0, 200.0)
GOALS = (
    Goal("p95 ×2 at 5/s", "99 %, 120 s, p95 280 s", detected("p95 ×2", 5.0, 0.99, 120, 280)),
    Goal("healthy at 5/s is taken back", "≤ 0.1 %", taken_back(_RESTART, [("healthy", 5.0)], 0.001)),
    Goal("p95 ×1.5 at 5/s", "97 %, 240 s", detected("p95 ×1.5", 5.0, 0.97, 240)),
    Goal("errors 5 % at 5/s", "40 s", detected("errors 5 %", 5.0, 0.5, 40)),
    Goal("errors 5 % at 20/s", "15 s", detected("errors 5 %", 20.0, 0.5, 15)),
    Goal("errors 1 % at 5/s, 1 % a restart", "97 %, 150 s", detected("errors 1 %", 5.0, 0.97, 150)),
    Goal("errors 1 % at 5/s, 1 % a rollout of 30", "97 %, 300 s", detected("errors 1 %", 5.0, 0.97, 300, gate=_ROLLOUT)),
    Goal("healthy passes, at 1, 5, 20 and 200/s", "≤ 150 s", passed(_LEVELS[1:], 150)),
    Goal(
        "cold, three shapes, all levels, taken back",
        "≤ 1 %",
        taken_back(_RESTART, [(shape, level) for shape in _COLD for level in _LEVELS], 0.01),
    ),
    Goal("rollout of 30 good workers, taken back", "≤ 1 %", taken_back(_ROLLOUT, [("rollout of 30", level) for level in _LEVELS], 0.01)),
    Goal("metrics outage", "0 and 0", blind),
)


def rows(tales: Sequence[Tale]) -> list[dict[str, object]]:
    """Return a row for each goal. Raises KeyError when a cell is missing that a goal asks for."""
    by_cell = {(tale.contender, tale.scenario, tale.level): tale for tale in tales}
    found = [(goal, *goal.reached(by_cell)) for goal in GOALS]
    return [{"what": goal.what, "goal": goal.goal, "reached": told, "met": "yes" if met else "NO"} for goal, told, met in found]
