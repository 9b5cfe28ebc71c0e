"""What `rollout status` says of the last watch: until when it lasts is said only while somebody watches."""

import json
import time
from dataclasses import replace

import pytest

from rollout.deciding.agenda import agenda_of
from rollout.interfaces.report.progress import watch_text, watched_until_s
from rollout.model.event import Event, Outcome, StepBegan, StepFinished
from rollout.model.ids import DeployId
from rollout.model.plan import Verb, steps_of
from rollout.ports.lease import Claim
from tests.deciding.rolled import rolled
from tests.interfaces.homeserver import Homeserver
from tests.interfaces.test_keeping import ONE, begun, plan_of


def _in_its_last_watch(site: Homeserver) -> float:
    """Write down a rollout whose steps are done but the last watch, and return since when that lasts."""
    now_s = time.time()
    events: list[Event] = []
    for step in steps_of(plan_of(site.stage).phases):
        events.append(StepBegan(now_s, step.id))
        if step.verb is not Verb.WATCH:
            events.append(StepFinished(now_s, step.id, "done"))
    begun(site, now_s, more=events)
    return now_s


@pytest.mark.parametrize(("held_for", "is_watched"), [(ONE, True), (DeployId("d-2"), False), (None, False)])
def test_the_watch_has_an_end_only_while_its_lease_is_held(site: Homeserver, held_for: DeployId | None, *, is_watched: bool) -> None:
    """Held for this very rollout: of one whose process has died nobody knows when it ends."""
    since_s = _in_its_last_watch(site)
    if held_for is not None:
        site.stage.drivers.lease.acquire(Claim("ada@host", "", held_for), 5.0, above=0, take_over=False)
    shown = site.run("status").output
    assert ("everybody has passed and is watched until " in shown) is is_watched
    assert ("everybody had passed; nobody watches now: rollout resume" in shown) is not is_watched
    until_s = json.loads(site.run("status", "--json").stdout)["rollout"]["watched_until_s"]
    assert until_s == (pytest.approx(since_s + plan_of(site.stage).watch.watch_s) if is_watched else None)


def test_where_the_lease_is_out_of_reach_nobody_knows_whether_somebody_watches(site: Homeserver) -> None:
    _in_its_last_watch(site)
    site.stage.world.lease.away_until_s = time.time() + 3600
    shown = site.run("status").output
    assert "everybody had passed; not known whether somebody watches" in shown
    assert "watched until" not in shown
    assert json.loads(site.run("status", "--json").stdout)["rollout"]["watched_until_s"] is None


def test_a_watch_that_is_being_ended_has_no_end_to_tell() -> None:
    plan, states = rolled()
    state = next(one for one in states if agenda_of(plan, one).watching and watched_until_s(plan, one, is_run=True))
    assert watch_text(plan, state, is_run=True).startswith("everybody has passed and is watched until ")
    ending = replace(state, winding_down=Outcome.PAUSED)
    assert watch_text(plan, ending, is_run=True) == ""
    assert watched_until_s(plan, ending, is_run=True) is None
