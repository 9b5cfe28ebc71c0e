"""Time, so that a simulation can have its own."""

from typing import Protocol


class Clock(Protocol):
    """Seconds since the epoch."""

    def now_s(self) -> float:
        """Tell the time."""
        ...
