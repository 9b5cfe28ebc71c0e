"""
Faults put into the deciding code on purpose, one at a time, to see whether anybody notices.

A mutant is tried in a process of its own, on a copy of the package: first in the campaign of simulated rollouts, up to the first broken
invariant, and only if it survives that in a few quick tests. A control without a mutant goes the same way: what fails there as well catches
nothing.

    python -m tests.rehearsal.mutants
"""

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
from pathlib import Path

from tests.rehearsal.mutant_table import CAUGHT_AT, MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
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
"""
_TEST = """
import sys, rollout
assert rollout.__file__.startswith(sys.argv[1]), rollout.__file__
import pytest
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *sys.argv[2:]]))
"""


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


def try_one(mutant: Mutant) -> Trial:
    """Try a mutant; CONTROL is the code as it is."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        home = Path(place).resolve()
        shutil.copytree(ROOT / "rollout", home / "rollout")
        if mutant is not CONTROL:
            mutate(mutant, home / "rollout")
        by, seed, saying = _rehearse(mutant, home)
        if not by:
            by, saying = _test(home)
    return Trial(mutant.name, mutant.file, mutant.breaks, by, seed, saying, round(time.monotonic() - began_s, 1), mutant.survives)


def _rehearse(mutant: Mutant, home: Path) -> tuple[str, int | None, str]:
    seeds = [*([CAUGHT_AT[mutant.name]] if mutant.name in CAUGHT_AT else []), *range(SEEDS)]
    try:
        done = _run(home, _REHEARSE, ",".join(map(str, seeds)))
    except subprocess.TimeoutExpired:
        return "ends", None, f"a rehearsal doesn't end within {TRIAL_S_MAX:.0f} s"
    if done.returncode:
        # What an invariant broke over is told as broken; this is code that can't even be loaded, which catches nothing.
        msg = f"{mutant.name} does not run: {done.stderr.strip().splitlines()[-1]}"
        raise RuntimeError(msg)
    if not done.stdout.strip():
        return "", None, ""
    seed, invariant, saying = json.loads(done.stdout)
    return invariant, seed, saying


def _test(home: Path) -> tuple[str, str]:
    for path in ("tests", "pyproject.toml"):
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, home / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / path, home / path)
    try:
        done = _run(home, _TEST, *QUICK_TESTS)
    except subprocess.TimeoutExpired:
        return "test", f"the tests don't end within {TRIAL_S_MAX:.0f} s"
    if done.returncode == 0:
        return "", ""
    failed = next(
        (line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), done.stdout[-300:] + done.stderr[-300:]
    )
    return "test", failed.removeprefix("FAILED ")


def _run(home: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", code, str(home), *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=TRIAL_S_MAX, check=False)


def try_all(mutants: Sequence[Mutant], jobs: int) -> Iterator[Trial]:
    """Try many side by side; what came of them comes in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(try_one, mutants)


def as_line(trial: Trial) -> str:
    """Write a trial for people."""
    what = (
        f"{trial.by}{'' if trial.seed is None else f' at seed {trial.seed}'}: {trial.saying}"
        if trial.caught
        else f"SURVIVED: {trial.survives}"
    )
    return f"{trial.name:<45} {Path(trial.file).stem:<12} {trial.seconds:>5.1f} s  {what}"


def keep(trials: Sequence[Trial]) -> None:
    """Write the table down for programs."""
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(json.dumps([asdict(trial) for trial in trials], indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Print the table."""
    trials: list[Trial] = []
    chosen = [mutant for mutant in (CONTROL, *MUTANTS) if not sys.argv[1:] or mutant.name in sys.argv[1:]]
    for trial in try_all(chosen, os.cpu_count() or 1):
        trials.append(trial)
        print(as_line(trial), flush=True)  # noqa: T201  (what it is for)
    keep(trials)
    print(f"{sum(trial.caught for trial in trials)} of {len(trials) - 1} caught")  # noqa: T201


if __name__ == "__main__":
    main()
