"""
YAML, without its traps, and with the place of every value.

PyYAML reads YAML 1.1, in which `no` is false, `010` is eight and `12:30` is 750. A person who writes those into a playbook means something
else, so each of them is refused with what it would have become; nothing is converted silently. Aliases are refused too: they hide what a
worker really gets, and a file of a few lines can expand to gigabytes. Nesting is bounded before anything recursive sees it.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from rollout.model.errors import InvalidFileError

# An inventory of a thousand workers is about 200 kB; more than this is the wrong file.
BYTES_MAX = 1_000_000
# The models nest to six.
NESTING_MAX = 32

Path = tuple[str | int, ...]
Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]

# A value that shall stay out of messages: secrets are references, but a file that is wrong may hold one all the same.
_SECRET = re.compile(r"((?:password|passwd|secret|token|dsn|key)[\w-]*[\"']?\s*:\s*)(?![\"']?(?:env|file):)[^,}\s].*", re.IGNORECASE)
_YAML_1_1_WORDS = frozenset({"yes", "no", "on", "off"})
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")


class _Mark(Protocol):
    """PyYAML's own, from either of its two parsers; counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A line and column, counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """Plain values, and where each value and each key of a mapping stands."""

    name: str
    lines: tuple[str, ...]
    root: Value = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Find where *path* stands; of a path that isn't in the file, its nearest parent."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(1, 1))

    def error(self, place: Place, what: str, *, why: str = "", remedy: str = "") -> InvalidFileError:
        """Make the error that names the file, the place and the offending line."""
        line = self.lines[place.line - 1] if place.line <= len(self.lines) else ""
        shown = f"│ {_without_secrets(line)}" if line.strip() else ""
        return InvalidFileError(
            what,
            where=f"{self.name}:{place.line}:{place.column}",
            why="\n".join(part for part in (shown, why) if part),
            remedy=remedy,
        )


def parse(name: str, content: bytes) -> Document:
    """
    Read one YAML document whose top is a mapping. *name* is only used in messages.

    Raises InvalidFileError for anything else: too big, not UTF-8, empty, several documents, duplicate keys, aliases, a value that YAML 1.1
    would change.
    """
    if len(content) > BYTES_MAX:
        raise InvalidFileError(f"the file is larger than {BYTES_MAX:,} bytes", where=name, remedy="name an inventory or a playbook")
    document = Document(name, ())
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise document.error(
            Place(line, column),
            "not UTF-8",
            why=f"byte 0x{content[error.start]:02x} at offset {error.start}",
            remedy="save the file as UTF-8",
        ) from None
    # The same line ends that YAML knows, so that marks and lines agree.
    document.lines = tuple(re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text))
    try:
        _bound(document, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark or error.context_mark)
        raise document.error(place, "not valid YAML", why=", ".join(filter(None, (error.context, error.problem)))) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise document.error(Place(line, column), "not valid YAML", why=error.reason) from None
    if node is None:
        raise InvalidFileError("the file is empty", where=name)
    document.root = _convert(document, (), node)
    if not isinstance(document.root, dict):
        raise document.error(document.place(()), "expected a mapping (`key: value`) at the top of the file")
    return document


def _place(mark: _Mark | None) -> Place:
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _bound(document: Document, text: str) -> None:
    """Refuse aliases and deep nesting from the stream of events, which is read without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise document.error(place, f"the alias *{event.anchor} is not supported", remedy="write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > NESTING_MAX:
                raise document.error(place, f"nested more than {NESTING_MAX} deep")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _convert(document: Document, path: Path, node: yaml.Node) -> Value:
    document.values[path] = place = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, path, node)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(document, (*path, index), child) for index, child in enumerate(node.value)]
    return _scalar(document, place, node)


def _mapping(document: Document, path: Path, node: yaml.MappingNode) -> dict[str, Value]:
    mapping: dict[str, Value] = {}
    for key_node, value_node in node.value:
        place = _place(key_node.start_mark)
        key = _scalar(document, place, key_node) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise document.error(place, "a key must be text", remedy="put it in quotes")
        if key in mapping:
            first = document.keys[(*path, key)]
            raise document.error(place, f'the key "{key}" appears twice', why=f"first in line {first.line}", remedy="remove one of them")
        document.keys[(*path, key)] = place
        mapping[key] = _convert(document, (*path, key), value_node)
    return mapping


def _scalar(document: Document, place: Place, node: yaml.Node) -> str | int | float | bool | None:
    text = str(node.value)
    match node.tag:
        case "tag:yaml.org,2002:str":
            return text
        case "tag:yaml.org,2002:null":
            return None
        case "tag:yaml.org,2002:bool" if text.lower() not in _YAML_1_1_WORDS:
            return text.lower() == "true"
        case "tag:yaml.org,2002:int" if _DECIMAL.match(text):
            return int(text)
        case "tag:yaml.org,2002:float" if ":" not in text and "_" not in text:
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if math.isfinite(number):
                return number
            raise document.error(place, f"{text} is not a finite number")
        case "tag:yaml.org,2002:bool" | "tag:yaml.org,2002:int" | "tag:yaml.org,2002:float" | "tag:yaml.org,2002:timestamp":
            became = yaml.safe_load(text)
            raise document.error(
                place,
                f"YAML reads {text} as {json.dumps(became, default=str)}",
                remedy=f'"{text}" in quotes if it is text, otherwise the value itself',
            )
        case _:
            raise document.error(
                place, f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not supported", remedy="write the plain value"
            )


def _without_secrets(line: str) -> str:
    return _SECRET.sub(r"\1…", line)


def reading_of(value: Value) -> str:
    """Describe a value in a message."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the truth value {json.dumps(value)}"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list():
            return "a list"
        case Mapping():
            return "a mapping"
