"""
When a rollout may begin, by the playbook's windows, and by when it must have ended.

Times of day become moments here, by the zone's own rules, so that the core knows only seconds. A window opens at *first_start* on one of
its days; *last_start* and *not_after* are the first such times after it. On the days on which clocks change, a time that comes twice, or
never, is taken for the moment that leaves less room.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from rollout.engine.deploy import Bounds
from rollout.interfaces.report.words import duration, windows_text
from rollout.model.errors import RefusedError
from rollout.model.plan import Plan, Windows

IGNORED = "--ignore-windows"
# A window of one day a week is found in eight.
_DAYS_AHEAD = 8
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Opening:
    """One window, in seconds since the epoch; *last_start_s* and *end_s* are infinite where there is none."""

    opens_s: float
    last_start_s: float
    end_s: float


def bounds_now(plan: Plan, now_s: float, *, ignore: bool) -> Bounds:
    """
    Say by when *plan*, begun now, must have ended.

    Raises RefusedError when it may not begin now, or when one of ten such rollouts would not have ended by then.
    """
    windows = plan.windows
    if windows is None or not plan.phases:
        return Bounds()
    if ignore:
        return Bounds(ignored=IGNORED)
    here = next((one for one in openings(windows, now_s) if one.opens_s <= now_s <= one.last_start_s), None)
    needed_s = _needed_s(plan)
    if here is None:
        raise _closed(plan, windows, now_s, _later(windows, now_s, needed_s))
    if now_s + needed_s > here.end_s:
        raise RefusedError(
            f"this rollout would not be over by {windows.not_after}",
            why=f"nine of ten like it take up to {duration(needed_s)}, and {duration(here.end_s - now_s)} are left",
            remedy=_later(windows, now_s, needed_s),
        )
    return Bounds(None if here.end_s == float("inf") else here.end_s)


def bounds_again(plan: Plan, now_s: float, *, is_safe: bool, ignore: bool) -> Bounds:
    """
    Say by when a rollout that is taken up again must have ended.

    Outside its windows one that stopped safely (*is_safe*) is refused with RefusedError; one that was left in the middle is brought to a
    safe point, and nobody else is begun with.
    """
    windows = plan.windows
    if windows is None:
        return Bounds()
    if ignore:
        return Bounds(ignored=IGNORED)
    here = next((one for one in openings(windows, now_s) if one.opens_s <= now_s < one.end_s), None)
    if here is not None:
        return Bounds(None if here.end_s == float("inf") else here.end_s)
    if is_safe:
        raise _closed(plan, windows, now_s, f"from {_next(windows, now_s)} on; in an emergency {IGNORED}")
    return Bounds(now_s)


def check_that_it_can_fit(plan: Plan, now_s: float) -> None:
    """Raise RefusedError when *plan* fits none of the playbook's windows."""
    windows = plan.windows
    if windows is None or not plan.phases:
        return
    needed_s = _needed_s(plan)
    if not any(one.opens_s + needed_s <= one.end_s for one in openings(windows, now_s)):
        raise RefusedError(
            "this rollout fits none of the playbook's windows",
            why=f"nine of ten like it take up to {duration(needed_s)}, and a rollout may begin {windows_text(windows)}",
            remedy=f"a part of it (--only, --until), longer windows in the playbook, or in an emergency {IGNORED}",
        )


def why_not_now(plan: Plan, now_s: float) -> str:
    """Say why *plan* would be refused if it were to begin now; empty when it would not."""
    try:
        bounds_now(plan, now_s, ignore=False)
    except RefusedError as refusal:
        return f"{refusal.why}; {refusal.remedy}"
    return ""


def openings(windows: Windows, at_s: float) -> Iterator[Opening]:
    """List the windows from two days before *at_s* on, for as long as it takes to find each day of the week."""
    zone = ZoneInfo(windows.timezone)
    today = datetime.fromtimestamp(at_s, tz=UTC).astimezone(zone).date()
    for ahead in range(-2, _DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        if _WEEKDAYS[day.weekday()] not in windows.days:
            continue
        opens_s = max(_moments(day, windows.first_start, zone))
        last_day, last_start_s = _after(day, windows.first_start, windows.last_start, zone)
        _, end_s = _after(last_day, windows.last_start or windows.first_start, windows.not_after, zone)
        yield Opening(opens_s, min(last_start_s, end_s), end_s)


def _after(day: date, since: str, until: str, zone: ZoneInfo) -> tuple[date, float]:
    """Find the first *until* that is not before *since* on *day*."""
    if not until:
        return day, float("inf")
    there = day if until >= since else day + timedelta(days=1)
    return there, min(_moments(there, until, zone))


def _moments(day: date, at: str, zone: ZoneInfo) -> tuple[float, float]:
    """Return both readings of a time of day; they differ where the clock is changed over it."""
    local = datetime.combine(day, time.fromisoformat(at), tzinfo=zone)
    return local.replace(fold=0).timestamp(), local.replace(fold=1).timestamp()


def _needed_s(plan: Plan) -> float:
    return plan.forecast.duration_s if plan.forecast.p90_s is None else plan.forecast.p90_s


def _closed(plan: Plan, windows: Windows, now_s: float, remedy: str) -> RefusedError:
    why = f"it is {_told(now_s, windows)}, and a rollout may begin {windows_text(windows)}"
    return RefusedError(f"{plan.homeserver} may not be rolled at this hour", why=why, remedy=remedy)


def _later(windows: Windows, now_s: float, needed_s: float) -> str:
    """Say when a rollout that takes so long may begin, and what else there is."""
    part = f"a part of it (--only, --until), or in an emergency {IGNORED}"
    ahead = next((one for one in openings(windows, now_s) if one.opens_s > now_s and one.opens_s + needed_s <= one.end_s), None)
    if ahead is None:
        return part
    latest_s = min(ahead.last_start_s, ahead.end_s - needed_s)
    by = "" if latest_s == float("inf") else f", {_told(latest_s, windows)} at the latest"
    return f"from {_told(ahead.opens_s, windows)} on{by}; {part}"


def _next(windows: Windows, now_s: float) -> str:
    return next((_told(one.opens_s, windows) for one in openings(windows, now_s) if one.opens_s > now_s), "its next window")


def _told(at_s: float, windows: Windows) -> str:
    """Say a moment as the zone's clocks do."""
    return datetime.fromtimestamp(at_s, tz=UTC).astimezone(ZoneInfo(windows.timezone)).strftime("%a %H:%M")
