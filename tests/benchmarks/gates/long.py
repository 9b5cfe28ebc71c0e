"""
How often a rollout of 30 good workers is taken back: thousands of them, which takes hours (`make bench-long`).

The result is kept beside this file with the commit that it was measured on, and which traces those were. What is done is kept as it comes
(build/bench/long.jsonl); the same command goes on from there, as long as the commit is the same.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.benchmarks.gates import nulls
from tests.benchmarks.gates.nulls import Outcome, Part
from tests.benchmarks.gates.scenarios import LEVELS
from tests.benchmarks.gates.seeds import FRESH, Purpose

# 3,000 in all: none of them taken back would show that it is fewer than one in a thousand.
EACH = 600
PROCESSES = 2
OUT = Path(__file__).with_name("long.json")
KEPT = Path("build/bench/long.jsonl")


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gates.long", description=main.__doc__)
    parser.add_argument("--each", type=int, default=EACH, help=f"rollouts at each traffic level (default: {EACH})")
    parser.add_argument("--processes", type=int, default=PROCESSES, help=f"how many at once (default: {PROCESSES})")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so long (default: never)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the result goes")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where what is done is kept")
    chosen = parser.parse_args()
    commit = _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    until_s = time.monotonic() + 60 * chosen.minutes
    work = partial(nulls.watch, purpose=Purpose.EVALUATION)
    done = measure(list(nulls.parts(chosen.each, FRESH)), work, commit, chosen.kept, chosen.processes, lambda: time.monotonic() < until_s)
    text = json.dumps(result(done, commit), indent=2) + "\n"
    chosen.out.write_text(text)
    Console().print_json(text)


def measure(
    wanted: list[Part], work: Callable[[Part], Outcome], commit: str, kept: Path, processes: int, goes_on: Callable[[], bool]
) -> dict[Part, Outcome]:
    """Do what isn't done yet of *wanted* as long as it *goes_on*, keep each part as it comes, and return all of them that are done."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    whole = not kept.exists() or kept.read_text().endswith("\n")
    done = {part: outcome for part, outcome in _read(kept, commit).items() if part in wanted}
    console = Console()
    console.print(f"{len(done)} of {len(wanted)} parts of {nulls.PART} rollouts are done at {commit}")
    with kept.open("a") as file:
        file.write("" if whole else "\n")
        for part, outcome in _do([part for part in wanted if part not in done], work, processes, goes_on):
            done[part] = outcome
            file.write(json.dumps({"commit": commit, "part": asdict(part), "outcome": asdict(outcome)}) + "\n")
            file.flush()
            taken_back = sum(one.taken_back for one in done.values())
            console.print(
                f"{len(done)} of {len(wanted)} parts, {taken_back} of {sum(one.runs for one in done.values())} rollouts taken back"
            )
    return done


def _do(wanted: list[Part], work: Callable[[Part], Outcome], processes: int, goes_on: Callable[[], bool]) -> Iterator[tuple[Part, Outcome]]:
    if processes == 1:
        for part in wanted:
            if not goes_on():
                return
            yield part, work(part)
        return
    with ProcessPoolExecutor(processes) as pool:
        # No more at a time than are done at once, so that what is interrupted is little.
        for first in range(0, len(wanted), processes):
            if not goes_on():
                return
            some = wanted[first : first + processes]
            yield from zip(some, pool.map(work, some), strict=True)


def _read(kept: Path, commit: str) -> dict[Part, Outcome]:
    """Return what was done at this commit. A line that was cut off counts for nothing."""
    found = {}
    for line in kept.read_text().splitlines() if kept.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["commit"] == commit:
            found[Part(**entry["part"])] = Outcome(**entry["outcome"])
    return found


def result(done: dict[Part, Outcome], commit: str) -> dict[str, object]:
    """Put together what is committed."""
    seeds = {
        f"{level:g}": f"runs {min(firsts)} to {max(firsts) + nulls.PART - 1}"
        for level in LEVELS
        if (firsts := [part.first for part in done if part.level == level])
    }
    return {"commit": commit, "purpose": str(Purpose.EVALUATION), "seeds": seeds, "rollouts": nulls.rows(done.values())}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
