"""What a person may have meant by text where a number is wanted: nothing is converted silently, but the remedy can be exact."""

import re

_UNITS_S = {
    "ms": 0.001,
    **dict.fromkeys(("s", "sec", "second"), 1),
    **dict.fromkeys(("m", "min", "minute"), 60),
    **dict.fromkeys(("h", "hour"), 3600),
    **dict.fromkeys(("d", "day"), 86_400),
}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_NUMBER = re.compile(r"\s*([-+]?\d+(?:\.\d+)?(?:e[-+]?\d{1,2})?)\s*(%?)\s*\Z", re.IGNORECASE)
# `1,5` is one and a half to many; `1,500` is anybody's guess.
_COMMA = re.compile(r"\s*(\d+),(\d{1,2}|\d{4,})\s*\Z")
_UNITS_BYTES = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(rf"\s*(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS_BYTES)})\s*\Z", re.IGNORECASE)
# Longer than any number that is meant.
_CHARACTERS_MAX = 40


def meant_by(text: str, *, seconds: bool, percent: bool, size: bool = False) -> float | None:
    """
    Read "90", "50%" (a fraction, unless the field is in *percent*), "1,5" and, for a field in *seconds*, "90s", "5 min", "1m30s", or "16MB"
    for a *size*.

    None when it isn't clear what is meant.
    """
    if len(text) > _CHARACTERS_MAX:
        return None
    if number := _NUMBER.match(text):
        value = float(number[1])
        return value / 100 if number[2] and not percent else value
    if comma := _COMMA.match(text):
        return float(f"{comma[1]}.{comma[2]}")
    if size and (found := _SIZE.match(text)):
        return float(found[1]) * _UNITS_BYTES[found[2].lower()]
    return _duration_s(text) if seconds else None


def _duration_s(text: str) -> float | None:
    total_s, at = 0.0, 0
    while part := _PART.match(text, at):
        unit = part[2].lower()
        scale = _UNITS_S.get(unit, _UNITS_S.get(unit.removesuffix("s")))
        if scale is None:
            return None
        total_s += float(part[1]) * scale
        at = part.end()
    return total_s if at and not text[at:].strip() else None
