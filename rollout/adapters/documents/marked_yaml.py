"""
YAML, without its traps, and with the place of every value.

Scalars that would not become what they look like are problems (scalars.py), and so are keys that appear twice or aren't text: they are
collected, so that all of them can be told at once. Aliases end the reading: they hide what a worker really gets, and a file of a few lines
can expand to gigabytes. So do tags, several documents and deep nesting, which is bounded before anything recursive sees it.
"""

import re
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from rollout.adapters import secrecy
from rollout.adapters.documents.scalars import UNPRINTABLE, Scalar, TrapError, read_scalar
from rollout.adapters.problem import Problem
from rollout.adapters.secrecy import without_credentials
from rollout.adapters.wording import reading_of, shortened
from rollout.model.errors import InvalidFileError

# libyaml reads a megabyte in a second, PyYAML's own parser in ten; what both say of where things are is the same.
_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# An inventory of a thousand workers is about 200 kB; more than this is the wrong file.
BYTES_MAX = 1_000_000
# The models nest to six.
NESTING_MAX = 32
# What is shown of a line in which something is wrong: so much before it, and so much in all.
_BEFORE_MAX = 60
_SHOWN_MAX = 140

Path = tuple[str | int, ...]
Value = Scalar | list["Value"] | dict[str, "Value"]

# For what can't be told by its place, such as what stands in a comment.
_SECRET = re.compile(r"((?:password|passwd|secret|token|dsn|key)[\w-]*[\"']?\s*:\s*)(?![\"']?(?:env|file):)[^,}\s].*", re.IGNORECASE)
# A trap of YAML would be told with what was written.
_NO_REFERENCE = ("a secret is written as env:NAME or file:PATH, not as itself", "env:NAME or file:PATH")
# Where no place is known, because it is no YAML, a line belongs to the section that was named last.
_SECTION = re.compile(r"\b(\w*driver\w*|homeserver|kind|workers|pools|name|strategy|gates|guards)[\"']?\s*:")
_DOUBLE = "remove one of them"
# Of some keys it can be said what having two of them would mean.
_DOUBLES = {"pool": f"{_DOUBLE}: a worker is in one pool"}


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
    """
    Plain values, and where each value and each key of a mapping stands.

    *texts* has the numbers as they were written (to whoever wrote 1.10 it is not 1.1). *problems* are YAML's own; in place of such a value
    stands nothing, and *traps* has it as it was written and as a plain number or truth value. *secrets* is where secrets may stand, from
    a place to a place, in the order of the file.
    """

    name: str
    lines: tuple[str, ...]
    root: Value = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    problems: list[tuple[Place, Problem]] = field(default_factory=list)
    traps: dict[Path, tuple[str, str]] = field(default_factory=dict)
    secrets: list[tuple[Place, Place]] = field(default_factory=list)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Find where *path* stands; of a path that isn't in the file, its nearest parent."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Place(1, 1))

    def error(self, place: Place, what: str, *, why: str = "", remedy: str = "") -> InvalidFileError:
        """Make the error that names the file, the place and the offending line."""
        line = self._shown(place.line) if place.line <= len(self.lines) else ""
        shown = f"│ {_around(_without_secrets(line), place.column)}" if line.strip() not in {"", secrecy.HIDDEN} else ""
        return InvalidFileError(
            what,
            where=f"{self.name}:{place.line}:{place.column}",
            why="\n".join(part for part in (shown, why) if part),
            remedy=remedy,
        )

    def may_hide(self, number: int) -> bool:
        """Tell whether a line of a file that is no YAML may have a secret in it."""
        if "driver" in self.lines[number - 1]:
            return True
        sections = _SECTION.findall("\n".join(self.lines[:number]))
        return bool(sections) and "driver" in sections[-1]

    def _shown(self, number: int) -> str:
        """Return a line without the secrets in it."""
        line = self.lines[number - 1]
        if () not in self.values:
            return "" if self.may_hide(number) else line
        for begin, end in reversed(self.secrets):
            if begin.line <= number <= end.line:
                first = begin.column - 1 if number == begin.line else len(line) - len(line.lstrip())
                last = end.column - 1 if number == end.line else len(line)
                line = line[:first] + secrecy.HIDDEN + line[last:] if first < last else line
        return line


def parse(name: str, content: bytes) -> Document:
    """
    Read one YAML document whose top is a mapping. *name* is only used in messages.

    Raises InvalidFileError for what is no such document at all: too big, not UTF-8, empty, several documents, aliases, tags.
    """
    if len(content) > BYTES_MAX:
        raise InvalidFileError(f"the file is larger than {BYTES_MAX:,} bytes", where=name, remedy="name an inventory or a playbook")
    document = Document(name, ())
    text = _decoded(document, content)
    # The same line ends that YAML knows, so that marks and lines agree.
    document.lines = tuple(re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text))
    if found := UNPRINTABLE.search(text):
        what = f"a character that is no text: 0x{ord(found[0]):02x}"
        raise document.error(_place_in(text, found.start()), what, remedy="remove it; a file of text has none")
    try:
        _bound(document, text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise _not_valid(document, error) from None
    if node is None:
        raise InvalidFileError(
            "the file is empty",
            where=f"{name}:1:1",
            remedy="begin with those in examples/ and playbooks/",
        )
    document.root = _convert(document, (), node)
    if not isinstance(document.root, dict):
        there = reading_of(document.traps[()][0] if () in document.traps else document.root)
        raise document.error(document.place(()), f"the top of the file is a mapping (`key: value`), not {there}", remedy="key: value")
    return document


def _decoded(document: Document, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise document.error(
            Place(line, column),
            "not UTF-8",
            why=f"byte 0x{content[error.start]:02x} at offset {error.start}",
            remedy="save the file as UTF-8",
        ) from None


def _place_in(text: str, offset: int) -> Place:
    return Place(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _not_valid(document: Document, error: yaml.MarkedYAMLError) -> InvalidFileError:
    """Say where it is no YAML, and, of the usual slips, what to do."""
    place = _place(error.problem_mark or error.context_mark)
    line = document.lines[place.line - 1] if place.line <= len(document.lines) else ""
    if not line.strip():
        # What doesn't end is found missing at the end of the file; worth seeing is where it begins.
        place = _place(error.context_mark or error.problem_mark)
    remedy = "indentation, brackets and quotes in this line or the one before"
    if "\t" in line[: place.column]:
        remedy = "spaces in place of the tab"
    elif error.context == "expected a single document in the stream":
        remedy = "one document: remove `---` and what follows it"
    why = ", ".join(filter(None, (error.context, error.problem)))
    return document.error(place, "not valid YAML", why=why, remedy=remedy)


def _place(mark: _Mark | None) -> Place:
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _bound(document: Document, text: str) -> None:
    """Refuse aliases, tags and deep nesting from the stream of events, which is read without recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        place = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            name = "" if document.may_hide(place.line) else f" *{shortened(event.anchor or '')}"
            raise document.error(place, f"the alias{name} is not supported", remedy="write the value out")
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and event.tag is not None:
            name = "" if document.may_hide(place.line) else f" {shortened(event.tag.replace('tag:yaml.org,2002:', '!!'))}"
            raise document.error(place, f"the tag{name} is not supported", remedy="the plain value, in quotes if it is text")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > NESTING_MAX:
                raise document.error(place, f"nested more than {NESTING_MAX} deep", remedy="name an inventory or a playbook")
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _convert(document: Document, path: Path, node: yaml.Node) -> Value:
    document.values[path] = place = _place(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, path, node)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(document, (*path, index), child) for index, child in enumerate(node.value)]
    try:
        value = read_scalar(node.tag, node.value)
    except TrapError as trap:
        if secrecy.is_secret(path):
            document.problems.append((place, Problem(path, *_NO_REFERENCE)))
            return None
        document.problems.append((place, Problem(path, trap.what, trap.remedy)))
        document.traps[path] = (node.value, trap.plain)
        return None
    if isinstance(value, int | float):
        document.texts[path] = node.value
    return value


def _mapping(document: Document, path: Path, node: yaml.MappingNode) -> dict[str, Value]:
    mapping: dict[str, Value] = {}
    for key_node, value_node in node.value:
        place = _place(key_node.start_mark)
        _note_secret(document, (*path, str(key_node.value)), value_node)
        key = _key(document, path, key_node)
        if key is None:
            continue
        if key in mapping:
            first = document.keys[(*path, key)]
            what = f'the key "{shortened(key)}" appears twice: first in line {first.line}'
            document.problems.append((place, Problem((*path, key), what, _DOUBLES.get(key, _DOUBLE), at_key=True)))
            continue
        document.keys[(*path, key)] = place
        mapping[key] = _convert(document, (*path, key), value_node)
    return mapping


def _note_secret(document: Document, path: Path, node: yaml.Node) -> None:
    """Remember where it stands, if it may be one and isn't in one already."""
    begin, end = _place(node.start_mark), _place(node.end_mark)
    if document.secrets and (document.secrets[-1][1].line, document.secrets[-1][1].column) > (begin.line, begin.column):
        return
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    if secrecy.is_secret(path):
        # Of a section each setting is looked at by itself.
        shown = secrecy.is_reference(text) or (secrecy.is_secret_section(path) and isinstance(node, yaml.MappingNode))
    else:
        shown = not secrecy.is_secret_section(path[:1]) or secrecy.plain_name(text) == text
    if not shown:
        document.secrets.append((begin, end))


def _key(document: Document, path: Path, node: yaml.Node) -> str | None:
    """Return a key; None when it is none, and a problem."""
    what, remedy = "a key must be text", "one word"
    if isinstance(node, yaml.ScalarNode):
        try:
            key = read_scalar(node.tag, node.value)
        except TrapError as trap:
            what, remedy = trap.what, f'"{shortened(node.value)}" in quotes' if trap.plain else trap.remedy
        else:
            if isinstance(key, str) and key and key == key.strip():
                return key
            if isinstance(key, str):
                # The models strip what they read: two keys that differ in spaces would become one.
                what = "the key has spaces around it" if key.strip() else "the key is empty"
                remedy = shortened(key.strip()) or "a name"
                document.problems.append((_place(node.start_mark), Problem((*path, key), what, remedy, at_key=True)))
                return None
            remedy = f'"{shortened(node.value)}" in quotes'
    document.problems.append((_place(node.start_mark), Problem((*path, str(node.value)), what, remedy, at_key=True)))
    return None


def _without_secrets(line: str) -> str:
    return without_credentials(_SECRET.sub(r"\1…", line))


def _around(line: str, column: int) -> str:
    """Cut a long line down to what is around *column*."""
    begin = 0 if len(line) <= _SHOWN_MAX else max(0, column - 1 - _BEFORE_MAX)
    shown = UNPRINTABLE.sub("�", line[begin : begin + _SHOWN_MAX].rstrip())
    return ("…" if begin else "") + shown + ("…" if begin + _SHOWN_MAX < len(line) else "")
