"""
The file handles of every worker: how many are open, how they grow, and when they will be used up.

A database that stands still behind a lock uses them up within ten minutes: every request that waits holds one. By the time that most of
them are used it is late to wait for anything, so what counts besides the level is where it leads in ten minutes' time. A worker that was
restarted opens files for its users to come back, faster and faster less; that is no leak, so of the growth over the last two minutes and
over the later half of them the smaller one counts.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import NamedTuple

from rollout.homeservers.synapse.metrics import Counters
from rollout.model.conditions import FilesUsed
from rollout.model.gate import GuardReading
from rollout.model.ids import WorkerId

FILES_USED, FILES_PROJECTED = "files_used", "files_projected"
# So far ahead is looked, as long as it took in the incident that this is for.
AHEAD_S = 600.0
# Growth over less than this says nothing: a few users who come at once are not a leak.
GROWTH_MIN_S = 30.0
# What was longer ago says nothing about now.
KEPT_S = 120.0
# Of a worker that nobody measures otherwise, its file handles are read anew when they are older than this.
FRESH_S = 30.0
# A page that hangs costs every look its timeout.
ASK_AGAIN_S = 10.0


class _Seen(NamedTuple):
    at_s: float
    started_at_s: float
    open: float
    max: float


_at_s = attrgetter("at_s")


class Files:
    """What was seen of every worker's file handles in the last two minutes. One thread may record while another reads."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, tuple[_Seen, ...]] = {}
        self._untold: dict[WorkerId, tuple[float, str]] = {}

    def record(self, worker: WorkerId, at_s: float, counters: Counters | str) -> None:
        """Take in a page that was read at *at_s*, or why it could not be."""
        if isinstance(counters, str) or counters.open_files is None or not counters.files_max:
            self._untold[worker] = (at_s, counters if isinstance(counters, str) else "its page doesn't tell")
            return
        self._untold.pop(worker, None)
        now = _Seen(at_s, counters.started_at_s, counters.open_files, counters.files_max)
        before = self._seen.get(worker, ())
        if before and before[-1].started_at_s != now.started_at_s:
            before = ()
        # They stand in order, and all are of one process: what is too old, or later than now by a clock that was set, is at an end of them.
        since, until = bisect_left(before, at_s - KEPT_S, key=_at_s), bisect_left(before, at_s, key=_at_s)
        self._seen[worker] = (*before[since:until], now)

    def stale(self, workers: Collection[WorkerId], now_s: float) -> list[WorkerId]:
        """Name the workers that were not looked at lately; one that was asked in vain is left in peace for a while."""
        asked = {worker for worker, (at_s, _) in self._untold.items() if now_s - at_s < ASK_AGAIN_S}
        return [worker for worker in workers if worker not in asked and not self._lately(worker, now_s)]

    def used(self, worker: WorkerId, now_s: float) -> FilesUsed | None:
        """Say how many one uses; None when it was not looked at lately."""
        seen = self._lately(worker, now_s)
        if not seen:
            return None
        first, last = seen[0], seen[-1]
        measured_s = last.at_s - first.at_s
        later = seen[bisect_left(seen, first.at_s + measured_s / 2, key=_at_s)]
        growth = (
            None if measured_s < GROWTH_MIN_S else min(_growth(first, last), _growth(later, last) if later is not last else float("inf"))
        )
        return FilesUsed(last.open, last.max, measured_s, growth)

    def guards(self, workers: Collection[WorkerId], now_s: float) -> tuple[GuardReading, GuardReading]:
        """Say how full the fullest of *workers* is, and how full it will be; unknown as long as that is unknown of one of them."""
        all_used = {worker: self.used(worker, now_s) for worker in workers}
        unknown = {worker: self._untold.get(worker, (0.0, "not measured lately"))[1] for worker, used in all_used.items() if used is None}
        known = {worker: used for worker, used in all_used.items() if used is not None}
        if unknown or not known:
            why = next((f"{worker}: {why}" for worker, why in unknown.items()), "not measured yet")
            return GuardReading(FILES_USED, None, why), GuardReading(FILES_PROJECTED, None, why)
        fullest = max(known, key=lambda worker: known[worker].open / known[worker].max)
        return GuardReading(FILES_USED, known[fullest].open / known[fullest].max, _told(fullest, known[fullest])), _projected(known)

    def _lately(self, worker: WorkerId, now_s: float) -> tuple[_Seen, ...]:
        seen = self._seen.get(worker, ())
        return seen if seen and worker not in self._untold and now_s - seen[-1].at_s <= FRESH_S else ()


def _growth(earlier: _Seen, later: _Seen) -> float:
    return (later.open - earlier.open) / (later.at_s - earlier.at_s)


def _projected(known: Mapping[WorkerId, FilesUsed]) -> GuardReading:
    shares = {worker: used.share_in(AHEAD_S) for worker, used in known.items()}
    short = next((worker for worker, share in shares.items() if share is None), None)
    if short is not None:
        why = f"{short}: measured for {known[short].measured_s:.0f} s, and {GROWTH_MIN_S:.0f} s are needed to say how they grow"
        return GuardReading(FILES_PROJECTED, None, why, short=True)
    fullest = max(known, key=lambda worker: shares[worker] or 0.0)
    return GuardReading(FILES_PROJECTED, shares[fullest], _told(fullest, known[fullest]))


def _told(worker: WorkerId, used: FilesUsed) -> str:
    growing = f", growing by {used.growth_per_s:.2g} a second" if used.growth_per_s is not None and used.growth_per_s > 0 else ""
    return f"{worker}: {used.open:.0f} of {used.max:.0f}{growing}"
