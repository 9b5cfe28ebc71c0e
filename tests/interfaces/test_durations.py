"""How long is said on a command line as people write it."""

import click
import pytest

from rollout.interfaces.cli.durations import Duration


@pytest.mark.parametrize(("written", "seconds"), [("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("1h", 3600.0), ("1.5m", 90.0), (2.0, 2.0)])
def test_seconds_minutes_and_hours_are_understood(written: object, seconds: float) -> None:
    assert Duration().convert(written, None, None) == seconds


@pytest.mark.parametrize("written", ["", "m", "5 m", "-5", "5d", "1e3", "0.5", "nan"])
def test_anything_else_is_refused_with_what_to_write(written: str) -> None:
    with pytest.raises(click.BadParameter, match=r"write 90, 90s, 5m or 1h|shorter than a second"):
        Duration().convert(written, None, None)
