"""When a rollout may begin: hours over midnight, days on which clocks change, and what the command line makes of them."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rollout.interfaces.cli.windows import Opening, bounds_again, bounds_now, check_that_it_can_fit, openings, why_not_now
from rollout.interfaces.report.words import windows_text
from rollout.model.errors import RefusedError
from rollout.model.event import DeployBegan, Outcome
from rollout.model.plan import Plan, Windows
from rollout.model.playbook import Playbook
from tests.interfaces.homeserver import PLAYBOOK, Homeserver
from tests.simulation.stages import PLAYBOOK as SEVEN
from tests.simulation.stages import seven_workers

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NIGHTS = Windows("22:00", "04:30", "06:00", ("mon", "tue", "wed", "thu"), "Europe/Berlin")
HOUR_S = 3600.0


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    """Return a local time as seconds; 2026-11-23 is a Monday."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def opened(windows: Windows, at_s: float) -> Opening | None:
    return next((one for one in openings(windows, at_s) if one.opens_s <= at_s <= one.last_start_s), None)


def plan_with(windows: Windows | None, p90_s: float) -> Plan:
    stage = seven_workers()
    plan = stage.plan(SEVEN)
    return replace(plan, windows=windows, forecast=replace(plan.forecast, p90_s=p90_s))


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-23T21:59", False),  # Monday, before it opens
        ("2026-11-23T22:00", True),
        ("2026-11-24T04:30", True),  # still Monday's
        ("2026-11-24T04:31", False),
        ("2026-11-24T12:00", False),
        ("2026-11-27T03:00", True),  # Friday's early morning belongs to Thursday
        ("2026-11-27T23:00", False),  # Friday is no day for it
        ("2026-11-23T02:00", False),  # nor Sunday's night
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_opens(moment: str, is_open: bool) -> None:  # noqa: FBT001  (a column)
    assert (opened(NIGHTS, at(moment)) is not None) is is_open


def test_its_end_is_the_first_after_its_last_start() -> None:
    """Six in the morning of the next day, also for who begins after midnight."""
    for moment in ("2026-11-23T22:00", "2026-11-24T04:00"):
        window = opened(NIGHTS, at(moment))
        assert window is not None
        assert window.end_s == at("2026-11-24T06:00")


def test_without_a_first_start_the_day_begins_at_midnight() -> None:
    mornings = Windows("00:00", "04:30", "06:00", EVERY_DAY, "Europe/Berlin")
    assert opened(mornings, at("2026-11-24T00:00")) is not None
    assert opened(mornings, at("2026-11-24T22:00")) is None


def test_without_an_end_it_has_none() -> None:
    """A last start alone bounds the beginning."""
    evenings = Windows("18:00", "20:00", "", EVERY_DAY, "UTC")
    window = opened(evenings, at("2026-11-24T19:00", ZoneInfo("UTC")))
    assert window is not None
    assert window.end_s == float("inf")
    assert bounds_now(plan_with(evenings, 1e6), at("2026-11-24T19:00", ZoneInfo("UTC")), ignore=False).end_by_s is None


def test_the_night_on_which_clocks_go_forward_is_an_hour_shorter() -> None:
    """2026-03-29, 02:00 to 03:00 doesn't exist: from 22:00 to 06:00 it is seven hours."""
    nights = replace(NIGHTS, days=EVERY_DAY)
    window = opened(nights, at("2026-03-28T22:00"))
    assert window is not None
    assert window.end_s - window.opens_s == 7 * HOUR_S
    plan = plan_with(nights, 7.5 * HOUR_S)
    with pytest.raises(RefusedError, match="not be over by 06:00"):
        bounds_now(plan, at("2026-03-28T22:00"), ignore=False)
    assert bounds_now(plan, at("2026-03-29T22:00"), ignore=False).end_by_s == at("2026-03-30T06:00")


def test_the_night_on_which_clocks_go_back_is_an_hour_longer() -> None:
    nights = replace(NIGHTS, days=EVERY_DAY)
    window = opened(nights, at("2026-10-24T22:00"))
    assert window is not None
    assert window.end_s - window.opens_s == 9 * HOUR_S


@pytest.mark.parametrize(
    ("day", "end"),
    [
        ("2026-03-29", "2026-03-29T00:30+00:00"),  # 02:30 never comes: the earlier reading, 01:30 before the change
        ("2026-10-25", "2026-10-25T00:30+00:00"),  # 02:30 comes twice: the first of them
    ],
)
def test_an_end_that_comes_twice_or_never_is_the_earlier_one(day: str, end: str) -> None:
    window = opened(Windows("00:00", "01:00", "02:30", EVERY_DAY, "Europe/Berlin"), at(f"{day}T00:10"))
    assert window is not None
    assert window.end_s == datetime.fromisoformat(end).timestamp()


def test_an_opening_that_comes_twice_is_the_later_one() -> None:
    """At the first 02:30 of that night it isn't open yet."""
    early = Windows("02:30", "05:00", "06:00", EVERY_DAY, "Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 40, tzinfo=UTC).timestamp()
    assert opened(early, first) is None
    assert opened(early, first + HOUR_S) is not None


def test_a_plan_that_does_not_fit_is_refused_with_what_would() -> None:
    """The sentence says how long it takes and how long there is, the remedy from when to when it would fit."""
    plan = plan_with(NIGHTS, 2 * HOUR_S)
    with pytest.raises(RefusedError) as refused:
        bounds_now(plan, at("2026-11-24T04:10"), ignore=False)
    assert refused.value.exit_code == 5
    assert refused.value.what == "this rollout would not be over by 06:00"
    assert refused.value.why == "nine of ten like it take up to 2 h, and 1 h 50 min are left"
    assert refused.value.remedy.startswith("from Tue 22:00 on, Wed 04:00 at the latest; ")
    assert bounds_now(plan, at("2026-11-24T03:59"), ignore=False).end_by_s == at("2026-11-24T06:00")


def test_outside_its_hours_it_is_refused() -> None:
    plan = plan_with(NIGHTS, 60.0)
    with pytest.raises(RefusedError) as refused:
        bounds_now(plan, at("2026-11-27T14:05"), ignore=False)
    assert refused.value.why == (
        "it is Fri 14:05, and a rollout may begin mon, tue, wed, thu from 22:00 to 04:30, and must have ended by 06:00 (Europe/Berlin)"
    )
    assert refused.value.remedy.startswith("from Mon 22:00 on, Tue 04:30 at the latest; ")


def test_in_an_emergency_they_are_ignored_in_writing() -> None:
    bounds = bounds_now(plan_with(NIGHTS, 60.0), at("2026-11-27T14:05"), ignore=True)
    assert (bounds.end_by_s, bounds.ignored) == (None, "--ignore-windows")


def test_a_plan_that_fits_no_night_is_refused_beforehand() -> None:
    """Eight and a half hours don't fit into eight; planning by day for the night is no fault."""
    now_s = at("2026-11-24T14:00")
    with pytest.raises(RefusedError, match="fits none"):
        check_that_it_can_fit(plan_with(NIGHTS, 8.5 * HOUR_S), now_s)
    plan = plan_with(NIGHTS, 7.5 * HOUR_S)
    check_that_it_can_fit(plan, now_s)
    assert "from Tue 22:00 on, Tue 22:30 at the latest" in why_not_now(plan, now_s)
    assert why_not_now(plan, at("2026-11-24T22:10")) == ""


def test_what_is_taken_up_outside_its_hours_is_only_brought_to_a_safe_point() -> None:
    """One that had stopped safely waits for its hours; one that was left in the middle is never left there."""
    plan, noon = plan_with(NIGHTS, 60.0), at("2026-11-24T12:00")
    with pytest.raises(RefusedError, match="at this hour"):
        bounds_again(plan, noon, is_safe=True, ignore=False)
    assert bounds_again(plan, noon, is_safe=False, ignore=False).end_by_s == noon
    # After the last start, but before the end: it had begun in time.
    assert bounds_again(plan, at("2026-11-24T05:00"), is_safe=True, ignore=False).end_by_s == at("2026-11-24T06:00")


def test_a_plan_without_windows_runs_at_any_time() -> None:
    assert bounds_now(plan_with(None, 1e9), at("2026-11-24T12:00"), ignore=False).end_by_s is None


def test_they_are_said_in_words() -> None:
    assert windows_text(replace(NIGHTS, days=EVERY_DAY)) == "any day from 22:00 to 04:30, and must have ended by 06:00 (Europe/Berlin)"


def _hours(first: timedelta, last: timedelta) -> dict[str, object]:
    """Write windows around now."""
    now = datetime.now(tz=UTC)
    return {
        "first_start": f"{now + first:%H:%M}",
        "last_start": f"{now + last:%H:%M}",
        "not_after": f"{now + last:%H:%M}",
        "timezone": "UTC",
    }


def _write(site: Homeserver, windows: dict[str, object]) -> None:
    Playbook.model_validate({**PLAYBOOK, "windows": windows})
    site.playbook.write_text(json.dumps({**PLAYBOOK, "windows": windows}))


def test_a_saved_plan_is_checked_again_when_it_is_deployed(site: Homeserver) -> None:
    """Planned by day for the night: the plan is saved, and says that it isn't its hour; its deployment is refused, exit 5, untouched."""
    _write(site, _hours(timedelta(hours=2), timedelta(hours=10)))
    saved = site.directory / "plan.json"
    planned = site.run("plan", "--restart", "-o", str(saved))
    assert planned.exit_code == 0, planned.output
    assert "not at this hour: it is" in planned.output
    assert "may begin any day from" in planned.output
    refused = site.run("deploy", str(saved), "--yes")
    assert refused.exit_code == 5, refused.output
    assert "may not be rolled at this hour" in refused.output
    assert "canary:" not in refused.output, "what is refused need not be read"
    assert site.journal.deploys("simulated.localhost", 9) == []


def test_an_emergency_is_written_down_and_a_score_is_said(site: Homeserver) -> None:
    """With --ignore-windows it is rolled out all the same; the journal says so, and the end says how good the forecast was."""
    _write(site, _hours(timedelta(hours=2), timedelta(hours=10)))
    done = site.run("deploy", "--restart", "--yes", "--ignore-windows")
    assert done.exit_code == 0, done.output
    assert "the playbook's windows are ignored: --ignore-windows" in done.output
    assert "forecast" in done.output.splitlines()[-1]
    assert "what varied" in done.output.splitlines()[-1]
    (line,) = site.journal.deploys("simulated.localhost", 9)
    assert line.outcome is Outcome.DEPLOYED
    (_, began), *_ = site.journal.events(line.deploy_id)
    assert isinstance(began, DeployBegan)
    assert began.windows_ignored == "--ignore-windows"
    (told,) = json.loads(site.run("history", "--json").output)
    assert told["forecast"]["whole"]["took_s"] == pytest.approx(told["duration_s"], abs=0.01)
    assert "%" in site.run("history").output


def test_within_its_hours_it_is_rolled_out_and_knows_its_end(site: Homeserver) -> None:
    _write(site, _hours(-timedelta(hours=2), timedelta(hours=10)))
    done = site.run("deploy", "--restart", "--yes")
    assert done.exit_code == 0, done.output
    (line,) = site.journal.deploys("simulated.localhost", 9)
    (_, began), *_ = site.journal.events(line.deploy_id)
    assert isinstance(began, DeployBegan)
    assert began.end_by_s is not None
    assert 9 * HOUR_S < began.end_by_s - began.at_s <= 10 * HOUR_S


def test_a_way_back_is_taken_at_any_hour(site: Homeserver) -> None:
    """When something is wrong nobody waits for the night."""
    done = site.run("deploy", "--to", "2.0.0", "--yes")
    assert done.exit_code == 0, done.output
    _write(site, _hours(timedelta(hours=2), timedelta(hours=10)))
    back = site.run("rollback", "--yes")
    assert back.exit_code == 0, back.output
