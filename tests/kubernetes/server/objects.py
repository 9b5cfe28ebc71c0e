"""What objects look like: JSON as dictionaries, which are never changed once they are in the store."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

Object: TypeAlias = dict[str, Any]
Value: TypeAlias = Any


def copied(value: Value) -> Value:
    return copy.deepcopy(value)


def meta(obj: Object) -> Object:
    return obj["metadata"]  # type: ignore[no-any-return]


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def labels_of(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def version_of(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def now() -> str:
    """Return the time as metav1.Time is written: in whole seconds."""
    return stamp(datetime.now(UTC))


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(at: str) -> datetime:
    return datetime.fromisoformat(at)


def controller_of(obj: Object) -> Object | None:
    """Return the owner reference that is its controller's."""
    return next((ref for ref in meta(obj).get("ownerReferences") or [] if ref.get("controller")), None)


def at(obj: Mapping[str, Any], *path: str) -> Value:
    """Return what is at *path*, or None where there is nothing."""
    here: Value = obj
    for key in path:
        if not isinstance(here, Mapping) or here.get(key) is None:
            return None
        here = here[key]
    return here


def condition(obj: Object, kind: str) -> Object | None:
    return next((one for one in at(obj, "status", "conditions") or [] if one["type"] == kind), None)


def is_true(obj: Object, kind: str) -> bool:
    found = condition(obj, kind)
    return found is not None and found["status"] == "True"
