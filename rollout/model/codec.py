"""
Plans, events and releases as JSON, and back.

The types are plain dataclasses; pydantic reads their annotations, so that there is no second description of them that could drift.
Reading is strict about unknown kinds and missing fields: a journal of a newer rollout is an error, not a guess.

What an event's JSON looks like has a version, 1 at first. A new field with a default needs no other; whatever else changes needs a
function that makes the new JSON of the old (docs/adding-an-event.md).
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rollout.model import event as events
from rollout.model.errors import InvalidFileError
from rollout.model.event import Event
from rollout.model.plan import Plan
from rollout.model.release import Release

# Of a key that somebody else wrote so much is shown.
_PART_MAX = 60
_EVENT_KINDS: dict[str, Any] = {kind.__name__: kind for kind in events.Event.__args__}
_Upgrade = Callable[[Any], Any]
# The metrics that had recoveries when one was learned for all of them.
_RECOVERING = ("latency_p95_s", "canary_p95_s", "request_cpu_s", "poll_cpu_s", "poll_db_s", "poll_scheduling_s")


def _recoveries_by_metric(old: Any) -> Any:  # noqa: ANN401  (whatever stood in the file)
    """In version 1 all metrics of a role had the same recoveries."""
    by_role = old.get("recoveries", {})
    return {**old, "recoveries": {role: dict.fromkeys(_RECOVERING, curves) for role, curves in by_role.items()}}


# By kind: what makes version 2 of version 1, version 3 of version 2, and so on. Nothing is ever taken out of here.
UPGRADES: Mapping[str, tuple[_Upgrade, ...]] = {"BaselineFound": (_recoveries_by_metric,)}

# What plans did not have at first, as it was meant then. A key that a plan gets from now on goes in here, or has a default.
_PLANS_BEFORE: Mapping[str, Any] = {
    "hold": {"hold_s": 0.0, "hold_max": 0},
    "warm": None,
    "recovery": None,
    "watch": {"watch_s": 0.0, "window_s": 0.0},
    "rollback_scope": "all_touched",
}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401  (a type, which mypy does not take for hashable)
    return TypeAdapter(kind)


def _adapter_of(thing: object) -> TypeAdapter[Any]:
    kind: Any = type(thing)
    return _adapter(kind)


def dump_json(thing: Event | Plan | Release, *, indent: int | None = None) -> str:
    """Write as JSON; the same value always gives the same text."""
    text: str = _adapter_of(thing).dump_json(thing, indent=indent).decode()
    return text


def to_plain(thing: Event | Plan | Release) -> dict[str, Any]:
    """Turn into dictionaries, lists, strings and numbers alone."""
    plain: dict[str, Any] = _adapter_of(thing).dump_python(thing, mode="json")
    return plain


def event_kind(event: Event) -> str:
    """Name the kind under which the journal keeps an event."""
    return type(event).__name__


def event_version(event: Event) -> int:
    """Return the version of what `dump_json` writes for it."""
    return len(UPGRADES.get(event_kind(event), ())) + 1


def load_event(kind: str, text: str, version: int = 1) -> Event:
    """Read an event back. Raises InvalidFileError when its kind or version is unknown, or the text doesn't fit it."""
    remedy = "read this journal with the release of rollout that wrote it"
    if kind not in _EVENT_KINDS:
        raise InvalidFileError(f"unknown kind of event {kind!r}", remedy=remedy)
    upgrades = UPGRADES.get(kind, ())
    if not 1 <= version <= len(upgrades) + 1:
        raise InvalidFileError(f"{kind} is written in version {version}, and this rollout knows {len(upgrades) + 1}", remedy=remedy)
    if version <= len(upgrades):
        return _load(_EVENT_KINDS[kind], text, upgrades[version - 1 :])  # type: ignore[no-any-return]
    try:
        # Three times as fast as by way of Python's own objects, which counts when a long rollout is taken up again.
        return _adapter(_EVENT_KINDS[kind]).validate_json(text, strict=False)  # type: ignore[no-any-return]
    except ValueError:
        return _load(_EVENT_KINDS[kind], text)  # type: ignore[no-any-return]


def load_plan(text: str) -> Plan:
    """Read a plan back. Raises InvalidFileError when it isn't one."""
    return _load(Plan, text, (_with_later_keys,))  # type: ignore[no-any-return]


def _with_later_keys(plain: Any) -> Any:  # noqa: ANN401  (whatever stood in the file)
    return {**_PLANS_BEFORE, **plain} if isinstance(plain, dict) else plain


def load_release(text: str) -> Release:
    """Read a release's manifest back. Raises InvalidFileError when it isn't one."""
    return _load(Release, text)  # type: ignore[no-any-return]


def _load(kind: Any, text: str, upgrades: tuple[_Upgrade, ...] = ()) -> Any:  # noqa: ANN401  (the caller names the type)
    try:
        plain = json.loads(text)
        for upgrade in upgrades:
            plain = upgrade(plain)
        return _adapter(kind).validate_python(plain, strict=False)
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(f"not a valid {kind.__name__}", why=_why(error)) from error


def _why(error: ValueError | RecursionError) -> str:
    """Say in one line what is wrong first."""
    match error:
        case ValidationError():
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(part)[:_PART_MAX] for part in first["loc"])
            return f"{place}: {first['msg']}" if place else first["msg"]
        case json.JSONDecodeError():
            return f"it is not JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        case RecursionError():
            return "it is nested too deep"
        case _:
            return "a number in it is too long"
