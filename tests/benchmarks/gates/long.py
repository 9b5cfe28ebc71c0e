"""
How often a rollout of 30 good workers is taken back: thousands of them, which takes hours (`make bench-long`).

The result is kept beside this file with the commit that it was measured on, and which traces those were.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from rich.console import Console

from tests.benchmarks.gates import contest, ours
from tests.benchmarks.gates.contest import Tale, upper_bound
from tests.benchmarks.gates.scenarios import LEVELS
from tests.benchmarks.gates.seeds import Purpose

# 3,000 in all: none of them taken back would show that it is fewer than one in a thousand.
EACH = 600
OUT = Path(__file__).with_name("long.json")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gates.long", description=main.__doc__)
    parser.add_argument("--each", type=int, default=EACH, help=f"rollouts at each traffic level (default: {EACH})")
    parser.add_argument("--out", type=Path, default=OUT, help="where the result goes")
    chosen = parser.parse_args()
    work = contest.rollouts_of([ours.PER_ROLLOUT], LEVELS, chosen.each, Purpose.EVALUATION)
    tales = contest.cells(work, os.cpu_count() or 1)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    result = {
        "commit": commit,
        "seeds": f"{Purpose.EVALUATION}, runs 0 to {chosen.each - 1}",
        "rollouts": [*map(_row, tales), _total(tales)],
    }
    text = json.dumps(result, indent=2) + "\n"
    chosen.out.write_text(text)
    Console().print_json(text)


def _row(tale: Tale) -> dict[str, object]:
    return {"req/s": tale.level, "runs": tale.runs, "taken back": tale.failed, "at most": round(upper_bound(tale.failed, tale.runs), 5)}


def _total(tales: list[Tale]) -> dict[str, object]:
    failed, runs = sum(tale.failed for tale in tales), sum(tale.runs for tale in tales)
    return {"req/s": "all", "runs": runs, "taken back": failed, "at most": round(upper_bound(failed, runs), 5)}


if __name__ == "__main__":
    main()
