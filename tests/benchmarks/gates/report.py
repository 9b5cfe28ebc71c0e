"""
What the benchmark `gates` has measured, as a page: docs/gates-measured.md.

    python -m tests.benchmarks gates
    python -m tests.benchmarks.gates.report COMMIT > docs/gates-measured.md
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.gates import long
from tests.benchmarks.gates.contest import CONTENDERS, RECORDED
from tests.benchmarks.gates.draw import HORIZON_S
from tests.benchmarks.gates.scenarios import BY_NAME

_PLACE = Path("build/bench")
_HEAD = """\
# What was measured of gates

Restarts are made up (`tests/benchmarks/gates`), of evaluation seeds: nothing was chosen on these, neither of ours nor of the peers'. Peers
are written anew after their sources (each file names what it follows), once as they come and once *tuned*: with limits chosen with
hindsight, for each traffic level, so that about 1 % of good restarts of calibration seeds are taken back. Measured at {commit} with
`python -m tests.benchmarks gates`; how often rollouts of 30 good workers are taken back at {long_commit} with `make bench-long`.

## Goals
"""
_CELLS = """
## Each kind of restart

Of bad ones: the share that is taken back within 15 min, and the median of when. Of good ones: the share that is taken back, and the median
of when they pass. `–` is never. At 0.2, 1, 5, 20 and 200 requests a second, one below the other.
"""
_ROLLOUTS = """
## Rollouts of 30 good workers

At those traffic levels, with incidents of the shared database. "In the dark": by a worker that had been in one while nobody was left to
compare with.
"""
_RECORDED = """
## Recorded on real Synapse workers

One restart each; a gate that has learned nothing is one more. When it was taken back, or passed (seconds).
"""


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gates.report", description=main.__doc__)
    parser.add_argument("commit", help="at which the benchmark was run")
    commit = parser.parse_args().commit
    rows = json.loads((_PLACE / "gates.json").read_text())
    goals = json.loads((_PLACE / "gates" / "goals.json").read_text())
    sys.stdout.write(page(rows, goals, json.loads(long.OUT.read_text()), commit))


def page(rows: Sequence[Mapping[str, object]], goals: Sequence[Mapping[str, object]], rollouts: Mapping[str, object], commit: str) -> str:
    """Put it together from what the benchmarks have kept."""
    counted = rollouts["rollouts"]
    assert isinstance(counted, list)
    parts = [
        _HEAD.format(commit=commit[:7], long_commit=str(rollouts["commit"])[:7]),
        _table(goals),
        _CELLS,
        _table(_cells([row for row in rows if row["seeds"] != RECORDED])),
        _ROLLOUTS,
        _table(counted),
        _RECORDED,
        _table(_recorded([row for row in rows if row["seeds"] == RECORDED])),
    ]
    return "\n".join(parts) + "\n"


def _cells(rows: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        kind, gate = str(row["restart"]), str(row["gate"])
        found.setdefault(kind, {}).setdefault(gate, []).append(_cell(row, healthy=kind not in BY_NAME or BY_NAME[kind].healthy))
    names = [one.name for one in CONTENDERS]
    return [{"restart": kind, **{name: "<br>".join(gates[name]) for name in names}} for kind, gates in found.items()]


def _cell(row: Mapping[str, object], *, healthy: bool) -> str:
    when = str(row["pass s" if healthy else "fail s"])
    # At the gate's deadline, which is the horizon, who has no ruling is let go on, and that is no PASS.
    never = when.startswith(">") or (healthy and when == f"{HORIZON_S:.0f}")
    return f"{row['failed %']:g} % {'–' if never else when + ' s'}"


def _recorded(rows: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for row in rows:
        failed, passed = str(row["fail s"]), str(row["pass s"])
        told = f"taken back {failed}" if not failed.startswith(">") else "neither" if passed.startswith(">") else f"passed {passed}"
        found.setdefault(str(row["gate"]), {"gate": row["gate"]})[str(row["restart"])] = told
    return list(found.values())


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(map(str, row.values())) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
