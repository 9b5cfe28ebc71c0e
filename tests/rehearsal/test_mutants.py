"""Faults put into the deciding code on purpose are noticed, by rehearsals or by tests; see mutants.py."""

import os

from tests.rehearsal.mutant_table import MUTANTS
from tests.rehearsal.mutants import mutate_text, recorded, recorded_seeds, rehearse_control, try_all, where_recorded

FAULTS_MIN = 40
CAUGHT_MIN = 38
# Few of those that a whole campaign doesn't show break the first rehearsals; this is to see that the record is of this code.
SEEDS_TO_SURVIVE = 40
STALE = "caught.json is stale: run `python -m tests.rehearsal.mutants --record`"


def test_every_fault_can_still_be_made() -> None:
    """The text that each changes is there, once, and what becomes of it can be compiled."""
    assert len({mutant.name for mutant in MUTANTS}) == len({(mutant.file, mutate_text(mutant)) for mutant in MUTANTS}) == len(MUTANTS)
    assert len(MUTANTS) >= FAULTS_MIN
    for mutant in MUTANTS:
        compile(mutate_text(mutant), mutant.file, "exec")


def test_enough_are_caught_and_each_that_is_not_is_explained() -> None:
    assert len(recorded()) >= CAUGHT_MIN
    assert recorded().keys() <= {mutant.name for mutant in MUTANTS}, STALE
    assert {mutant.name for mutant in MUTANTS if mutant.survives} == {mutant.name for mutant in MUTANTS} - recorded().keys()


def test_without_a_fault_nothing_is_caught() -> None:
    """The control: with the same seeds the code as it is breaks no invariant."""
    assert rehearse_control(recorded_seeds()) == ""


def test_faults_are_caught() -> None:
    """Each where it was caught before; who survived the whole campaign and the tests survives its beginning."""
    places = [where_recorded(mutant, seeds_if_not_caught=SEEDS_TO_SURVIVE) for mutant in MUTANTS]
    trials = list(try_all(MUTANTS, places, min(2, os.cpu_count() or 1)))
    assert {trial.name for trial in trials if trial.caught} == recorded().keys(), STALE
    elsewhere = {trial.name: trial.entry for trial in trials if trial.caught and trial.entry != recorded()[trial.name]}
    assert elsewhere == {}, STALE
