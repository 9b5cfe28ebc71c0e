"""What a worker really runs, and who took it out."""

from dataclasses import replace

import pytest

from rollout.model.ids import WorkerId
from rollout.model.sighting import Observation, ProcessSighting, Sighting
from rollout.planning.standing import Standing, judge
from tests.planning.homeserver import NEW, OLD, release, sighting, started_before_switch

SYNC1 = WorkerId("sync1")


def _judge(seen: Sighting) -> Standing:
    return judge(SYNC1, Observation(1000.0, {SYNC1: seen}, releases={OLD.id: OLD, NEW.id: NEW}), proxied=True)


def test_a_process_younger_than_its_link_runs_what_the_link_names() -> None:
    assert _judge(sighting(NEW)) == Standing(NEW.id)


def test_a_process_older_than_its_link_runs_the_one_release_with_its_version() -> None:
    standing = _judge(started_before_switch(sighting(OLD), NEW))
    assert (standing.release, standing.blockers) == (OLD.id, ())
    assert standing.notes


def test_two_releases_of_one_version_leave_it_open_which_of_them_runs() -> None:
    """A restart that was cut off between the link and the start: guessing could roll back to the wrong configuration."""
    again = release("1.162.0", generation=2)
    seen = started_before_switch(sighting(OLD), again)
    standing = judge(SYNC1, Observation(1000.0, {SYNC1: seen}, releases={OLD.id: OLD, again.id: again}), proxied=True)
    assert standing.release is None
    assert "2 prepared releases" in standing.blockers[0]


def test_a_worker_that_we_left_out_and_that_is_down_is_brought_back() -> None:
    """Killed between stop and start, journal lost: its link says what it would start with."""
    left = replace(
        sighting(OLD, drained_by="us"),
        process=ProcessSighting(running=False, started_at_s=None, activated=NEW.id, activated_at_s=300.0),
        healthy=False,
    )
    standing = _judge(left)
    assert (standing.ours, standing.release, standing.blockers) == (True, NEW.id, ())


def test_a_worker_that_somebody_else_took_out_is_not_judged() -> None:
    standing = _judge(replace(sighting(OLD, drained_by="others"), healthy=False))
    assert (standing.foreign, standing.ours, standing.blockers) == (True, False, ())


def test_somebody_elses_weight_is_noted() -> None:
    seen = sighting(OLD)
    assert seen.proxy is not None
    standing = _judge(replace(seen, proxy=replace(seen.proxy, weight=50)))
    assert "50 %" in standing.notes[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"healthy": None, "unseen": ("health: timed out",)}, "sync1: whether it is healthy is not known (health: timed out)"),
        ({"process": None}, "sync1: its process could not be seen"),
        ({"process": ProcessSighting(running=False, started_at_s=None, activated=OLD.id, activated_at_s=1.0)}, "sync1 doesn't run"),
        ({"version": None}, "sync1: the version that it runs could not be seen"),
        ({"version": "1.0"}, f"sync1 reports version 1.0, but its release {OLD.id} is 1.162.0"),
        ({"proxy": None}, "sync1 can't be seen at the proxy"),
    ],
)
def test_what_was_not_seen_is_a_blocker(change: dict[str, object], why: str) -> None:
    assert _judge(replace(sighting(OLD), **change)).blockers == (why,)  # type: ignore[arg-type]
