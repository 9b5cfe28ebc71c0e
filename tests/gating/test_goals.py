"""What the benchmark says of its goals is what was counted, and no more."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.gates import argo, contest, goals, long, nulls, report
from tests.benchmarks.gates.contest import CONTENDERS, Course, Tale
from tests.benchmarks.gates.goals import Met
from tests.benchmarks.gates.ours import PER_RESTART
from tests.benchmarks.gates.seeds import FRESH, Purpose
from tests.benchmarks.gates.table import row

NEVER = math.inf
COUNTED = {"commit": "0123456789", "rollouts": [{"req/s": "all", "runs": 3000, "taken back": 15, "at most": 0.00769}]}


def _tale(scenario: str, level: float, courses: list[Course], gate: str = PER_RESTART.name) -> Tale:
    return Tale(gate, scenario, level, Purpose.EVALUATION, tuple(courses), (NEVER,) * len(courses))


def _cells(*tales: Tale) -> dict[tuple[str, str, float], Tale]:
    return {(tale.contender, tale.scenario, tale.level): tale for tale in tales}


@pytest.mark.parametrize(
    ("failed", "runs", "met"),
    [(0, 3000, Met.YES), (0, 2900, Met.NOT_SHOWN), (3, 3000, Met.NOT_SHOWN), (4, 3000, Met.NO)],
)
def test_that_something_is_seldom_is_shown_by_its_bound_alone(failed: int, runs: int, met: Met) -> None:
    """None of 2,995 is less than one in a thousand, with 95 % confidence: ln 20 ÷ 0.001."""
    courses = [Course(60.0, 90.0)] * failed + [Course(60.0, NEVER)] * (runs - failed)
    told, found = goals.taken_back([("healthy", 5.0)], 0.001)(_cells(_tale("healthy", 5.0, courses)))
    assert found is met
    assert told.startswith(f"{failed} of {runs:d}, at most ")


def test_of_several_kinds_the_worst_counts() -> None:
    well, worse = [Course(60.0, NEVER)] * 300, [Course(60.0, 90.0)] * 4 + [Course(60.0, NEVER)] * 296
    cells = _cells(_tale("cold", 5.0, well), _tale("cold", 20.0, worse))
    told, found = goals.taken_back([("cold", 5.0), ("cold", 20.0)], 0.01)(cells)
    assert found is Met.NO
    assert told == "4 of 300, at most 3.03%, the worst of 2 (cold, 20/s)"


def test_whole_rollouts_are_those_that_were_counted_for_hours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(long, "OUT", tmp_path / "long.json")
    long.OUT.write_text(json.dumps(COUNTED))
    assert goals.rollouts_taken_back({}) == ("15 of 3000, at most 0.77% (long.json, at 0123456)", Met.YES)


def test_who_is_found_late_misses_the_goal() -> None:
    cells = _cells(_tale("p95 ×2", 5.0, [Course(NEVER, 100.0), Course(NEVER, 130.0), Course(NEVER, 200.0)]))
    assert goals.detected("p95 ×2", 5.0, 0.99, 120)(cells)[1] is Met.NO
    assert goals.detected("p95 ×2", 5.0, 0.99, 130)(cells) == ("100.0% of 3, 130 s, 200 s", Met.YES)


def test_in_parts_the_same_runs_are_judged() -> None:
    (whole,) = contest.run_all([argo.TUNED], "errors 5 %", 20.0, 4, Purpose.CALIBRATION)
    parts = [contest.run_all([argo.TUNED], "errors 5 %", 20.0, n, Purpose.CALIBRATION, first)[0] for first, n in ((0, 3), (3, 1))]
    assert contest.joined(parts) == [whole]


def test_no_figure_is_of_rollouts_on_which_something_was_chosen() -> None:
    assert min(part.first for part in nulls.parts(10, FRESH)) == FRESH == 300


def test_the_page_says_what_was_measured() -> None:
    """Of bad ones when they were taken back, of good ones when they passed; a dash: never, or no ruling at the deadline."""
    courses = {"healthy": [Course(60.0, NEVER)] * 199 + [Course(60.0, 90.0)], "p95 ×2": [Course(NEVER, NEVER)] * 3 + [Course(NEVER, 80.0)]}
    courses["cold"] = [Course(900.0, NEVER)]
    rows = [row(_tale(kind, 5.0, its, gate.name)) for gate in CONTENDERS for kind, its in courses.items()]
    recorded = {**row(_tale("healthy", 20.0, [Course(45.0, NEVER)])), "restart": "good", "seeds": contest.RECORDED}
    page = report.page([*rows, recorded], [{"what": "this", "met": "NO"}], COUNTED, "abcdef0123")
    assert f"| healthy | {' | '.join(['0.5 % 60 s'] * len(CONTENDERS))} |" in page
    assert f"| p95 ×2 | {' | '.join(['25 % –'] * len(CONTENDERS))} |" in page
    assert f"| cold | {' | '.join(['0 % –'] * len(CONTENDERS))} |" in page
    assert f"| {PER_RESTART.name} | passed 45 |" in page
    assert "| this | NO |" in page
    assert "Measured at abcdef0 with" in page
