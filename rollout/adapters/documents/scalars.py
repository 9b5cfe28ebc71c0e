"""
What a plain scalar of YAML 1.1 becomes.

PyYAML reads YAML 1.1, in which `no` is false, `010` is eight and `12:30` is 750. A person who writes those into a playbook means something
else, so each of them is refused with what it would have become; nothing is converted silently.
"""

import json
import math
import re

import yaml

_YAML_1_1_WORDS = frozenset({"yes", "no", "on", "off"})
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_OCTAL = re.compile(r"([-+]?)0[0-7_]+\Z")
# What YAML allows, but for line ends and the tab.
UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# More than any number or date has that is meant; also keeps Python from refusing, which it does at thousands of digits.
_CHARACTERS_MAX = 40
_PREFIX = "tag:yaml.org,2002:"

Scalar = str | int | float | bool | None


class TrapError(Exception):
    """
    A scalar that would not become what it looks like.

    *plain* is how to write it as a number or a truth value, if that can be said; *remedy* is for where it isn't known what is wanted.
    """

    def __init__(self, what: str, remedy: str, *, plain: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.plain = plain


def read_scalar(tag: str, text: str) -> Scalar:
    """Return what *text* becomes, by the *tag* that YAML gave it. Raises TrapError."""
    kind = tag.removeprefix(_PREFIX)
    if kind == "str":
        if found := UNPRINTABLE.search(text):
            raise TrapError(f"an escape for a character that is no text: 0x{ord(found[0]):02x}", "text without it")
        return text
    if kind == "null":
        return None
    if kind == "merge":
        raise TrapError("the merge key << is not supported", "write the keys out")
    if len(text) > _CHARACTERS_MAX:
        raise TrapError(f"a number of {len(text)} characters", "a smaller number")
    if kind == "bool" and text.lower() not in _YAML_1_1_WORDS:
        return text.lower() == "true"
    if kind == "int" and _DECIMAL.match(text):
        return int(text)
    if kind == "float" and ":" not in text and "_" not in text:
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if math.isfinite(number):
            return number
        raise TrapError(f"{text} is not a finite number", "a number")
    raise _trap(kind, text)


def _trap(kind: str, text: str) -> TrapError:
    quoted = f'"{text}" in quotes'
    if kind in {"timestamp", "value"}:
        return TrapError(f"YAML reads {text} as {'a date' if kind == 'timestamp' else 'a sign of its own'}", quoted)
    try:
        became = json.dumps(yaml.safe_load(text))
    except ValueError:
        return TrapError(f"YAML reads {text} as a number, and can't tell which", quoted)
    octal = _OCTAL.match(text)
    # Whoever writes 010 means ten.
    meant = octal[1] + (text[octal.end(1) :].replace("_", "").lstrip("0") or "0") if octal else became
    return TrapError(f"YAML reads {text} as {became}", f"{meant}, or {quoted} if it is text", plain=meant)
