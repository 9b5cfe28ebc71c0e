"""The clock of a rollout whose journal ends in the future."""

from rollout.ports.clock import Clock


class AheadClock:
    """
    See ports.clock: *by_s* ahead of another, so that time goes on from where a journal ends.

    What a host says of its own time (when a process started, when a link was switched) stays as it is. It is compared with itself, but for
    two things: a restart in doubt counts as not done, and is done again while its worker is out; and the first seconds of a new process
    can't be measured.
    """

    def __init__(self, clock: Clock, by_s: float) -> None:
        self._clock = clock
        self._by_s = by_s

    def now_s(self) -> float:
        """Seconds since the epoch, and *by_s* more."""
        return self._clock.now_s() + self._by_s

    def elapsed_s(self) -> float:
        """See ports.clock."""
        return self._clock.elapsed_s()
