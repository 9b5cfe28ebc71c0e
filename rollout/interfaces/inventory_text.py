"""
An inventory that was derived, as the file that a person goes on with; and what is left to do, for the terminal.

A line that begins with `# ?` says what the files don't: `# ? !` what must be filled in before the inventory can be used, `# ?` what should
be looked at. It stands above what it is about.
"""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping

from rollout.homeservers.synapse.deriving.derive import Derived
from rollout.homeservers.synapse.deriving.findings import Mark, Path
from rollout.model.listing import listed

_WIDTH = 140
_FILES_SHOWN_MAX = 3
_LEGEND = (
    "`# ? !` marks what the files don't say and the inventory can't do without, `# ?` what is worth a look. Every setting is explained in "
    "examples/lab/inventory.yaml."
)
# What YAML reads as nothing but text.
_PLAIN = re.compile(r"[A-Za-z/][\w./@-]*(?::[\w./@-]+)*\Z")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def inventory_text(derived: Derived, files: tuple[str, ...]) -> str:
    """Write it out, each mark above what it is about, and what contradicts at the top."""
    lines = [*_comment(f"Written by `rollout init` from {listed(files, _FILES_SHOWN_MAX)}.", "")]
    lines += _comment(_LEGEND, "")
    if derived.contradictions:
        lines += ["#", "# What was read contradicts itself:"]
        for one in derived.contradictions:
            lines += _comment(f"- {one.place}: {one.what}", "", "  ")
    written: set[int] = set()
    for key, value in derived.content.items():
        if key not in {"kind", "metrics_driver", "probe_driver"}:
            lines.append("")
        lines += _entry(derived, (key,), value, written)
    for index, mark in enumerate(derived.marks):
        if index not in written:
            # Of a section that isn't there.
            lines += ["", *_mark(mark, f"{'.'.join(mark.at)}: ", "")]
    return "\n".join(lines) + "\n"


def left_to_do(derived: Derived) -> str:
    """List contradictions and marks, the needed ones first; empty when there are none."""
    needed = [mark for mark in derived.marks if mark.needed]
    others = [mark for mark in derived.marks if not mark.needed]
    lines: list[str] = []
    if derived.contradictions:
        lines.append("what was read contradicts itself:")
        lines += [f"  {one.place}: {one.what}" for one in derived.contradictions]
    for head, marks in (("to fill in, before `rollout check` takes it:", needed), ("worth a look:", others)):
        if marks:
            lines.append(head)
            lines += [f"  {'.'.join(mark.at)}: {mark.why}\n      try: {mark.look}" for mark in marks]
    return "\n".join(map(_printable, "\n".join(lines).splitlines()))


def _entry(derived: Derived, path: Path, value: object, written: set[int]) -> Iterator[str]:
    indent = "  " * (len(path) - 1)
    for mark in _marks_at(derived, path, written):
        yield from _mark(mark, "", indent)
    remark = f"  # {derived.remarks[path]}" if path in derived.remarks else ""
    key = _scalar(path[-1])
    if isinstance(value, Mapping):
        yield f"{indent}{key}:"
        for mark in _marks_inside(derived, path, value, written):
            yield from _mark(mark, f"{'.'.join(mark.at[len(path) :])}: ", indent + "  ")
        for inner, one in value.items():
            yield from _entry(derived, (*path, str(inner)), one, written)
    elif isinstance(value, list):
        yield f"{indent}{key}: [{', '.join(map(_scalar, value))}]{remark}"
    else:
        yield f"{indent}{key}:{'' if value is None else f' {_scalar(value)}'}{remark}"


def _mark(mark: Mark, subject: str, indent: str) -> list[str]:
    return _comment(f"? {'! ' if mark.needed else ''}{subject}{mark.why}; try: {mark.look}", indent, "  ")


def _marks_at(derived: Derived, path: Path, written: set[int]) -> Iterator[Mark]:
    for index, mark in enumerate(derived.marks):
        if index not in written and mark.at == path:
            written.add(index)
            yield mark


def _marks_inside(derived: Derived, path: Path, value: Mapping[str, object], written: set[int]) -> Iterator[Mark]:
    """List the marks on something that would be in here, and isn't."""
    for index, mark in enumerate(derived.marks):
        if index not in written and len(mark.at) > len(path) and mark.at[: len(path)] == path and mark.at[len(path)] not in value:
            written.add(index)
            yield mark


def _comment(text: str, indent: str, hanging: str = "") -> list[str]:
    lead = f"{indent}# "
    return textwrap.wrap(
        _printable(text), _WIDTH, initial_indent=lead, subsequent_indent=lead + hanging, break_long_words=False, break_on_hyphens=False
    )


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("�", text)


def _scalar(value: object) -> str:
    """Write a value so that YAML reads just that."""
    text = str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, str) and _PLAIN.match(text) and text.lower() not in _WORDS):
        return text
    # A string of JSON is one of YAML.
    return json.dumps(text, ensure_ascii=False)
