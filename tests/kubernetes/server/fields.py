"""
Who owns which fields: sets of paths, and metadata.managedFields.

A path is a tuple of elements as FieldsV1 writes them: `f:name` for a field, `k:{"name":"a"}` for an item of a list with keys, `v:"a"` for
one of a set. An item's own path is a member besides its fields (written "."), and so is a map's whose keys are free.

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management; fieldpath and typed of
sigs.k8s.io/structured-merge-diff.
"""

import json
from collections.abc import Iterator
from typing import TypeAlias

from tests.kubernetes.server import schema
from tests.kubernetes.server.objects import Object, Value

Element: TypeAlias = str
Fields: TypeAlias = frozenset[tuple[Element, ...]]

# Nobody owns these. Source: stripmeta.go of staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal.
_UNOWNED = {
    ("apiVersion",), ("kind",), ("metadata",), ("metadata", "name"), ("metadata", "namespace"), ("metadata", "creationTimestamp"),
    ("metadata", "uid"), ("metadata", "resourceVersion"), ("metadata", "managedFields"), ("metadata", "generation"),
    ("metadata", "selfLink"), ("metadata", "deletionTimestamp"), ("metadata", "deletionGracePeriodSeconds"),
}  # fmt: skip
# An item of a list is told apart by what is there after defaults.
_KEY_DEFAULTS = {"protocol": "TCP"}


def names_in(path: tuple[Element, ...]) -> schema.Path:
    return tuple(element[2:] for element in path if element.startswith("f:"))


def key_of(item: Object, keys: tuple[str, ...]) -> Element:
    values = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in keys}
    return "k:" + json.dumps(values, separators=(",", ":"), sort_keys=True)


def owned_by_all(kind: str, obj: Object) -> Fields:
    """Return all fields that an object has and that can be owned."""
    return frozenset(_walk(kind, (), obj))


def _walk(kind: str, path: tuple[Element, ...], value: Value) -> Iterator[tuple[Element, ...]]:
    names = names_in(path)
    if names in _UNOWNED - {("metadata",)}:
        return
    if isinstance(value, dict) and value and not (path and schema.is_atomic_map(kind, names)):
        for key, one in value.items():
            yield from _walk(kind, (*path, f"f:{key}"), one)
    elif isinstance(value, list) and value and schema.is_set(names):
        for one in value:
            yield (*path, f"v:{json.dumps(one)}")
    elif isinstance(value, list) and value and (keys := schema.keys_of(kind, names)):
        for one in value:
            item = (*path, key_of(one, keys))
            yield item
            for key, inner in one.items():
                yield from _walk(kind, (*item, f"f:{key}"), inner)
    elif names != ("metadata",):
        yield path


def value_at(kind: str, obj: Value, path: tuple[Element, ...]) -> Value:
    """Return what is at a path, or None; an item that is there is itself."""
    here = obj
    for depth, element in enumerate(path):
        sort, rest = element[0], element[2:]
        if sort == "f":
            here = here.get(rest) if isinstance(here, dict) else None
        elif sort == "v":
            here = json.loads(rest) if isinstance(here, list) and json.loads(rest) in here else None
        else:
            keys = schema.keys_of(kind, names_in(path[:depth]))
            here = next((one for one in here or [] if key_of(one, keys) == element), None)
        if here is None:
            return None
    return here


def changed(kind: str, old: Object, new: Object) -> tuple[Fields, Fields]:
    """Return the fields that are new or another value's, and those that are gone."""
    before, after = owned_by_all(kind, old), owned_by_all(kind, new)

    def differs(path: tuple[Element, ...]) -> bool:
        if path not in before:
            return True
        # An item is there before and after; what changed in it are its fields.
        return path[-1].startswith("f:") and value_at(kind, old, path) != value_at(kind, new, path)

    return frozenset(path for path in after if differs(path)), before - after


def written(fields: Fields) -> Object:
    """Return FieldsV1."""
    root: Object = {}
    for path in sorted(fields):
        here = root
        for element in path:
            here = here.setdefault(element, {})
    _mark(root, fields, ())
    return root


def _mark(here: Object, fields: Fields, path: tuple[Element, ...]) -> None:
    for element in list(here):
        if element != ".":
            _mark(here[element], fields, (*path, element))
    if here and path in fields:
        here["."] = {}


def read(said: Object) -> Fields:
    """Return the paths of FieldsV1."""

    def walk(here: Object, path: tuple[Element, ...]) -> Iterator[tuple[Element, ...]]:
        if not here:
            yield path
        for element, below in here.items():
            yield from [path] if element == "." else walk(below, (*path, element))

    return frozenset(path for path in walk(said, ()) if path)


def within(path: tuple[Element, ...]) -> str:
    """Return a path as messages have it, such as .spec.template.spec.containers[name="a"].image."""
    text = ""
    for element in path:
        if element.startswith("f:"):
            text += f".{element[2:]}"
        elif element.startswith("v:"):
            text += f"[={element[2:]}]"
        else:
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(element[2:]).items()) + "]"
    return text
