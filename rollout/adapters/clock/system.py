"""The machine's clock."""

import time


class SystemClock:
    """
    See ports.clock.

    Set once, when it is made: whoever sets the machine's clock back during a rollout must not stop its time.
    """

    def __init__(self) -> None:
        self._zero_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self._zero_s + time.monotonic()

    def elapsed_s(self) -> float:
        """See ports.clock."""
        # Unlike the monotonic clock, this one doesn't stand still while a laptop is closed.
        return time.clock_gettime(time.CLOCK_BOOTTIME)
