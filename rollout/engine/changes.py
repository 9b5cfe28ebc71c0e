"""What of a look is news: a long rollout's journal is kept small by leaving out what was told before."""

from collections.abc import Callable, Collection
from dataclasses import fields
from operator import attrgetter

from rollout.model.changed import changed
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import HoldSighting, Observation, ProxySighting, SchemaSighting, Sighting


class Changes:
    """
    Leaves out of each look what was told before.

    Compared is with what was *told*, not with the last look: otherwise a change that was held back would never be told. Sessions and
    counters of workers out of focus move all the time and decide nothing, so they alone are no change.
    """

    def __init__(self) -> None:
        self._told: dict[WorkerId, Sighting] = {}
        self._schema: SchemaSighting | None = None
        self._releases: dict[ReleaseId, Release] = {}

    def take(self, seen: Observation, focus: Collection[WorkerId]) -> Observation:
        """Return *seen* without what is known already."""
        news = {worker: sighting for worker, sighting in seen.sightings.items() if self._is_new(worker, sighting, in_focus=worker in focus)}
        self._told.update(news)
        for worker in seen.missing:
            self._told.pop(worker, None)
        schema = None if seen.schema == self._schema else seen.schema
        releases = {} if seen.releases == self._releases else seen.releases
        self._schema = schema or self._schema
        self._releases = releases or self._releases
        return changed(seen, sightings=news, schema=schema, releases=releases)

    def _is_new(self, worker: WorkerId, sighting: Sighting, *, in_focus: bool) -> bool:
        told = self._told.get(worker)
        if told is None or told is sighting:
            return told is None
        return sighting != told if in_focus else not _is_steady(sighting, told)


def _is_steady(now: Sighting, before: Sighting) -> bool:
    """Tell whether nothing but what moves all the time has changed."""
    if _BESIDES_PROXY(now) != _BESIDES_PROXY(before):
        return False
    if now.proxy is None or before.proxy is None:
        return now.proxy is before.proxy
    if _OF_PROXY(now.proxy) != _OF_PROXY(before.proxy):
        return False
    return now.proxy.hold is before.proxy.hold or _of_hold(now.proxy.hold) == _of_hold(before.proxy.hold)


def _of_hold(hold: HoldSighting) -> tuple[object, ...]:
    """Whether anything waits counts, not how much."""
    return (*_OF_HOLD(hold), hold.waiting > 0)


def _but(kind: type[Sighting | ProxySighting | HoldSighting], moves: Collection[str]) -> Callable[[object], tuple[object, ...]]:
    """Read all fields of *kind* but those that move."""
    return attrgetter(*(item.name for item in fields(kind) if item.name not in moves))


_BESIDES_PROXY = _but(Sighting, {"proxy"})
_OF_PROXY = _but(ProxySighting, {"sessions", "requests", "cuts", "counters", "hold"})
_OF_HOLD = _but(HoldSighting, {"held_for_s", "waiting", "waiting_max"})
