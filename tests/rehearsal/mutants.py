"""
Faults put into the deciding code on purpose, one at a time, to see whether anybody notices.

A mutant is tried in a process of its own, on a copy of the package: first in the campaign of simulated rollouts, up to the first broken
invariant, and only if it survives that in a few quick tests. A control without a mutant goes the same way: what fails there as well catches
nothing.

    python -m tests.rehearsal.mutants [NAME ...]    try them, and print what came of it
    python -m tests.rehearsal.mutants --record      try them all, and write down in caught.json who caught which

With --record and names only these are written anew. test_mutants.py tries each once more where it was caught.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.rehearsal.mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
# Name -> where it was caught; who isn't there survived.
RECORD = Path(__file__).with_name("caught.json")
TABLE = ROOT / "build/rehearsal/mutants.json"
# A fault that so many rehearsals don't show is left to the tests.
SEEDS = 240
# On a busy machine; a rehearsal that goes round in circles is stopped by the time that it takes itself.
TRIAL_S_MAX = 600.0
# What is tried when no rollout of the campaign shows anything: decisions of which only a few rollouts speak.
QUICK_TESTS = (
    "tests/deciding",
    "tests/simulation/test_blaming.py",
    "tests/simulation/test_database_away.py",
    "tests/simulation/test_deadman.py",
    "tests/simulation/test_found_by_rehearsing.py",
    "tests/simulation/test_guarding.py",
    "tests/simulation/test_lease.py",
    "tests/simulation/test_sparing.py",
    "tests/simulation/test_speaking.py",
    "tests/simulation/test_way_back.py",
)
CONTROL = Mutant("control", "", "", "", "nothing is wrong")
_REHEARSE = """
import json, os, sys, rollout
assert rollout.__file__.startswith(sys.argv[1]), rollout.__file__
from rollout.rehearsal.campaign import rehearse_seed
from signal import ITIMER_VIRTUAL, SIGVTALRM, setitimer, signal
def endless(*_):
    print(json.dumps([seed, "ends", "it goes round in circles"]), flush=True)
    os._exit(0)
signal(SIGVTALRM, endless)
for seed in map(int, sys.argv[2].split(",")):
    # In seconds of its own, whoever else is busy: a rehearsal takes a tenth of one.
    setitimer(ITIMER_VIRTUAL, 10.0)
    if broken := rehearse_seed(seed).broken:
        print(json.dumps([seed, *broken[0]]))
        break
setitimer(ITIMER_VIRTUAL, 0.0)
"""
_TEST = """
import sys, rollout
assert rollout.__file__.startswith(sys.argv[1]), rollout.__file__
import pytest
from signal import ITIMER_VIRTUAL, SIGVTALRM, setitimer, signal
signal(SIGVTALRM, lambda *_: pytest.fail("it goes round in circles"))
class Timed:
    def pytest_runtest_logstart(self):
        setitimer(ITIMER_VIRTUAL, 30.0)
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *sys.argv[2:]], plugins=[Timed()]))
"""
# pytest's: all passed, and some failed. Anything else is a test that isn't there or can't be read.
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Where:
    """What is tried: the rehearsals of *seeds*, and *tests* if these show nothing."""

    seeds: Sequence[int]
    tests: Sequence[str]


EVERYWHERE = Where(range(SEEDS), QUICK_TESTS)


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one mutant. *by* is the invariant or the test that caught it, "" if none did; *seconds* of one process."""

    name: str
    file: str
    breaks: str
    by: str
    seed: int | None
    saying: str
    seconds: float
    survives: str

    @property
    def caught(self) -> bool:
        """Tell whether somebody noticed."""
        return bool(self.by)

    @property
    def entry(self) -> dict[str, str | int]:
        """Say where it was caught."""
        return {"by": "test", "test": self.by} if self.seed is None else {"by": "rehearsal", "seed": self.seed, "invariant": self.by}


def recorded() -> dict[str, dict[str, str | int]]:
    """Read where each was caught last; {} before it was ever written."""
    known: dict[str, dict[str, str | int]] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return known


def recorded_seeds() -> list[int]:
    """List the seeds that catch somebody."""
    return sorted({int(entry["seed"]) for entry in recorded().values() if entry["by"] == "rehearsal"})


def where_recorded(mutant: Mutant, *, seeds_if_not_caught: int) -> Where:
    """Return the one place where a mutant was caught last; so many rehearsals for one that survived."""
    entry = recorded().get(mutant.name)
    if entry is None:
        return Where(range(seeds_if_not_caught), ())
    return Where((), (str(entry["test"]),)) if entry["by"] == "test" else Where((int(entry["seed"]),), ())


def mutate_text(mutant: Mutant) -> str:
    """Return the file with the fault in it. Raises ValueError where the text isn't there exactly once."""
    text = (ROOT / "rollout" / mutant.file).read_text(encoding="utf-8")
    if (count := text.count(mutant.old)) != 1:
        msg = f"{mutant.name}: what it changes is {count} times in {mutant.file}: {mutant.old!r}"
        raise ValueError(msg)
    return text.replace(mutant.old, mutant.new)


def mutate(mutant: Mutant, package: Path) -> None:
    """Put a fault into a copy of the package."""
    path = package / mutant.file
    # With the time of the original the compiled file would still be taken for its own.
    path.unlink()
    path.write_text(mutate_text(mutant), encoding="utf-8")


def rehearse_control(seeds: Sequence[int]) -> str:
    """Play the code as it is, and say what it broke; "" if nothing."""
    done = _run(ROOT, _REHEARSE, ",".join(map(str, seeds)))
    return done.stdout.strip() + done.stderr.strip()


def try_one(mutant: Mutant, where: Where) -> Trial:
    """Try a mutant; CONTROL is the code as it is."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        home = Path(place).resolve()
        shutil.copytree(ROOT / "rollout", home / "rollout")
        if mutant is not CONTROL:
            mutate(mutant, home / "rollout")
        by, seed, saying = _rehearse(mutant, home, where.seeds) if where.seeds else ("", None, "")
        if not by and where.tests:
            by, saying = _test(mutant, home, where.tests)
    return Trial(mutant.name, mutant.file, mutant.breaks, by, seed, saying, round(time.monotonic() - began_s, 1), mutant.survives)


def _rehearse(mutant: Mutant, home: Path, seeds: Sequence[int]) -> tuple[str, int | None, str]:
    done = _run(home, _REHEARSE, ",".join(map(str, seeds)))
    if done.returncode:
        # What an invariant broke over is told as broken; this is code that can't even be loaded, which catches nothing.
        msg = f"{mutant.name} does not run, {done.returncode}: {done.stderr[-300:]}"
        raise RuntimeError(msg)
    if not done.stdout.strip():
        return "", None, ""
    seed, invariant, saying = json.loads(done.stdout)
    return invariant, seed, saying


def _test(mutant: Mutant, home: Path, tests: Sequence[str]) -> tuple[str, str]:
    """Return the first test that fails, and how; two times "" if none does."""
    for path in ("tests", "pyproject.toml"):
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, home / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / path, home / path)
    done = _run(home, _TEST, *tests)
    if done.returncode == _PASSED:
        return "", ""
    failed = next((line.removeprefix("FAILED ") for line in done.stdout.splitlines() if line.startswith("FAILED ")), None)
    if done.returncode != _FAILED or failed is None:
        msg = f"{mutant.name} can't be tested: {done.stdout[-300:]}{done.stderr[-300:]}"
        raise RuntimeError(msg)
    test, _, saying = failed.partition(" - ")
    return test, saying


def _run(home: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The sentence of a failed test stands in one line, as long as the terminal is wide.
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONHASHSEED": "0", "COLUMNS": "300"}
    command = [sys.executable, "-c", code, str(home), *arguments]
    run = partial(subprocess.run, command, cwd=home, env=environment, capture_output=True, text=True, timeout=TRIAL_S_MAX, check=False)
    done: subprocess.CompletedProcess[str] = run()
    # Where somebody has killed it, that says nothing of the mutant: once more.
    return done if done.returncode >= 0 else run()


def try_all(mutants: Sequence[Mutant], where: Sequence[Where], jobs: int) -> Iterator[Trial]:
    """Try many side by side, each where it says; what came of them comes in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(try_one, mutants, where)


def as_line(trial: Trial) -> str:
    """Write a trial for people."""
    missed = "nothing is caught" if trial.name == CONTROL.name else f"SURVIVED: {trial.survives}"
    caught = f"{trial.by}{'' if trial.seed is None else f' at seed {trial.seed}'}: {trial.saying}"
    return f"{trial.name:<45} {Path(trial.file).stem:<12} {trial.seconds:>5.1f} s  {caught if trial.caught else missed}"


def summary(trials: Sequence[Trial]) -> str:
    """Say how many were caught, and by whom; the control is none of them."""
    tried = [trial for trial in trials if trial.name != CONTROL.name]
    caught = [trial for trial in tried if trial.caught]
    rehearsed = sum(trial.seed is not None for trial in caught)
    tested = len(caught) - rehearsed
    return f"{len(caught)} of {len(tried)} caught ({rehearsed} by rehearsals, {tested} by tests), {len(tried) - len(caught)} survive"


def record(trials: Sequence[Trial]) -> None:
    """Write down where these were caught, keep what is known of the others, and forget who is no longer in the table."""
    tried = {trial.name: trial.entry if trial.caught else None for trial in trials}
    known = {**recorded(), **tried}
    rows = {mutant.name: entry for mutant in MUTANTS if (entry := known.get(mutant.name)) is not None}
    RECORD.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def keep(trials: Sequence[Trial]) -> None:
    """Write the table down for programs."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Print the table, and with --record write down where each was caught."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.rehearsal.mutants", description="Put faults into the deciding code, one at a time."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(mutant.name for mutant in MUTANTS)], help="only these")
    parser.add_argument("--record", action="store_true", help=f"write down in {RECORD.name} where each was caught")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at the same time (as many as there are cores)")
    given = parser.parse_args()
    chosen = [CONTROL, *(mutant for mutant in MUTANTS if not given.names or mutant.name in given.names)]
    trials: list[Trial] = []
    for trial in try_all(chosen, [EVERYWHERE] * len(chosen), given.jobs):
        trials.append(trial)
        print(as_line(trial), flush=True)  # noqa: T201  (what it is for)
        if trials[0].caught:
            print("the code as it is fails as well, so nothing is written down", file=sys.stderr)  # noqa: T201
            return 1
        # Each time, so that whoever stops it can go on with the names of the others.
        keep(trials)
        if given.record:
            record(trials)
    print(summary(trials))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
