"""
JSON patch, JSON merge patch and strategic merge patch.

Source: RFC 6902 and RFC 7386; https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/; for directives
staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go.
"""

from typing import Any

from tests.kubernetes.server import schema
from tests.kubernetes.server.objects import Object, Value, copied
from tests.kubernetes.server.refusals import RefusedError, bad_request

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def patched(kind: str, obj: Object, how: str, patch: Value) -> Object:
    """Return a copy of *obj* with a patch of any kind but APPLY."""
    if how == JSON:
        if not isinstance(patch, list):
            raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
        return _with_operations(copied(obj), patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch")
    return _merged(obj, patch) if how == MERGE else _strategic(kind, (), obj, patch)  # type: ignore[no-any-return]


def _merged(old: Value, patch: Value) -> Value:
    if not isinstance(patch, dict):
        return copied(patch)
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new


def _strategic(kind: str, path: schema.Path, old: Value, patch: Value) -> Value:
    if not isinstance(patch, dict):
        return copied(patch)
    if patch.get("$patch") == "replace" or not isinstance(old, dict):
        return _without_directives(patch)
    if patch.get("$patch") == "delete":
        return {}
    new = dict(old)
    if (kept := patch.get("$retainKeys")) is not None:
        new = {key: value for key, value in new.items() if key in kept}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            listed = key.partition("/")[2]
            new[listed] = [one for one in new.get(listed) or [] if one not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            new.pop(key, None)
        elif isinstance(value, list):
            new[key] = _strategic_list(kind, (*path, key), new.get(key) or [], value)
        else:
            new[key] = _strategic(kind, (*path, key), new.get(key), value)
    _set_orders(kind, path, new, patch)
    return new


def _strategic_list(kind: str, path: schema.Path, old: list[Value], patch: list[Value]) -> list[Value]:
    if schema.is_set(path):
        return [*old, *(one for one in patch if one not in old)]
    key = schema.merge_key(kind, path)
    if key is None or any(isinstance(one, dict) and one.get("$patch") == "replace" for one in patch):
        return [_without_directives(one) for one in patch if not (isinstance(one, dict) and set(one) == {"$patch"})]
    new = list(old)
    for one in patch:
        if key not in one:
            raise RefusedError(400, "BadRequest", f"map: {one} does not contain declared merge key: {key}")
        where = next((at for at, there in enumerate(new) if there.get(key) == one[key]), None)
        if one.get("$patch") == "delete":
            new = [there for there in new if there.get(key) != one[key]]
        elif where is None:
            new.append(_without_directives(one))
        else:
            new[where] = _strategic(kind, path, new[where], one)
    return new


def _set_orders(kind: str, path: schema.Path, new: Object, patch: Object) -> None:
    for directive, order in patch.items():
        if not directive.startswith("$setElementOrder/"):
            continue
        key = directive.partition("/")[2]
        by = schema.merge_key(kind, (*path, key))
        wanted = [one.get(by) if isinstance(one, dict) else one for one in order]

        def rank(one: Value, by: str | None = by, wanted: list[Value] = wanted) -> int:
            it = one.get(by) if isinstance(one, dict) else one
            return wanted.index(it) if it in wanted else len(wanted)

        if key in new:
            new[key] = sorted(new[key], key=rank)


def _without_directives(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: _without_directives(one) for key, one in value.items() if not key.startswith("$") and one is not None}
    if isinstance(value, list):
        return [_without_directives(one) for one in value]
    return value


def _with_operations(obj: Object, operations: list[dict[str, Any]]) -> Object:
    for one in operations:
        kind, path = one.get("op"), str(one.get("path", ""))
        if kind == "test":
            if _found(obj, path) != one.get("value"):
                raise _impossible(f"testing value {path} failed: test failed")
        elif kind == "remove":
            _taken(obj, path)
        elif kind in {"add", "replace"}:
            if kind == "replace":
                _found(obj, path)
            _put(obj, path, copied(one.get("value")), insert=kind == "add")
        elif kind == "move":
            _put(obj, path, _taken(obj, str(one["from"])), insert=True)
        elif kind == "copy":
            _put(obj, path, copied(_found(obj, str(one["from"]))), insert=True)
        else:
            raise bad_request(f"Unexpected kind: {kind}")
    return obj


def _impossible(why: str) -> RefusedError:
    # staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go: a patch that can't be done is 422.
    return RefusedError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _steps(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _below(there: Value, step: str, path: str) -> Value:
    try:
        return there[int(step)] if isinstance(there, list) else there[step]
    except (KeyError, IndexError, ValueError, TypeError):
        raise _impossible(f"doc is missing path: {path}: missing value") from None


def _found(obj: Value, path: str) -> Value:
    there = obj
    for step in _steps(path):
        there = _below(there, step, path)
    return there


def _taken(obj: Object, path: str) -> Value:
    *way, last = _steps(path)
    there: Value = obj
    for step in way:
        there = _below(there, step, path)
    value = _below(there, last, path)
    del there[int(last) if isinstance(there, list) else last]
    return value


def _put(obj: Object, path: str, value: Value, *, insert: bool) -> None:
    *way, last = _steps(path)
    there: Value = obj
    for step in way:
        there = _below(there, step, path)
    if not isinstance(there, list):
        there[last] = value
    elif last == "-":
        there.append(value)
    elif insert:
        there.insert(int(last), value)
    else:
        there[int(last)] = value
