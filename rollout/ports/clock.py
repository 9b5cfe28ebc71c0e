"""Time, so that a simulation can have its own."""

from typing import Protocol


class Clock(Protocol):
    """What time it is, and how much has gone by."""

    def now_s(self) -> float:
        """Tell the time, in seconds since the epoch."""
        ...

    def elapsed_s(self) -> float:
        """Tell the seconds that have gone by since some moment, whoever sets the clock; those count too in which the machine slept."""
        ...
