"""A file -> a model. Every problem is found in one go and told with its place in the file; the first one heads the message."""

import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rollout.adapters import schemas
from rollout.adapters.documents import cross_checks, marked_yaml
from rollout.adapters.documents.marked_yaml import Document, Place
from rollout.adapters.problem import Problem
from rollout.adapters.reading import PipeError, read_bounded
from rollout.adapters.schemas import Schema
from rollout.adapters.wording import Wording
from rollout.model import profiles
from rollout.model.errors import InvalidFileError
from rollout.model.inventory import Inventory
from rollout.model.playbook import Playbook

_Model = TypeVar("_Model", bound=BaseModel)

# More would scroll the first one off the screen.
_PROBLEMS_SHOWN_MAX = 10
# What every entry of a section stands under: `workers`, then its name; `gates`, then its number.
_ENTRY_DEPTH = 2
# The sections whose entries are named elsewhere.
_NAMED = frozenset({"workers", "pools"})
# How names of numbers end: what they count, last.
_OF_NUMBERS = ("_max", "_min", "_s")
_REMEDIES: dict[type[Exception], str] = {
    FileNotFoundError: "another path: nothing is there",
    IsADirectoryError: "the path of a file in it",
    PipeError: "a file, or a command that writes one: <(…)",
    PermissionError: "chmod or sudo: whoever runs this must be able to read it",
}


def read_inventory(path: Path) -> Inventory:
    """Read an inventory. Raises InvalidFileError with file, line and column for whatever is wrong with it."""
    return inventory_in(read_document(path))


def inventory_in(document: Document) -> Inventory:
    """Make an inventory of a file that was read. Raises as `read_inventory` does."""
    return _read(document, Inventory, cross_checks.of_inventory)


def read_playbook(path: Path, inventory: Inventory | None = None, *, whole: bool = False) -> Playbook:
    """
    Read a playbook; with *inventory*, what it says of workers and pools is checked too, and with *whole*, that it has evidence for every
    role (a rollout of some roles needs none for the others). Raises as `read_inventory` does.
    """
    document = read_document(path)
    playbook = _read(document, Playbook, partial(cross_checks.of_playbook, inventory=inventory), profiles.completed)
    if inventory is not None and whole and (problems := list(cross_checks.of_evidence(playbook, inventory))):
        raise combined(document, _placed(document, problems))
    return playbook


def read_document(path: Path) -> Document:
    """Read a file, as far as its YAML goes. Raises InvalidFileError."""
    try:
        content = read_bounded(path, marked_yaml.BYTES_MAX)
    except (OSError, ValueError) as error:
        why = (error.strerror or "" if isinstance(error, OSError) else str(error)).lower()
        remedy = _REMEDIES.get(type(error), "another path")
        raise InvalidFileError("the file can't be read", where=str(path), why=why, remedy=remedy) from error
    return marked_yaml.parse(str(path), content)


def combined(document: Document, placed: list[tuple[Place, Problem]]) -> InvalidFileError:
    """Make one error of all problems, from top to bottom."""
    (place, first), *others = sorted(placed, key=_order)
    also = [
        f"also {document.name}:{where.line}:{where.column}: {problem.what}" + (f" (try: {problem.remedy})" if problem.remedy else "")
        for where, problem in others[: _PROBLEMS_SHOWN_MAX - 1]
    ]
    if len(placed) > _PROBLEMS_SHOWN_MAX:
        also.append(f"and {len(placed) - _PROBLEMS_SHOWN_MAX} more")
    return document.error(place, first.what, why="\n".join(also), remedy=first.remedy)


def _as_written(root: marked_yaml.Value) -> object:
    return root


def _read(
    document: Document,
    kind: type[_Model],
    cross_check: Callable[[_Model], Iterable[Problem]],
    completed: Callable[[marked_yaml.Value], object] = _as_written,
) -> _Model:
    """Read what the file says, *completed* by what it needn't say: where that is wrong, what the file says is what makes it so."""
    schema = kind.model_json_schema()
    first = [(place, _fitting(document, problem, schema)) for place, problem in document.problems]
    model, wrong = _validated(kind, completed(document.root)), []
    if isinstance(model, ValidationError):
        told = {problem.path for _, problem in first}
        found = Wording(document.root, schema, document.texts).problems(model.errors(include_url=False))
        wrong = [problem for problem in found if problem.path not in told]
    problems = [problem for _, problem in first] + wrong
    hides_names = any(map(_hides_names, problems))
    if problems and not hides_names:
        # Of keys that appear twice the first is there, and those that are none are not.
        to_remove = [problem.path for _, problem in first if not problem.at_key] + [problem.path for problem in wrong]
        model = _validated(kind, completed(_without(document.root, to_remove, schema)))
    placed = first + _placed(document, wrong)
    if not isinstance(model, ValidationError) and not hides_names:
        # What is wrong in an entry may be why something else doesn't fit there.
        entries = {problem.path[:_ENTRY_DEPTH] for problem in problems}
        placed += _placed(document, [problem for problem in cross_check(model) if problem.path[:_ENTRY_DEPTH] not in entries])
    if isinstance(model, ValidationError) or placed:
        raise combined(document, placed)
    return model


def _fitting(document: Document, problem: Problem, schema: Schema) -> Problem:
    """Where it is known what is wanted, a trap of YAML has one remedy, not two."""
    written, plain = document.traps.get(problem.path, ("", ""))
    match (schemas.at(schema, problem.path) or {}).get("type"):
        case "string" if plain:
            return replace(problem, remedy=f'"{written}" in quotes')
        case "number" | "integer" if plain not in {"", "true", "false"}:
            return replace(problem, remedy=plain)
        case "number" | "integer" if plain or problem.remedy.endswith(" in quotes"):
            return replace(problem, remedy="a number")
        case None if plain and problem.path and str(problem.path[-1]).endswith(_OF_NUMBERS):
            # A driver's own setting, of which no more is known here.
            return replace(problem, remedy="a number" if plain in {"true", "false"} else plain)
        case _:
            return problem


def _validated(kind: type[_Model], root: object) -> _Model | ValidationError:
    try:
        # Through JSON, because pydantic's strict mode then still takes a list where the model has a tuple.
        return kind.model_validate_json(json.dumps(root), strict=True)
    except ValidationError as error:
        return error


def _placed(document: Document, problems: Iterable[Problem]) -> list[tuple[Place, Problem]]:
    return [(document.place(problem.path, key=problem.at_key), problem) for problem in problems]


def _order(placed: tuple[Place, Problem]) -> tuple[int, int, bool]:
    """Top to bottom; a misspelt key comes before what is missing because of it."""
    place, problem = placed
    return place.line, place.column, not problem.at_key


def _hides_names(problem: Problem) -> bool:
    """Tell whether something that others name may be in what is wrong: they would then seem to name nothing."""
    return len(problem.path) <= _ENTRY_DEPTH and not _NAMED.isdisjoint((*problem.path[:1], problem.remedy))


def _without(root: marked_yaml.Value, paths: Iterable[marked_yaml.Path], schema: Schema) -> marked_yaml.Value:
    """Leave out what is wrong (of a list, all of it), so that the rest can be checked; a text that must be there is replaced by another."""
    rest = copy.deepcopy(root)
    # The deepest first, while what they are in is still there.
    for path in sorted(map(_field_of, paths), key=len, reverse=True):
        parent: Any = rest
        for part in path[:-1]:
            parent = parent[part]
        if not path or not isinstance(parent, dict):
            continue
        if path[-1] in schemas.required(schema, path[:-1]) and (schemas.at(schema, path) or {}).get("type") == "string":
            parent[path[-1]] = "-"
        else:
            parent.pop(path[-1], None)
    return rest


def _field_of(path: marked_yaml.Path) -> marked_yaml.Path:
    """Follow an entry of a list up to what has the list."""
    return _field_of(path[:-1]) if path and isinstance(path[-1], int) else path
