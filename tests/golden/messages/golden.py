"""Texts as they were last approved, with what differs from run to run left out."""

from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def matches(request: pytest.FixtureRequest, name: str, printed: str, placeholders: Mapping[str, str]) -> None:
    """Compare with the text called *name*, or write it anew; each of *placeholders* stands for what it is mapped to, longest first."""
    for found in sorted(placeholders, key=len, reverse=True):
        printed = printed.replace(found, placeholders[found])
    golden = HERE / f"{name}.txt"
    if request.config.getoption("--update-golden", default=False):
        golden.write_text(printed, encoding="utf-8")
    assert printed == golden.read_text(encoding="utf-8")
