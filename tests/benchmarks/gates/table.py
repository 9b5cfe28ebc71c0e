"""
The benchmark `gates`: what share of restarts each gate takes back and passes, and how soon, by kind of restart and by traffic.

failed %        runs that were taken back within 15 min
at most         what that share may be with 95 % confidence: what counts for well workers
fail s, pass s  over all runs; one that was never taken back, or passed, is later than all others: ">900"
blind           of the runs with an outage of the metrics, those that were passed or taken back without a sample since

Rows with the seeds "recorded" are of real restarts, one each (recorded.py). A gate has as long as the recording is: one that takes longer
to rule has ">" and that time.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.gates import contest, goals, ours, recorded, sweep, together
from tests.benchmarks.gates.contest import Tale, quantile, upper_bound
from tests.benchmarks.gates.draw import HORIZON_S
from tests.benchmarks.gates.judging import Contender
from tests.benchmarks.gates.scenarios import BY_NAME, LEVELS
from tests.benchmarks.gates.seeds import Purpose

# Of each kind of restart, for each gate: three quarters of an hour on two cores, with what follows.
RUNS = 100
# So many of rollout's own gate alone, where a goal is a share: none of 3,000 is less than one in a thousand, none of 300 one in a hundred.
MANY = {(shape, level): 300 for shape in goals.COLD for level in LEVELS} | {("healthy", 5.0): 3000}
ROLLOUTS = 12
_PURPOSE = Purpose.EVALUATION


def measure(place: Path) -> list[dict[str, object]]:
    """Let all contenders judge everything, and set what rollout's own gate reaches beside its goals (goals.json)."""
    processes = os.cpu_count() or 1
    found = {_cell(tale): tale for tale in tales(contest.CONTENDERS, processes=processes)}
    alone = [ours.PER_RESTART]
    work = [one for (kind, level), runs in MANY.items() for one in contest.restarts_of(alone, [kind], [level], runs, _PURPOSE)]
    found |= {_cell(tale): tale for tale in contest.cells(work, processes)}
    reached = [*goals.rows(found), together.goal(), sweep.goal()]
    (place / "goals.json").write_text(json.dumps(reached, indent=2, ensure_ascii=False) + "\n")
    table = Table(*reached[0], title="goals of rollout's gate")
    for one in reached:
        table.add_row(*map(str, one.values()))
    Console(width=160).print(table)
    return [*map(row, found.values()), *recorded_rows([*contest.CONTENDERS, ours.UNLEARNED])]


def _cell(tale: Tale) -> tuple[str, str, float]:
    return tale.contender, tale.scenario, tale.level


def tales(
    contenders: Sequence[Contender],
    scenarios: Sequence[str] = tuple(BY_NAME),
    levels: Sequence[float] = LEVELS,
    runs: int = RUNS,
    rollouts: int = ROLLOUTS,
    processes: int = 1,
    purpose: Purpose = _PURPOSE,
) -> list[Tale]:
    """Return what came of each scenario, level and contender."""
    work = contest.restarts_of(contenders, scenarios, levels, runs, purpose)
    if rollouts:
        work += contest.rollouts_of(contenders, levels, rollouts, purpose)
    return contest.cells(work, processes)


def recorded_rows(contenders: Sequence[Contender]) -> list[dict[str, object]]:
    """
    Return a row for each recorded restart and contender.

    What is chosen or learned by traffic goes by the level that is nearest: nothing was tuned on these, and of their kind nothing is known.
    """
    return [
        row(tale, name, restart.scrapes[-1].at_s)
        for name, restart in recorded.restarts().items()
        for tale in contest.run_recorded(contenders, restart, min(LEVELS, key=lambda level: abs(math.log(level / restart.rate))))
    ]


def row(tale: Tale, name: str = "", horizon_s: float = HORIZON_S) -> dict[str, object]:
    """Say it in figures; *name* is another one for the kind of restart."""
    failed_s = [course.failed_s for course in tale.courses]
    passed_s = [course.passed_s for course in tale.courses]
    outage = any(map(math.isfinite, tale.last_sample_s))
    return {
        "restart": name or tale.scenario,
        "req/s": tale.level,
        "gate": tale.contender,
        "seeds": str(tale.purpose),
        "runs": tale.runs,
        "failed %": _share(tale.failed, tale.runs),
        "at most": round(100 * upper_bound(tale.failed, tale.runs), 1),
        "fail s": _time(quantile(failed_s, 0.5), horizon_s),
        "fail p95 s": _time(quantile(failed_s, 0.95), horizon_s),
        "passed %": _share(tale.passed, tale.runs),
        "pass s": _time(quantile(passed_s, 0.5), horizon_s),
        "pass p95 s": _time(quantile(passed_s, 0.95), horizon_s),
        "passed blind %": _share(tale.passed_blindly, tale.runs) if outage else None,
        "failed blind %": _share(tale.failed_blindly, tale.runs) if outage else None,
    }


def _share(part: int, whole: int) -> float:
    return round(100 * part / whole, 1)


def _time(seconds: float, horizon_s: float) -> object:
    return round(seconds) if math.isfinite(seconds) else f">{horizon_s:.0f}"
