"""Looking things up in a model's JSON Schema: what stands at a path, which keys there may be."""

from collections.abc import Mapping
from typing import Any

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]


def at(schema: Schema, path: Path) -> Schema | None:
    """Return the part of *schema* for what stands at *path*; None when it says nothing of that."""
    here: Schema = schema
    for part in path:
        inner = here.get("items") if isinstance(part, int) else here.get("properties", {}).get(part, here.get("additionalProperties"))
        if not isinstance(inner, Mapping):
            return None
        # What stands beside a reference (a default) is worth keeping.
        while "$ref" in inner or "anyOf" in inner:
            target = schema["$defs"][inner["$ref"].rsplit("/", 1)[-1]] if "$ref" in inner else inner["anyOf"][0]
            inner = {**{key: value for key, value in inner.items() if key not in {"$ref", "anyOf"}}, **target}
        here = inner
    return here


def keys(schema: Schema, path: Path) -> list[str]:
    """Name the keys that the mapping at *path* may have; none when they are the person's own, such as the names of workers."""
    return list((at(schema, path) or {}).get("properties", {}))


def required(schema: Schema, path: Path) -> list[str]:
    """Name those that it must have."""
    return list((at(schema, path) or {}).get("required", []))
