"""The sequential gate on traces with all their chance: a worker's own wavering, the hour, an incident in one of ten, missed scrapes."""

from functools import reduce
from operator import add

import pytest

from rollout.model.gate import Ruling
from tests.benchmarks.gates import ours
from tests.benchmarks.gates.seeds import Purpose
from tests.benchmarks.gates.traces import Scrape, trace
from tests.gating.restart_at_hand import STEP_S

PER_S = 5.0


def _course(scenario: str, run: int, until_s: float) -> list[Ruling]:
    """Return what a gate on latency and one on errors rule every quarter of a minute, at 1 % a restart."""
    restart = trace(Purpose.CALIBRATION, scenario, PER_S, run)
    judge = ours.UNLEARNED.judge(restart, PER_S)
    found: list[Ruling] = []
    for first in range(0, round(until_s / STEP_S), 3):
        some = restart.scrapes[first : first + 3]
        own = [scrape.own for scrape in some if scrape.own is not None]
        theirs = [scrape.controls for scrape in some if scrape.controls is not None]
        found.append(judge.see(Scrape(some[-1].at_s, reduce(add, own) if own else None, reduce(add, theirs) if theirs else None)))
        if found[-1] is Ruling.FAIL:
            break
    return found


def test_sixty_good_restarts_are_not_condemned_and_pass() -> None:
    """At one in a hundred, two of sixty would be condemned less than one time in ten; in ten minutes none is."""
    courses = [_course("healthy", run, 600.0) for run in range(60)]
    assert sum(Ruling.FAIL in course for course in courses) == 0
    assert sum(Ruling.PASS in course for course in courses) >= 55


@pytest.mark.parametrize("scenario", ["p95 ×2", "errors 5 %"])
def test_bad_restarts_are_condemned_and_do_not_pass_first(scenario: str) -> None:
    courses = [_course(scenario, run, 900.0) for run in range(20)]
    assert [course[-1] for course in courses] == [Ruling.FAIL] * 20
    assert not any(Ruling.PASS in course for course in courses)
