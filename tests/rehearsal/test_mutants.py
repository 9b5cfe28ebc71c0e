"""Faults put into the deciding code on purpose are noticed, in whichever module and verb they are; see mutants.py."""

import os

from tests.rehearsal.mutant_table import MUTANTS
from tests.rehearsal.mutants import CONTROL, keep, try_all, try_one

# Of at least so many, at least so many must be caught.
MUTANTS_MIN = 40
CAUGHT_MIN = 38


def test_without_a_fault_nothing_is_caught() -> None:
    """The control: the code as it is goes the same way, and neither a rehearsal nor a test says a word."""
    assert try_one(CONTROL).by == ""


def test_faults_are_caught() -> None:
    """All of them, but those of which the table says why nothing follows from them that could be seen."""
    trials = list(try_all(MUTANTS, os.cpu_count() or 1))
    keep(trials)
    assert len(trials) >= MUTANTS_MIN
    assert sum(trial.caught for trial in trials) >= CAUGHT_MIN
    assert [trial.name for trial in trials if not trial.caught] == [mutant.name for mutant in MUTANTS if mutant.survives]
    assert {mutant.name for mutant in MUTANTS} == {trial.name for trial in trials}
