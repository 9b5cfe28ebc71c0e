"""Which release may run on which database, and whether there is a way back."""

from dataclasses import replace

import pytest

from rollout.homeservers.synapse.schema_rules import explain_rollback, pending_deltas, rollback_possible, versions_of
from rollout.model.release import Release, make_release
from rollout.model.sighting import SchemaSighting

DB = SchemaSighting(94, 84, ("94/01_a.sql", "94/03_b.sql.postgres"))


def _release(version: str, schema: int | None = None, compat: int | None = None, deltas: tuple[str, ...] = ()) -> Release:
    return replace(make_release(version, "lock", "config"), schema_version=schema, schema_compat_version=compat, deltas=deltas)


@pytest.mark.parametrize(
    ("db_compat", "old", "new", "answer"),
    [
        (84, (94, 84), (94, 84), "can"),
        (84, (94, 84), (95, 94), "can"),
        (84, (93, 84), (95, 94), "can't"),
        (94, (93, 84), (93, 84), "can't"),  # somebody has migrated it before
        (76, (80, 76), (84, 80), "can"),
    ],
)
def test_way_back_needs_the_old_release_to_know_the_floor(db_compat: int, old: tuple[int, int], new: tuple[int, int], answer: str) -> None:
    """max(the database's floor, the new release's) <= what the old release knows."""
    db, before, after = replace(DB, compat_version=db_compat), _release("a", *old), _release("b", *new)
    assert rollback_possible(db, before, after) is (answer == "can")
    assert f"a {answer} run again after b" in explain_rollback(db, before, after)


def test_way_back_is_unknown_rather_than_guessed() -> None:
    known, unknown = _release("1.163.2"), _release("1.99.0")
    assert rollback_possible(None, known, known) is None
    assert rollback_possible(DB, unknown, known) is None
    assert rollback_possible(DB, known, unknown) is None
    assert explain_rollback(None, known, known).endswith("isn't known: the database's schema could not be read")
    assert explain_rollback(DB, known, unknown).endswith("isn't known: 1.99.0 is neither installed nor in the table of known releases")


def test_installed_release_is_believed_before_the_table() -> None:
    assert versions_of(_release("1.163.2")) == (94, 84, "the table of known releases")
    assert versions_of(_release("1.163.2", 95, 90)) == (95, 90, "the installed release")


def test_way_back_is_explained_by_its_numbers() -> None:
    assert explain_rollback(DB, _release("1.150.0"), _release("2.0", 96, 95)) == (
        "1.150.0 can't run again after 2.0: the database will need schema 95 or newer (the installed release), "
        "and 1.150.0 knows 93 (the table of known releases)"
    )


def test_same_constants_may_still_leave_a_delta_to_apply() -> None:
    """1.162.0 and 1.163.2 both say 94; 1.163.2 has one file more."""
    deltas = ("94/11_new.sql", "94/01_a.sql", "94/03_b.sql.postgres")
    assert pending_deltas(DB, _release("1.163.2", 94, 84, deltas)) == ("94/11_new.sql",)


def test_deltas_that_synapse_would_not_apply_are_not_pending() -> None:
    """A database begins with a full schema, so older deltas were never applied by name; SQLite's and compiled files are none of ours."""
    deltas = ("72/01_old.sql", "94/02_c.sql.sqlite", "94/02_d.pyc", "94/__pycache__", "readme", "94/02_e.py", "95/01_f.sql", "100/01_g.sql")
    assert pending_deltas(DB, _release("3.0", 100, 84, deltas)) == ("94/02_e.py", "95/01_f.sql", "100/01_g.sql")
