"""Faults put into the deciding code on purpose are noticed; see mutants.py."""

from tests.rehearsal.mutant_table import MUTANTS, SURVIVES
from tests.rehearsal.mutants import mutate_text, recorded, rehearse_control, try_all

MUTANTS_MIN = 40
CAUGHT_MIN = 0.95


def test_every_fault_can_still_be_made() -> None:
    """The text that each changes is there, once, and what becomes of it can be compiled; nothing is changed in the same way twice."""
    for mutant in MUTANTS:
        compile(mutate_text(mutant), mutant.file, "exec")
    assert len({(mutant.file, mutate_text(mutant)) for mutant in MUTANTS}) == len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_without_a_fault_nothing_is_caught() -> None:
    """The control: with the same seeds the code as it is breaks no invariant."""
    assert rehearse_control(sorted({trial.seed for trial in recorded().values() if trial.seed is not None})) == ""


def test_faults_are_caught() -> None:
    """Each where it was caught before. If not: has it moved? `python -m tests.rehearsal.mutants --record` tries all anew."""
    known = recorded()
    trials = {trial.name: trial.caught for trial in try_all(MUTANTS, known)}
    assert trials == {mutant.name: known[mutant.name].caught for mutant in MUTANTS}
    assert len(trials) >= MUTANTS_MIN
    assert sum(trials.values()) >= CAUGHT_MIN * len(trials)
    assert set(SURVIVES) == {name for name, caught in trials.items() if not caught}
