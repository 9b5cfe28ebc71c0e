"""
How the workers keep up: for how long one lets wait what comes to it, and how far one is behind the others.

A Synapse process is one thread, Twisted's reactor. While that is busy with one thing everything else that comes to this worker waits, and
the histogram of its turns says for how long. Of ten thousand short turns and one long one the mean says nothing, so it is the time that 99
of 100 turns keep to, over the last two minutes.

A worker hears from the others over replication. Its pages say how far it knows each stream, and pages of two workers are never of the same
moment, so positions aren't subtracted: what some worker knew a while ago, and another doesn't know now, is as long late as that is ago.
A connection that is gone shows here as well, where a queue of commands would be empty.

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


class _Seen(NamedTuple):
    at_s: float
    started_at_s: float
    ticks: tuple[float, ...]
    positions: Mapping[str, float]


class Strain:
    """What was seen of every worker in the last two minutes. One thread may record while another reads."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, tuple[_Seen, ...]] = {}
        # By stream: when it was first seen to be so far, oldest first.
        self._reached: dict[str, tuple[tuple[float, float], ...]] = {}
        self._tells: set[str] = set()

    def record(self, worker: WorkerId, at_s: float, counters: Counters | str) -> None:
        """Take in a page that was read at *at_s*; one that could not be read is told by its age."""
        if isinstance(counters, str) or not (counters.ticks or counters.positions):
            return
        if counters.ticks:
            self._tells.add(REACTOR_TICK)
        if counters.positions:
            self._tells.add(REPLICATION_LAG)
        before = tuple(
            one for one in self._seen.get(worker, ()) if one.started_at_s == counters.started_at_s and at_s - KEPT_S <= one.at_s < at_s
        )
        self._seen[worker] = (*before, _Seen(at_s, counters.started_at_s, counters.ticks, counters.positions))
        for stream, position in counters.positions.items():
            reached = tuple(one for one in self._reached.get(stream, ()) if at_s - KEPT_S <= one[0] <= at_s)
            # The last one before is what everybody should know by now, however long ago that was.
            reached = reached or self._reached.get(stream, ())[-1:]
            if not reached or position > reached[-1][1]:
                self._reached[stream] = (*reached, (at_s, position))

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
        last = seen[-1]
        if not last.positions:
            return _Told(None, "its page doesn't tell")
        late = {
            stream: last.at_s - at_s
            for stream, position in last.positions.items()
            if (at_s := next((at_s for at_s, reached in self._reached.get(stream, ()) if reached > position), None)) is not None
        }
        if not late:
            return _Told(0.0, "")
        stream = max(late, key=lambda name: late[name])
        return _Told(max(0.0, late[stream]), f"stream {stream}")


class _Told(NamedTuple):
    """What is known of one worker, and the rest of the sentence; or why nothing is."""

    value: float | None
    detail: str


def _tick(seen: tuple[_Seen, ...]) -> _Told:
    first, last = seen[0], seen[-1]
    if not first.ticks or len(first.ticks) != len(last.ticks):
        return _Told(None, "its page doesn't tell")
    if last.at_s - first.at_s < TICKS_OVER_S:
        return _Told(None, f"measured for {last.at_s - first.at_s:.0f} s, and {TICKS_OVER_S:.0f} s are needed")
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
    for worker, one in told.items():
        if one.value is None:
            return GuardReading(guard, None, f"{worker}: {one.detail}")
    worst = max(told, key=lambda worker: told[worker].value or 0.0)
    return GuardReading(guard, told[worst].value, ", ".join(part for part in (worst, told[worst].detail) if part))
