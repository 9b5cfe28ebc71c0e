"""
Every contender judges the same restarts, and what it rules is counted.

A gate is watched for the whole horizon: ours goes on after a PASS, and a FAIL that comes later still counts as one that was found.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from scipy.special import betaincinv

from rollout.model.gate import Ruling
from tests.benchmarks.gates import argo, flagger, kayenta, ours, probes, rollouts, together, traces
from tests.benchmarks.gates.judging import Contender
from tests.benchmarks.gates.seeds import FRESH, Purpose
from tests.benchmarks.gates.traces import Restart

# What another gate needs to take part is `name` and `judge`: see judging.py.
CONTENDERS: list[Contender] = [
    ours.PER_RESTART,
    ours.PER_ROLLOUT,
    flagger.DEFAULT,
    flagger.TUNED,
    argo.DEFAULT,
    argo.TUNED,
    kayenta.DEFAULT,
    kayenta.TUNED,
    probes.DEFAULT,
]


# So many runs are done at once.
PART = 100
# Nothing was drawn: it is what came of a real restart.
RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class Course:
    """When a gate first passed a worker and when it took it back, in seconds after admission. Never is infinity."""

    passed_s: float
    failed_s: float


@dataclass(frozen=True, slots=True)
class Tale:
    """What a contender made of *runs* restarts (or rollouts) of one kind."""

    contender: str
    scenario: str
    level: float
    # A Purpose, or RECORDED.
    purpose: str
    courses: tuple[Course, ...]
    # Of each run, when the last sample came in before an outage; infinity without one.
    last_sample_s: tuple[float, ...]

    @property
    def runs(self) -> int:
        return len(self.courses)

    @property
    def failed(self) -> int:
        return sum(math.isfinite(course.failed_s) for course in self.courses)

    @property
    def passed(self) -> int:
        return sum(math.isfinite(course.passed_s) for course in self.courses)

    @property
    def passed_blindly(self) -> int:
        """How many it passed on, or after, the first scrape that brought nothing any more."""
        return sum(last_s < course.passed_s < math.inf for course, last_s in zip(self.courses, self.last_sample_s, strict=True))

    @property
    def failed_blindly(self) -> int:
        return sum(last_s < course.failed_s < math.inf for course, last_s in zip(self.courses, self.last_sample_s, strict=True))


def watch(contender: Contender, restart: Restart, level: float) -> Course:
    """Let *contender* judge one restart."""
    judge = contender.judge(restart, level)
    passed_s = math.inf
    for scrape in restart.scrapes:
        ruling = judge.see(scrape)
        if ruling is Ruling.FAIL:
            return Course(passed_s, scrape.at_s)
        if ruling is Ruling.PASS and passed_s == math.inf:
            passed_s = scrape.at_s
    return Course(passed_s, math.inf)


def run(contender: Contender, scenario: str, level: float, n: int, purpose: Purpose) -> Tale:
    """Let one contender judge *n* restarts."""
    (tale,) = run_all([contender], scenario, level, n, purpose)
    return tale


def run_all(contenders: Sequence[Contender], scenario: str, level: float, n: int, purpose: Purpose, first: int = 0) -> list[Tale]:
    """Let several judge the same *n* restarts, from the run *first* on."""
    courses: list[list[Course]] = [[] for _ in contenders]
    last: list[float] = []
    for index in range(first, first + n):
        restart = traces.trace(purpose, scenario, level, index)
        last.append(_last_sample_s(restart))
        for kept, contender in zip(courses, contenders, strict=True):
            kept.append(watch(contender, restart, level))
    return [
        Tale(contender.name, scenario, level, purpose, tuple(kept), tuple(last))
        for contender, kept in zip(contenders, courses, strict=True)
    ]


def run_recorded(contenders: Sequence[Contender], restart: Restart, level: float) -> list[Tale]:
    """Let several judge a restart that was recorded, each as it would at *level*."""
    return [
        Tale(contender.name, restart.truth.scenario, restart.rate, RECORDED, (watch(contender, restart, level),), (math.inf,))
        for contender in contenders
    ]


def run_rollouts(
    contenders: Sequence[Contender], level: float, n: int, purpose: Purpose, workers: int = 30, first: int = FRESH
) -> list[Tale]:
    """
    Let several judge the same *n* rollouts of well workers, from the run *first* on.

    One worker that fails takes the rollout back (its time counts from that worker's admission). It has passed with its last worker, and
    that time is the mean per worker, of those that passed.
    """
    courses: list[list[Course]] = [[] for _ in contenders]
    for index in range(first, first + n):
        restarts = rollouts.traces(purpose, level, index, workers)
        for kept, contender in zip(courses, contenders, strict=True):
            kept.append(_rolled(contender, restarts, level))
    never = (math.inf,) * n
    return [
        Tale(contender.name, f"rollout of {workers}", level, purpose, tuple(kept), never)
        for contender, kept in zip(contenders, courses, strict=True)
    ]


def _rolled(contender: Contender, restarts: Sequence[Restart], level: float) -> Course:
    if isinstance(contender, ours.Ours):
        # It looks at all of them at once.
        seen = together.watch(restarts, level, contender.odds)
        return Course(seen.passed_s if math.isinf(seen.failed_s) else math.inf, seen.failed_s)
    passed_s = 0.0
    for restart in restarts:
        course = watch(contender, restart, level)
        if course.failed_s < math.inf:
            return Course(math.inf, course.failed_s)
        passed_s += course.passed_s
    return Course(passed_s / len(restarts), math.inf)


def _last_sample_s(restart: Restart) -> float:
    if restart.truth.outage_s is None:
        return math.inf
    return max(scrape.at_s for scrape in restart.scrapes if scrape.at_s <= restart.truth.outage_s)


def quantile(times_s: Sequence[float], share: float) -> float:
    """Return the smallest time by which *share* of all runs were through. Those that never were count as infinity."""
    return sorted(times_s)[max(0, math.ceil(share * len(times_s)) - 1)]


def upper_bound(happened: int, runs: int, confidence: float = 0.95) -> float:
    """Return how likely it may be, at most, what *happened* in so many of *runs* (Clopper–Pearson, one-sided)."""
    return 1.0 if happened >= runs else float(betaincinv(happened + 1, runs - happened, confidence))


def cells(work: Sequence[Callable[[], list[Tale]]], processes: int = 1) -> list[Tale]:
    """Do all of *work* in so many processes. The result is the same with any number of them."""
    if processes == 1:
        return joined(tale for one in work for tale in one())
    with ProcessPoolExecutor(processes) as pool:
        return joined(tale for tales in pool.map(_call, work) for tale in tales)


def _call(work: Callable[[], list[Tale]]) -> list[Tale]:
    return work()


def restarts_of(
    contenders: Sequence[Contender], scenarios: Sequence[str], levels: Sequence[float], n: int, purpose: Purpose
) -> list[Callable[[], list[Tale]]]:
    """Return the work that a table of restarts takes, in parts of PART runs."""
    return [
        partial(run_all, contenders, scenario, level, min(PART, n - first), purpose, first)
        for scenario in scenarios
        for level in levels
        for first in range(0, n, PART)
    ]


def joined(tales: Iterable[Tale]) -> list[Tale]:
    """Put parts of the same cell together, in their order."""
    cells: dict[tuple[str, str, float, str], Tale] = {}
    for one in tales:
        key = (one.contender, one.scenario, one.level, one.purpose)
        before = cells.get(key, replace(one, courses=(), last_sample_s=()))
        cells[key] = replace(one, courses=before.courses + one.courses, last_sample_s=before.last_sample_s + one.last_sample_s)
    return list(cells.values())


def rollouts_of(contenders: Sequence[Contender], levels: Sequence[float], n: int, purpose: Purpose) -> list[Callable[[], list[Tale]]]:
    """Return the work that a table of rollouts takes."""
    return [partial(run_rollouts, contenders, level, n, purpose) for level in levels]
