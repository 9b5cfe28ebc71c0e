"""Faults put into the deciding code on purpose are noticed; see mutants.py."""

from tests.rehearsal.mutant_table import MUTANTS
from tests.rehearsal.mutants import mutate_text, recorded, rehearse_control, try_all

KNOWN_MIN = 15


def test_every_fault_can_still_be_made() -> None:
    """The text that each changes is there, once, and what becomes of it can be compiled; nothing is changed in the same way twice."""
    for mutant in MUTANTS:
        compile(mutate_text(mutant), mutant.file, "exec")
    assert len({(mutant.file, mutate_text(mutant)) for mutant in MUTANTS}) == len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_without_a_fault_nothing_is_caught() -> None:
    """The control: with the same seeds the code as it is breaks no invariant."""
    assert rehearse_control(sorted({trial.seed for trial in recorded().values() if trial.seed is not None})) == ""


def test_faults_are_caught() -> None:
    """Those of which it is recorded, where they were caught. If not: have they moved? `python -m tests.rehearsal.mutants --record`."""
    known = {name: trial for name, trial in recorded().items() if trial.caught}
    assert len(known) >= KNOWN_MIN
    trials = {trial.name: trial.caught for trial in try_all([mutant for mutant in MUTANTS if mutant.name in known], known)}
    assert trials == dict.fromkeys(known, True)
