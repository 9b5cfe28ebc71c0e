"""
Faults put into the deciding code on purpose, one at a time, to see whether anybody notices.

A mutant is tried in a process of its own, on a copy of the package: first in the campaign of simulated rollouts, up to the first broken
invariant, and only if it survives that in a few quick tests. A control without a mutant goes the same way: what fails there as well catches
nothing. Who caught what is kept in caught.json, so that the tests need only look there again.

    python -m tests.rehearsal.mutants --record      # all anew, and written down
    python -m tests.rehearsal.mutants NAME...       # these, as if nothing were known of them
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal.mutant_table import MUTANTS, SURVIVES, Mutant

ROOT = Path(__file__).parents[2]
CAUGHT = Path(__file__).with_name("caught.json")
# A fault that so many rehearsals don't show is left to the tests.
SEEDS = 240
# So many are enough to see that a survivor's record is out of date.
SEEDS_AGAIN = 20
# On a busy machine; a rehearsal that goes round in circles is stopped by the time that it takes itself.
TRIAL_S_MAX = 600.0
# What is tried when no rollout of the campaign shows anything: decisions of which only a few rollouts speak.
QUICK_TESTS = (
    "tests/deciding",
    "tests/simulation/test_found_by_rehearsing.py",
    "tests/simulation/test_blaming.py",
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
    """What became of one mutant. *by* is the invariant or the test file that caught it, "" if none did, *seed* the rehearsal's."""

    name: str
    by: str = ""
    seed: int | None = None
    saying: str = ""

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


def try_one(mutant: Mutant, known: Trial | None = None) -> Trial:
    """Try a mutant; CONTROL is the code as it is. Where something is *known* of it only that is tried again."""
    seeds: Sequence[int] = range(SEEDS)
    tests: Sequence[str] = QUICK_TESTS
    if known is not None and not known.caught:
        seeds, tests = range(SEEDS_AGAIN), ()
    elif known is not None:
        seeds, tests = ([], (known.by,)) if known.seed is None else ([known.seed], ())
    with tempfile.TemporaryDirectory(prefix="mutant-") as place:
        home = Path(place).resolve()
        shutil.copytree(ROOT / "rollout", home / "rollout")
        if mutant is not CONTROL:
            mutate(mutant, home / "rollout")
        trial = _rehearse(mutant, home, seeds) if seeds else Trial(mutant.name)
        return trial if trial.caught or not tests else _test(mutant, home, tests)


def _rehearse(mutant: Mutant, home: Path, seeds: Sequence[int]) -> Trial:
    try:
        done = _run(home, _REHEARSE, ",".join(map(str, seeds)))
    except subprocess.TimeoutExpired:
        return Trial(mutant.name, "ends", seeds[0], f"a rehearsal doesn't end within {TRIAL_S_MAX:.0f} s")
    if done.returncode:
        # What an invariant broke over is told as broken; this is code that can't even be loaded, which catches nothing.
        msg = f"{mutant.name} does not run: {done.stderr.strip().splitlines()[-1]}"
        raise RuntimeError(msg)
    if not done.stdout.strip():
        return Trial(mutant.name)
    seed, invariant, saying = json.loads(done.stdout)
    return Trial(mutant.name, invariant, seed, saying)


def _test(mutant: Mutant, home: Path, tests: Sequence[str]) -> Trial:
    shutil.copytree(ROOT / "tests", home / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", home)
    try:
        done = _run(home, _TEST, *tests)
    except subprocess.TimeoutExpired:
        return Trial(mutant.name, tests[0], saying=f"the tests don't end within {TRIAL_S_MAX:.0f} s")
    if done.returncode == 0:
        return Trial(mutant.name)
    failed = next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    if not failed:
        msg = f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}"
        raise RuntimeError(msg)
    return Trial(mutant.name, failed.split()[1].partition("::")[0], saying=failed)


def _run(home: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(home), "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", code, str(home), *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=TRIAL_S_MAX, check=False)


def try_all(mutants: Sequence[Mutant], known: Mapping[str, Trial]) -> Iterator[Trial]:
    """Try many side by side; what came of them comes in their order."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda mutant: try_one(mutant, known.get(mutant.name)), mutants)


def recorded() -> dict[str, Trial]:
    """Read what is known of each."""
    return {name: Trial(name, **found) for name, found in json.loads(CAUGHT.read_text(encoding="utf-8")).items()}


def as_line(trial: Trial) -> str:
    """Write a trial for people."""
    seed = "" if trial.seed is None else f" at seed {trial.seed}"
    return f"{trial.name:<45} " + (f"{trial.by}{seed}: {trial.saying}" if trial.caught else f"SURVIVED: {SURVIVES.get(trial.name, '?')}")


def main() -> None:
    """Print the table."""
    names = set(sys.argv[1:]) - {"--record"}
    trials: list[Trial] = []
    for trial in try_all([mutant for mutant in (CONTROL, *MUTANTS) if not names or mutant.name in names], {}):
        trials.append(trial)
        print(as_line(trial), flush=True)  # noqa: T201  (what it is for)
    if "--record" in sys.argv:
        kept = {trial.name: {"by": trial.by, "seed": trial.seed} for trial in trials if trial.name != CONTROL.name}
        CAUGHT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    caught = [trial for trial in trials if trial.caught]
    by_rehearsals = sum(trial.seed is not None for trial in caught)
    print(  # noqa: T201
        f"{len(caught)} of {len(trials)} caught ({by_rehearsals} by rehearsals, {len(caught) - by_rehearsals} by tests)"
    )


if __name__ == "__main__":
    main()
