"""How long, as people write it on a command line: 90, 90s, 5m, 1h."""

import re

import click

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")


class Duration(click.ParamType[float]):
    """A positive number of seconds, or of the unit that follows it."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds, at least one; anything else is a usage error."""
        if isinstance(value, float):
            return value
        if (written := _WRITTEN.fullmatch(str(value))) is None:
            self.fail(f"{value!r} is no duration: write 90, 90s, 5m or 1h", param, ctx)
        seconds = float(written[1]) * _UNITS_S[written[2]]
        if seconds < 1:
            self.fail(f"{value} is shorter than a second", param, ctx)
        return seconds
