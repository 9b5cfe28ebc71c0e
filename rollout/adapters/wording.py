"""What pydantic finds wrong with a file or with a driver's settings, in our words: what must be there, what is, what to write."""

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import ErrorDetails

from rollout.adapters import schemas, secrecy
from rollout.adapters.problem import Problem
from rollout.adapters.quantities import meant_by
from rollout.adapters.schemas import Path, Schema
from rollout.adapters.secrecy import without_credentials

# Long enough for any name or number that is meant.
_CHARACTERS_MAX = 60
# These are written in percent; every other share is a fraction.
_PERCENT = frozenset({"weights", "down"})
_NO_NUMBER = re.compile(r"(?:could not convert string to float|invalid literal for int\(\) with base 10): (.*)")
# Raised by our own validators, with a remedy of their own (settings.py).
OWN = "own"


def reason_of(error: Exception) -> str:
    """Return what an error says, shortened; of a number that is none without Python's words for it."""
    number = _NO_NUMBER.match(str(error))
    return shortened(f"{number[1]} is no number" if number else str(error))


def shortened(text: str) -> str:
    """Return *text* so that it can stand in a sentence, however long it is and whatever is in it."""
    printable = "".join(one if one.isprintable() else "�" for one in without_credentials(text)[: _CHARACTERS_MAX + 1])
    return printable if len(printable) <= _CHARACTERS_MAX else f"{printable[:_CHARACTERS_MAX]}…"


def nearest(name: str, known: Collection[str]) -> str:
    """Say which of *known* may have been meant, or which there are."""
    close = list(known) if len(known) == 1 else difflib.get_close_matches(name, known, n=1)
    return close[0] if close else f"one of {', '.join(known)}"


def reading_of(value: object, written: str = "") -> str:
    """Describe a value in a message; *written* is how a number stands in the file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {json.dumps(value)}"
        case int() | float():
            return f"the number {shortened(written or repr(value))}"
        case str():
            return f'the text "{shortened(value)}"'
        case list():
            return "a list"
        case _:
            return "a mapping"


@dataclass(frozen=True, slots=True)
class Wording:
    """
    *root* is what was checked, *schema* what it was checked against; *texts* has numbers as they were written, *above* is where *root*
    stands in the file.
    """

    root: object
    schema: Schema
    texts: Mapping[Path, str] = field(default_factory=dict)
    above: Path = ()

    def problems(self, errors: Iterable[ErrorDetails]) -> list[Problem]:
        """Word them all, but for those that only follow from others."""
        found: dict[tuple[Path, bool], Problem] = {}
        missing: list[ErrorDetails] = []
        for details in errors:
            if details["type"] == "missing":
                missing.append(details)
            elif not _only_follows(details):
                problem = self._problem(details)
                # Of a union there is one error for each of its branches, the simplest first.
                found.setdefault((problem.path, problem.at_key), problem)
        # A list in a list was meant as one: what is wrong is in it.
        meant = {path[:-1] for path, _ in found if len(path) > 1 and isinstance(path[-1], int) and isinstance(path[-2], int)}
        found = {(path, at_key): problem for (path, at_key), problem in found.items() if path not in meant}
        misspelt = {(*problem.path[:-1], problem.remedy) for problem in found.values() if problem.at_key}
        gaps = [self._missing(details) for details in missing if (*self._path(details), str(details["loc"][-1])) not in misspelt]
        return [*found.values(), *gaps]

    def _problem(self, details: ErrorDetails) -> Problem:
        path = self._path(details)
        name = self._name(path)
        context: Mapping[str, Any] = details.get("ctx", {})
        match details["type"]:
            case "extra_forbidden":
                key = str(details["loc"][-1])
                what = f'unknown key "{shortened(key)}"'
                return Problem(path, what, nearest(key, sorted(schemas.keys(self.schema, path[:-1]))), at_key=True)
            case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
                return self._out_of_bounds(path, name, context)
            case "string_too_short" | "too_short":
                remedy = "what belongs there, or no such entry" if isinstance(path[-1], int) else f"{name}: {self._shape(path)}"
                return Problem(path, f"{name} is empty", remedy)
            case "enum" | "literal_error":
                return self._not_one_of(path, name, context)
            case "string_pattern_mismatch":
                # The only texts that have a pattern.
                return self._other_type(path, name, "a time of day from 00:00 to 23:59", '"06:00" in quotes')
            case kind if kind == OWN:
                return Problem(path, details["msg"], remedy=str(context["remedy"]))
            case kind:
                return self._wrong_type(kind, path, name) or Problem(
                    path, f"{name}: {details['msg']}", self._or_default(path, "another value")
                )

    def _wrong_type(self, kind: str, path: Path, name: str) -> Problem | None:
        match kind:
            case "string_type" | "path_type":
                return self._no_text(path, name)
            case "tuple_type" | "list_type":
                return self._no_list(path, name)
            case "model_type" | "dict_type":
                return self._no_mapping(path, name)
            case "int_type" | "int_from_float" | "float_type":
                return self._no_number(path, name, whole=kind != "float_type")
            case "bool_type":
                return self._other_type(path, name, "true or false", "true or false, without quotes")
            case _:
                return None

    def _name(self, path: Path) -> str:
        """Call it what its key is, with the key above where the person chose it."""
        if not path:
            return "the file"
        if isinstance(path[-1], int):
            return self._name(path[:-1]) if isinstance(path[-2], int) else f"an entry of {self._name(path[:-1])}"
        free = len(path) > 1 and not schemas.keys(self.schema, path[:-1])
        return f"{path[-2]}.{shortened(path[-1])}" if free else shortened(path[-1])

    def _missing(self, details: ErrorDetails) -> Problem:
        path, name = self._path(details), str(details["loc"][-1])
        return Problem(path, f'"{name}" is missing', remedy=f"{name}: {self._shape((*path, name))}")

    def _shape(self, path: Path) -> str:
        """Sketch what belongs there."""
        needed = schemas.required(self.schema, path)
        part = schemas.at(self.schema, path) or {}
        if part.get("type") == "array":
            return "[…]"
        entry = part.get("additionalProperties")
        if not needed and isinstance(entry, Mapping):
            return f"{{NAME: {self._shape((*path, 'NAME'))}}}"
        return f"{{{', '.join(f'{key}: …' for key in needed)}}}" if needed else "…"

    def _other_type(self, path: Path, name: str, wanted: str, remedy: str) -> Problem:
        value = self._at(path)
        there = reading_of(value, self.texts.get(path, ""))
        if value is None:
            remedy = self._or_default(path, f"{name}: …")
        elif secrecy.is_secret((*self.above, *path)):
            there = "what stands there"
            if not secrecy.is_secret_section(path):
                remedy = "env:NAME or file:PATH" if wanted == "text" else wanted
        return Problem(path, f"{name} must be {wanted}, not {there}", remedy=remedy)

    def _no_text(self, path: Path, name: str) -> Problem:
        match self._at(path):
            case list() if name == "pool":
                remedy = "one of them: a worker is in one pool"
            case list():
                remedy = "one of them, not in brackets"
            case int() | float():
                remedy = f'"{shortened(self._written(path))}" in quotes'
            case _:
                remedy = f"{name}: …"
        return self._other_type(path, name, "text", remedy)

    def _no_list(self, path: Path, name: str) -> Problem:
        value = self._at(path)
        remedy = f"[{shortened(self._written(path))}]" if isinstance(value, str | int | float) else "[…], or a line with `- ` for each"
        return self._other_type(path, name, "a list", remedy)

    def _no_number(self, path: Path, name: str, *, whole: bool) -> Problem:
        seconds = name.endswith("_s") or name == "seconds"
        wanted = "a whole number" if whole else "a number"
        value = self._at(path)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        meant: float | None = None
        if isinstance(value, str):
            meant = meant_by(value, seconds=seconds, percent=not _PERCENT.isdisjoint(path), size="bytes" in name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            meant = value
        if meant is None or (whole and meant != int(meant)):
            return self._other_type(path, name, wanted + (" of seconds" if seconds else ""), self._or_default(path, wanted))
        return self._other_type(path, name, wanted + (" of seconds" if seconds else ""), f"{meant:.12g}")

    def _no_mapping(self, path: Path, name: str) -> Problem:
        value = self._at(path)
        if name.endswith("_driver") and isinstance(value, str):
            remedy = f"{{driver: {'NAME' if secrecy.is_secret(path) else shortened(value)}}}"
        else:
            shape = self._shape(path)
            remedy = shape if shape != "…" else f"{{{next(iter(schemas.keys(self.schema, path)), 'key')}: …}}"
        return self._other_type(path, name, "a mapping", remedy)

    def _out_of_bounds(self, path: Path, name: str, context: Mapping[str, Any]) -> Problem:
        bound, words = next(
            (context[key], words)
            for key, words in (("gt", "more than {}"), ("ge", "{} or more"), ("lt", "less than {}"), ("le", "{} or less"))
            if key in context
        )
        value = self._at(path)
        share = bound == 1 and isinstance(value, int | float) and 1 < value <= 100  # noqa: PLR2004  (percent)
        remedy = f"{value / 100:g}" if share and isinstance(value, int | float) else self._or_default(path, words.format(f"{bound:g}"))
        what = f"{name} must be {words.format(f'{bound:g}')}, not {shortened(self._written(path))}"
        return Problem(path, what, remedy)

    def _not_one_of(self, path: Path, name: str, context: Mapping[str, Any]) -> Problem:
        known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        value = self._at(path)
        remedy = nearest(value, known) if isinstance(value, str) and len(known) > 1 else " or ".join(known)
        return self._other_type(path, name, f"one of {', '.join(known)}" if len(known) > 1 else known[0], remedy)

    def _or_default(self, path: Path, otherwise: str) -> str:
        part = schemas.at(self.schema, path) or {}
        default = part.get("default")
        if isinstance(default, int | float) and not isinstance(default, bool):
            return f"{default:.12g}, which it is if left out"
        return otherwise

    def _written(self, path: Path) -> str:
        value = self._at(path)
        return self.texts.get(path) or (value if isinstance(value, str) else json.dumps(value))

    def _path(self, details: ErrorDetails) -> Path:
        """Follow pydantic's location as far as there is something; it also names branches of unions, which nobody wrote."""
        path: Path = ()
        for part in details["loc"]:
            try:
                self._at((*path, part))
            except (LookupError, TypeError):
                continue
            path = (*path, part)
        return path

    def _at(self, path: Path) -> Any:  # noqa: ANN401  (whatever stands there)
        value: Any = self.root
        for part in path:
            value = value[part]
        return value


def _only_follows(details: ErrorDetails) -> bool:
    """A list all of whose entries are wrong is called too short as well."""
    return details["type"] == "too_short" and bool(details["input"])
