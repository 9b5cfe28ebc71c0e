"""A quick copy is the copy that `dataclasses.replace` makes."""

from dataclasses import fields, replace

import pytest

from rollout.deciding.state import DeployState, StepState, StepStatus, WorkerState
from rollout.model.changed import changed
from rollout.model.gate import LATENCY_EDGES_S, Tally

BUCKETS = len(LATENCY_EDGES_S) + 1


def test_a_state_is_copied_as_replace_does() -> None:
    before = DeployState(steps={}, last_at_s=3.0)
    after = changed(before, last_at_s=4.0, outcome_why="so")
    assert after == replace(before, last_at_s=4.0, outcome_why="so")
    assert (before.last_at_s, before.outcome_why) == (3.0, "")
    assert changed(StepState(), status=StepStatus.DONE) == replace(StepState(), status=StepStatus.DONE)
    assert changed(WorkerState(), missing="gone") == replace(WorkerState(), missing="gone")


def test_a_copy_is_frozen_too() -> None:
    with pytest.raises(AttributeError):
        changed(StepState(), attempts=1).attempts = 2  # type: ignore[misc]


def test_two_tallies_are_added_field_by_field() -> None:
    """Each field is given, so that none falls back to its default; sums are sums, and the backlog is the later one."""
    ones = Tally(10.0, 20.0, 1, 1, (1.0,) * BUCKETS, 1, 1, 1, 1, 1, 1, 1, (1.0,) * BUCKETS, 1, 1, 1, 1)
    later = Tally(20.0, 30.0, *(getattr(ones, item.name) for item in fields(Tally)[2:]))
    both = ones + later
    assert set(vars(both)) == {item.name for item in fields(Tally)}
    assert both == Tally(10.0, 30.0, 2, 2, (2.0,) * BUCKETS, 2, 2, 2, 2, 2, 2, 2, (2.0,) * BUCKETS, 2, 2, 2, 1)
    assert later + ones == replace(both)
