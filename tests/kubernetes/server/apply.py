"""
Server-side apply, and who owns what after any other write.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/; merge/update.go of sigs.k8s.io/structured-merge-diff
(Apply, Update, prune) and staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go for the words of a conflict.
"""

from dataclasses import dataclass

from tests.kubernetes.server import fields, schema
from tests.kubernetes.server.fields import Element, Fields
from tests.kubernetes.server.kinds import Kind
from tests.kubernetes.server.objects import Object, Value, at, copied, now
from tests.kubernetes.server.refusals import RefusedError

# Left out of an object when they are empty, as Go's omitempty leaves them out.
_LEFT_OUT = {
    "labels", "annotations", "finalizers", "ownerReferences", "nodeSelector", "env", "envFrom", "args", "command", "volumes",
    "volumeMounts", "ports", "initContainers", "imagePullSecrets", "tolerations", "readinessGates", "data",
}  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """Whoever writes is known by a name, by whether it applies, and by the subresource that it writes to."""

    name: str
    applies: bool
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """What one owns, since when."""

    fields: Fields
    time: str


def managers_of(obj: Object) -> dict[Manager, Share]:
    return {
        Manager(one["manager"], one["operation"] == "Apply", one.get("subresource", "")): Share(fields.read(one["fieldsV1"]), one["time"])
        for one in at(obj, "metadata", "managedFields") or []
    }


def told(kind: Kind, managers: dict[Manager, Share]) -> list[Object]:
    """Return managedFields: those that apply first, then by time."""
    ordered = sorted(managers.items(), key=lambda one: (not one[0].applies, one[1].time, one[0].name, one[0].subresource))
    return [
        {
            "manager": manager.name,
            "operation": "Apply" if manager.applies else "Update",
            "apiVersion": kind.api_version,
            "time": share.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields.written(share.fields),
        }
        | ({"subresource": manager.subresource} if manager.subresource else {})
        for manager, share in ordered
        if share.fields
    ]


def after_update(kind: Kind, old: Object | None, new: Object, writer: Manager) -> list[Object]:
    """Return managedFields after a write that isn't an apply: what it changed is its own, and nobody else's."""
    managers = managers_of(new if old is None else old)
    if old is not None and at(new, "metadata", "managedFields") == []:
        # Emptied by a client on purpose: https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields
        managers = {}
    mine, gone = fields.changed(kind.name, old or {}, new)
    if writer.subresource != "status" and kind.status:
        mine = frozenset(path for path in mine if path[0] != "f:status")
    if not mine and not gone:
        return told(kind, managers)
    left: dict[Manager, Share] = {}
    for manager, share in managers.items():
        kept = share.fields - gone - (mine if manager != writer else frozenset())
        left[manager] = share if kept == share.fields else Share(kept, share.time)
    if mine:
        before = left.get(writer)
        left[writer] = Share((before.fields if before else frozenset()) | mine, now())
    return told(kind, left)


def applied(kind: Kind, live: Object | None, config: Object, writer: Manager, *, force: bool) -> Object:
    """
    Return the object after an apply, with its managedFields.

    What the writer owned before and doesn't name any more goes, unless somebody else owns it too. Raises 409 where another owns a field
    that would get another value, unless forced.
    """
    base = live or {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}}
    managers = managers_of(base)
    named = fields.owned_by_all(kind.name, config)
    before = managers.get(writer)
    merged = copied(_merged(kind.name, (), base, config))
    others = {manager: share for manager, share in managers.items() if manager != writer}
    given_up = (before.fields if before else frozenset()) - named
    # An item before what is in it: that goes with it.
    for path in sorted(given_up, key=len):
        if not any(path in share.fields or _is_held(path, share.fields) for share in others.values()) and not _is_held(path, named):
            _remove(kind.name, merged, path)
    merged = _trimmed(merged)
    if live is not None:
        differing, _ = fields.changed(kind.name, live, merged)
        taken = {manager: hit for manager, share in others.items() if (hit := share.fields & differing & named)}
        if taken and not force:
            raise _conflict(kind, taken, others)
        for manager, hit in taken.items():
            others[manager] = Share(others[manager].fields - hit, others[manager].time)
    share = before if before and before.fields == named and merged == live else Share(named, now())
    merged["metadata"]["managedFields"] = told(kind, others | {writer: share})
    return merged  # type: ignore[no-any-return]


def _is_held(path: tuple[Element, ...], by: Fields) -> bool:
    """Tell whether something below *path* is in *by*."""
    return any(one[: len(path)] == path and len(one) > len(path) for one in by)


def _merged(kind: str, path: schema.Path, old: Value, new: Value) -> Value:
    if isinstance(new, dict) and isinstance(old, dict) and not (path and schema.is_atomic_map(kind, path)):
        both = dict(old)
        for key, value in new.items():
            if value is None:
                continue
            both[key] = _merged(kind, (*path, key), old.get(key), value)
        return both
    if isinstance(new, list) and isinstance(old, list):
        if schema.is_set(path):
            return [*old, *(one for one in new if one not in old)]
        if keys := schema.keys_of(kind, path):
            return _merged_list(kind, path, keys, old, new)
    return copied(new)


def _merged_list(kind: str, path: schema.Path, keys: tuple[str, ...], old: list[Value], new: list[Value]) -> list[Value]:
    """Items of both: those of *new* in its order, those that only *old* has where they stood."""
    theirs = {fields.key_of(one, keys): one for one in old}
    mine = {fields.key_of(one, keys): one for one in new}
    result: list[Value] = []
    waiting = list(mine)
    for key, one in theirs.items():
        if key not in mine:
            result.append(one)
            continue
        while waiting:
            first = waiting.pop(0)
            result.append(_merged(kind, path, theirs.get(first, {}), mine[first]))
            if first == key:
                break
    result += [_merged(kind, path, theirs.get(key, {}), mine[key]) for key in waiting]
    return result


def _remove(kind: str, obj: Object, path: tuple[Element, ...]) -> None:
    *way, last = path
    here = fields.value_at(kind, obj, tuple(way))
    if isinstance(here, dict):
        here.pop(last[2:], None)
    elif isinstance(here, list):
        gone = fields.value_at(kind, obj, path)
        here[:] = [one for one in here if one != gone]


def _trimmed(value: Value, name: str = "") -> Value:
    if isinstance(value, dict):
        kept = {key: _trimmed(one, key) for key, one in value.items()}
        return {key: one for key, one in kept.items() if not (key in _LEFT_OUT and one in ({}, [], None) and name != "matchLabels")}
    if isinstance(value, list):
        return [_trimmed(one) for one in value]
    return value


def _conflict(kind: Kind, taken: dict[Manager, Fields], others: dict[Manager, Share]) -> RefusedError:
    causes: list[Object] = []
    listed: list[str] = []
    for manager in sorted(taken):
        who = f'"{manager.name}"' + (f' with subresource "{manager.subresource}"' if manager.subresource else "")
        if not manager.applies:
            who += f" using {kind.api_version} at {others[manager].time}"
        paths = sorted(fields.within(path) for path in taken[manager])
        causes += [{"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path} for path in paths]
        listed += [f"conflicts with {who}:", *(f"- {path}" for path in paths)]
    if len(causes) == 1:
        words = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        words = f"Apply failed with {len(causes)} conflicts: " + "\n".join(listed)
    return RefusedError(409, "Conflict", words, {"causes": causes})
