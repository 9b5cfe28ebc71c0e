"""The machine's clock."""

import time


class SystemClock:
    """See ports.clock."""

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()
