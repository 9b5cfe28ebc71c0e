"""
How the workers keep up: for how long one lets wait what comes to it, and how far one is behind the others.

A Synapse process is one thread, Twisted's reactor. While that is busy with one thing everything else that comes to this worker waits, and
the histogram of its turns says for how long. Of ten thousand short turns and one long one the mean says nothing, so it is the time that 99
of 100 turns keep to, over the last two minutes.

A worker hears from the others over replication. Its pages say how far it knows each stream, and pages of two workers are never of the same
moment, so positions aren't subtracted: what some worker knew a while ago, and another doesn't know now, is as long late as that is ago.
A connection that is gone shows here as well, where a queue of commands would be empty. Since when it is late can be said only of what
somebody was seen to come to know: who is behind what others knew when they were first looked at is late since nobody knows when.

Source: synapse/metrics/_reactor_metrics.py and synapse/storage/util/id_generators.py of 1.163.2.
"""

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

from rollout.homeservers.synapse.metrics import TICK_EDGES_S, Counters
from rollout.model.gate import GuardReading
from rollout.model.ids import WorkerId

REACTOR_TICK, REPLICATION_LAG = "reactor_tick_s", "replication_lag_s"
# What was longer ago says nothing about now; over less than the other a turn or two would decide.
KEPT_S = 120.0
TICKS_OVER_S = 10.0
# Of a worker that nobody measures otherwise, pages are read anew when they are older than this (engine/files.py).
FRESH_S = 45.0
SHARE = 0.99


class _Reached(NamedTuple):
    """
    Somebody was seen to know a stream up to *position*, further than anybody before.

    *news* tells that the same worker was looked at shortly before, so that it came to know it about then, and not long before *at_s*.
    """

    at_s: float
    position: float
    news: bool


class _Seen(NamedTuple):
    """A page. By stream *behind* has the first of what others were seen to know by then and this worker did not."""

    at_s: float
    started_at_s: float
    ticks: tuple[float, ...]
    positions: Mapping[str, float]
    behind: Mapping[str, _Reached]


class Strain:
    """What was seen of every worker in the last two minutes. One thread may record while another reads."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, tuple[_Seen, ...]] = {}
        # By stream, oldest first.
        self._reached: dict[str, tuple[_Reached, ...]] = {}
        self._tells: set[str] = set()

    def record(self, worker: WorkerId, at_s: float, counters: Counters | str) -> None:
        """Take in a page that was read at *at_s*; one that could not be read is told by its age."""
        if isinstance(counters, str) or not (counters.ticks or counters.positions):
            return
        if counters.ticks:
            self._tells.add(REACTOR_TICK)
        if counters.positions:
            self._tells.add(REPLICATION_LAG)
        lately = tuple(one for one in self._seen.get(worker, ()) if at_s - KEPT_S <= one.at_s < at_s)
        before = tuple(one for one in lately if one.started_at_s == counters.started_at_s)
        for stream, position in counters.positions.items():
            all_reached = self._reached.get(stream, ())
            # The last one before is what everybody should know by now, however long ago that was.
            earlier = tuple(one for one in all_reached if one.at_s < at_s - KEPT_S)[-1:]
            reached = (*earlier, *(one for one in all_reached if at_s - KEPT_S <= one.at_s <= at_s)) or all_reached[-1:]
            if not reached or position > reached[-1].position:
                news = bool(lately) and stream in lately[-1].positions
                self._reached[stream] = (*reached, _Reached(at_s, position, news))
        behind = self._behind(counters.positions, before[-1].behind if before else {})
        self._seen[worker] = (*before, _Seen(at_s, counters.started_at_s, counters.ticks, counters.positions, behind))

    def _behind(self, positions: Mapping[str, float], before: Mapping[str, _Reached]) -> dict[str, _Reached]:
        """Say what a worker with these *positions* has not heard first of all, by stream; *before* is what it was on its last page."""
        behind: dict[str, _Reached] = {}
        for stream, position in positions.items():
            reached = self._reached.get(stream, ())
            first = next((one for one in reached if one.position > position), None)
            if first is None:
                continue
            # All that is kept is further: the first of it may be forgotten, and is what it was, or isn't known.
            behind[stream] = before.get(stream, first._replace(news=False)) if first is reached[0] else first
        return behind

    def guards(self, workers: Collection[WorkerId], now_s: float) -> tuple[GuardReading, ...]:
        """Say how the worst of *workers* does; unknown as long as that is unknown of one of them. Nothing where no page tells of it."""
        fresh = {worker: seen for worker in workers if (seen := self._seen.get(worker, ())) and now_s - seen[-1].at_s <= FRESH_S}
        blind = next((f"{worker}: not measured lately" for worker in workers if worker not in fresh), "" if fresh else "not measured yet")
        readings = ((REACTOR_TICK, _tick), (REPLICATION_LAG, self._lag))
        return tuple(
            GuardReading(guard, None, blind) if blind else _worst(guard, {worker: of(seen) for worker, seen in fresh.items()})
            for guard, of in readings
            if guard in self._tells
        )

    def _lag(self, seen: tuple[_Seen, ...]) -> "_Told":
        first, last = seen[0], seen[-1]
        if not last.positions:
            return _Told(None, "its page doesn't tell")
        if last.at_s - first.at_s < TICKS_OVER_S:
            return _too_short(first, last)
        # By what is known of the others now: they may have been looked at for the first time since its page.
        behind = self._behind(last.positions, last.behind)
        untold = next((stream for stream, one in behind.items() if not one.news), None)
        if untold is not None:
            return _Told(None, f"behind in stream {untold} since before it was measured")
        if not behind:
            return _Told(0.0, "")
        stream = min(behind, key=lambda name: behind[name].at_s)
        return _Told(max(0.0, last.at_s - behind[stream].at_s), f"stream {stream}")


class _Told(NamedTuple):
    """What is known of one worker, and the rest of the sentence; or why nothing is, and whether measuring on will tell."""

    value: float | None
    detail: str
    short: bool = False


def _too_short(first: _Seen, last: _Seen) -> _Told:
    return _Told(None, f"measured for {last.at_s - first.at_s:.0f} s, and {TICKS_OVER_S:.0f} s are needed", short=True)


def _tick(seen: tuple[_Seen, ...]) -> _Told:
    first, last = seen[0], seen[-1]
    if not first.ticks or len(first.ticks) != len(last.ticks):
        return _Told(None, "its page doesn't tell")
    if last.at_s - first.at_s < TICKS_OVER_S:
        return _too_short(first, last)
    counts = [now - before for before, now in zip(first.ticks, last.ticks, strict=True)]
    total = sum(counts)
    if total <= 0 or min(counts) < 0:
        # A reactor turns even when nobody asks anything of it: its own clocks wake it.
        return _Told(None, f"its reactor has not turned for {last.at_s - first.at_s:.0f} s")
    reached = 0.0
    for (lower, upper), count in zip(pairwise((0.0, *TICK_EDGES_S)), counts, strict=False):
        if count > 0 and reached + count >= SHARE * total:
            return _Told(lower + (upper - lower) * (SHARE * total - reached) / count, f"in {last.at_s - first.at_s:.0f} s")
        reached += count
    return _Told(2 * TICK_EDGES_S[-1], f"more than {TICK_EDGES_S[-1]:g} s, in {last.at_s - first.at_s:.0f} s")


def _worst(guard: str, told: Mapping[WorkerId, _Told]) -> GuardReading:
    # What measuring on doesn't mend is said first.
    for worker, one in sorted(told.items(), key=lambda item: item[1].short):
        if one.value is None:
            return GuardReading(guard, None, f"{worker}: {one.detail}", one.short)
    worst = max(told, key=lambda worker: told[worker].value or 0.0)
    return GuardReading(guard, told[worst].value, ", ".join(part for part in (worst, told[worst].detail) if part))
