"""
How often a rollout of 30 good workers is taken back: by the gates of one of them alone, or by all together.

The workers share what a rollout has to live with: the hour, the drift and the incidents of one database (rollouts.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isfinite

from tests.benchmarks.gates import rollouts, together, traces
from tests.benchmarks.gates.contest import upper_bound
from tests.benchmarks.gates.scenarios import LEVELS
from tests.benchmarks.gates.seeds import Purpose

WORKERS = 30
# So many are done before what came of them is kept: less than a minute's work.
PART = 10


@dataclass(frozen=True, slots=True)
class Part:
    """Which rollouts: at *level* requests a second of each worker, the runs from *first* on, PART of them."""

    level: float
    first: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What came of *runs* rollouts at one level: so many were taken back by all *together*, by a worker *alone*, and *in_the_dark*, which is
    by one that had been in an incident of the shared database while there was nobody to compare it with.
    """

    level: float
    runs: int
    alone: int
    together: int
    in_the_dark: int

    @property
    def taken_back(self) -> int:
        return self.alone + self.together + self.in_the_dark


def parts(each: int, begin: int = 0) -> Iterator[Part]:
    """
    List what makes *each* rollouts at every level, from the run *begin* on, rounded up to whole parts; the levels take turns, so that any
    beginning is of all.
    """
    for first in range(begin, begin + each, PART):
        for level in LEVELS:
            yield Part(level, first)


def watch(part: Part, purpose: Purpose, odds: float = together.ODDS, every: int = 1) -> Outcome:
    """Let the gates watch them, each at these odds, at each *every*-th scrape (they come every 5 s)."""
    seen = []
    for run in range(part.first, part.first + PART):
        restarts = rollouts.traces(purpose, part.level, run, WORKERS, in_full=False)
        seen.append(together.watch([traces.seldom(one, every) for one in restarts], part.level, odds))
    alone = sum(isfinite(one.alone) and not one.in_the_dark for one in seen)
    return Outcome(part.level, len(seen), alone, sum(isfinite(one.together) for one in seen), sum(one.in_the_dark for one in seen))


def rows(outcomes: Iterable[Outcome]) -> list[dict[str, object]]:
    """Add up by level, and over all; "at most" is the upper bound of the share that is taken back (95 %, Clopper and Pearson)."""
    done = list(outcomes)
    by_level = [(f"{level:g}", [one for one in done if one.level == level]) for level in LEVELS]
    return [_row(name, those) for name, those in [*by_level, ("all", done)] if those]


def _row(name: str, those: list[Outcome]) -> dict[str, object]:
    runs, taken_back = sum(one.runs for one in those), sum(one.taken_back for one in those)
    return {
        "req/s": name,
        "runs": runs,
        "taken back": taken_back,
        "by one alone": sum(one.alone for one in those),
        "by all together": sum(one.together for one in those),
        "in the dark": sum(one.in_the_dark for one in those),
        "at most": round(upper_bound(taken_back, runs), 5),
    }
