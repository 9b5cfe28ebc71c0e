"""Durations and tables, as text."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import get_args

from rollout.model.plan import Windows
from rollout.model.playbook import Day

_MINUTE_S = 60
_HOUR_S = 3_600
_DAY_S = 86_400


def duration(seconds: float) -> str:
    """Say how long, in the two largest units that matter: `8 s`, `2 min 5 s`, `3 h 10 min`, `4 d 2 h`."""
    whole = max(0, round(seconds))
    for large, name, small, small_name in ((_DAY_S, "d", _HOUR_S, "h"), (_HOUR_S, "h", _MINUTE_S, "min"), (_MINUTE_S, "min", 1, "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def moment(at_s: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Say when, by this machine's own clock and zone."""
    return datetime.fromtimestamp(at_s, tz=UTC).astimezone().strftime(form)


def utc(at_s: float, form: str) -> str:
    """Say when, in UTC."""
    return datetime.fromtimestamp(at_s, tz=UTC).strftime(form)


def windows_text(windows: Windows) -> str:
    """Say when a rollout may begin, and when it must have ended."""
    days = "any day" if len(set(windows.days)) == len(get_args(Day)) else ", ".join(windows.days)
    until = f" to {windows.last_start}" if windows.last_start else " on"
    end = f", and must have ended by {windows.not_after}" if windows.not_after else ""
    return f"{days} from {windows.first_start}{until}{end} ({windows.timezone})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns; no line ends in spaces."""
    widths = [max(map(len, column)) for column in zip_longest(header, *rows, fillvalue="")]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in (header, *rows))
    return "\n".join(lines)
