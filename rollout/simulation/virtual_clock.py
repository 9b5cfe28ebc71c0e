"""Time that moves when it is told to."""


class VirtualClock:
    """Seconds since the epoch; begins at *at_s*."""

    def __init__(self, at_s: float = 1_000_000.0) -> None:
        self._at_s = at_s

    def now_s(self) -> float:
        """Tell the time."""
        return self._at_s

    def elapsed_s(self) -> float:
        """See ports.clock."""
        return self._at_s

    def advance_to(self, at_s: float) -> None:
        """Move on; an earlier time moves nothing."""
        self._at_s = max(self._at_s, at_s)
