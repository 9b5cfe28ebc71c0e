"""Faults put into the deciding code on purpose are noticed by rehearsals; see mutants.py."""

import os

from tests.rehearsal.mutant_table import CAUGHT_AT, MUTANTS
from tests.rehearsal.mutants import mutate_text, rehearse_control, try_all


def test_every_fault_can_still_be_made() -> None:
    """The text that each changes is there, once, and what becomes of it can be compiled."""
    for mutant in MUTANTS:
        compile(mutate_text(mutant), mutant.file, "exec")


def test_without_a_fault_nothing_is_caught() -> None:
    """The control: with the same seeds the code as it is breaks no invariant."""
    assert rehearse_control(sorted(set(CAUGHT_AT.values()))) == ""


def test_faults_are_caught() -> None:
    """Those that the campaign has caught before, where it caught them, or elsewhere; the others are tried by `python -m`."""
    known = [mutant for mutant in MUTANTS if mutant.name in CAUGHT_AT]
    trials = list(try_all(known, os.cpu_count() or 1))
    assert [trial.name for trial in trials if not trial.caught] == []
    assert len(trials) == len(CAUGHT_AT)
