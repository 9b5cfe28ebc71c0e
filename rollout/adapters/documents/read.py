"""A file -> a model. Every problem is found in one go and told with its place in the file; the first one heads the message."""

import difflib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rollout.adapters.documents import cross_checks, marked_yaml
from rollout.adapters.documents.marked_yaml import Document, Place
from rollout.adapters.documents.problem import Problem
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import Inventory
from rollout.model.playbook import Playbook

_Model = TypeVar("_Model", bound=BaseModel)

# More would scroll the first one off the screen.
_PROBLEMS_SHOWN_MAX = 10


def read_inventory(path: Path) -> Inventory:
    """Read an inventory. Raises InvalidFileError with file, line and column for whatever is wrong with it."""
    return _read(path, Inventory, cross_checks.of_inventory)


def read_playbook(path: Path, inventory: Inventory | None = None) -> Playbook:
    """Read a playbook; with *inventory*, what it says of workers and pools is checked too. Raises as `read_inventory` does."""
    return _read(path, Playbook, lambda playbook: cross_checks.of_playbook(playbook, inventory))


def _read(path: Path, kind: type[_Model], cross_check: Callable[[_Model], Iterable[Problem]]) -> _Model:
    document = marked_yaml.parse(str(path), _content(path))
    try:
        # Through JSON, because pydantic's strict mode then still takes a list where the model has a tuple.
        model = kind.model_validate_json(json.dumps(document.root), strict=True)
    except ValidationError as error:
        schema = kind.model_json_schema()
        raise _combined(document, [_problem(document, schema, details) for details in error.errors(include_url=False)]) from None
    problems = list(cross_check(model))
    if problems:
        raise _combined(document, problems)
    return model


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(marked_yaml.BYTES_MAX + 1)
    except OSError as error:
        raise InvalidFileError("the file can't be read", where=str(path), why=(error.strerror or type(error).__name__).lower()) from error


def _combined(document: Document, problems: list[Problem]) -> InvalidFileError:
    placed = sorted(((document.place(problem.path, key=problem.at_key), problem) for problem in problems), key=_order)
    place, first = placed[0]
    others = [
        f"also {document.name}:{where.line}:{where.column}: {problem.what}" + (f" (try: {problem.remedy})" if problem.remedy else "")
        for where, problem in placed[1:_PROBLEMS_SHOWN_MAX]
    ]
    if len(placed) > _PROBLEMS_SHOWN_MAX:
        others.append(f"and {len(placed) - _PROBLEMS_SHOWN_MAX} more")
    return document.error(place, first.what, why="\n".join(others), remedy=first.remedy)


def _order(placed: tuple[Place, Problem]) -> tuple[int, int, bool]:
    """Top to bottom; a misspelt key comes before what is missing because of it."""
    place, problem = placed
    return place.line, place.column, not problem.at_key


def _problem(document: Document, schema: dict[str, Any], details: ErrorDetails) -> Problem:
    """Say in our words what pydantic found."""
    path = _path_in_file(document, details["loc"])
    last = str(details["loc"][-1]) if details["loc"] else ""
    match details["type"]:
        case "missing":
            return Problem(path, f'"{last}" is missing')
        case "extra_forbidden":
            known = _known_keys(schema, path[:-1])
            close = difflib.get_close_matches(last, known, n=1, cutoff=0.6)
            return Problem(path, f'unknown key "{last}"', remedy=close[0] if close else f"one of {', '.join(sorted(known))}", at_key=True)
        case kind if kind.endswith("_type") or kind in {"int_from_float", "enum", "literal_error"}:
            value = _value_at(document, path)
            reading = f'"{value}"' if kind in {"enum", "literal_error"} and isinstance(value, str) else marked_yaml.reading_of(value)
            expected = details["msg"].removeprefix("Input should be ")
            remedy = f'"{value}" in quotes' if kind == "string_type" and isinstance(value, (int, float, bool)) else ""
            return Problem(path, f"expected {expected}, not {reading}", remedy=remedy)
        case _:
            return Problem(path, details["msg"].replace("Input should", f"{path[-1] if path else 'the file'} should"))


def _path_in_file(document: Document, location: tuple[str | int, ...]) -> marked_yaml.Path:
    """Follow pydantic's location as far as the file goes; it also names branches of unions, which aren't in the file."""
    path: marked_yaml.Path = ()
    for part in location:
        if (*path, part) in document.values:
            path = (*path, part)
    return path


def _value_at(document: Document, path: marked_yaml.Path) -> marked_yaml.Value:
    value = document.root
    for part in path:
        value = value[part]  # type: ignore[index]
    return value


def _known_keys(schema: dict[str, Any], path: marked_yaml.Path) -> list[str]:
    """Look up which keys a mapping may have, in the model's JSON Schema."""
    definitions = schema.get("$defs", {})
    here = schema
    for part in path:
        inner = here.get("items") if isinstance(part, int) else here.get("properties", {}).get(part, here.get("additionalProperties"))
        if not isinstance(inner, dict):
            return []
        while "$ref" in inner or "anyOf" in inner:
            inner = definitions[inner["$ref"].rsplit("/", 1)[-1]] if "$ref" in inner else inner["anyOf"][0]
        here = inner
    return list(here.get("properties", {}))
