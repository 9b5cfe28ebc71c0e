"""Time that moves when it is told to, and what happens by itself meanwhile."""

import heapq
import itertools
from collections.abc import Callable


class VirtualClock:
    """Seconds since the epoch; begins at *at_s*."""

    # What the tool's own clock shows more than this one (see ToolClock).
    ahead_s = 0.0

    def __init__(self, at_s: float = 1_000_000.0) -> None:
        self._at_s = at_s
        self._order = itertools.count()
        self._later: list[tuple[float, int, Callable[[], object]]] = []

    def now_s(self) -> float:
        """Tell the time."""
        return self._at_s

    def elapsed_s(self) -> float:
        """See ports.clock."""
        return self._at_s

    def advance_to(self, at_s: float) -> None:
        """Move on, through everything that happens by then; an earlier time moves nothing."""
        while self._later and self._later[0][0] <= at_s:
            due_s, _, happen = heapq.heappop(self._later)
            self._at_s = max(self._at_s, due_s)
            happen()
        self._at_s = max(self._at_s, at_s)

    def later(self, seconds: float, happen: Callable[[], object]) -> None:
        """Let something happen by itself in a while."""
        heapq.heappush(self._later, (self._at_s + seconds, next(self._order), happen))


class ToolClock(VirtualClock):
    """The clock of the machine that the tool runs on: it shows *ahead_s* more than the homeserver's, less if negative."""

    def __init__(self, world: VirtualClock) -> None:
        super().__init__()
        self._world = world
        self.ahead_s = 0.0

    def now_s(self) -> float:
        """Tell the time as the tool sees it."""
        return self._world.now_s() + self.ahead_s

    def elapsed_s(self) -> float:
        """See ports.clock."""
        return self._world.elapsed_s()

    def advance_to(self, at_s: float) -> None:
        """Let the world move on until this clock shows *at_s*."""
        self._world.advance_to(at_s - self.ahead_s)

    def later(self, seconds: float, happen: Callable[[], object]) -> None:
        """Let something happen by itself in a while, however this clock is set meanwhile."""
        self._world.later(seconds, happen)
