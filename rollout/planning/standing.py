"""
How each worker stands before a rollout: what it really runs, and whether somebody took it out.

A link that was switched says nothing about the process that was started before. What a worker runs is therefore known only if its process
is younger than its link; otherwise it is deduced from the version that it reports, if exactly one prepared release has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import Observation, Sighting, runs, started_since

_FULL_WEIGHT = 100  # percent


@dataclass(frozen=True, slots=True)
class Standing:
    """
    One worker. *release* is what it runs, None if that isn't known.

    *ours*: an earlier rollout of ours took it out and left its mark, which may name the release that it was taking it back from
    (*condemned*). *foreign*: somebody else did; it isn't touched. *blockers* forbid the rollout, *notes* are worth knowing.
    """

    release: ReleaseId | None
    ours: bool = False
    condemned: ReleaseId | None = None
    foreign: bool = False
    blockers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def judge(worker: WorkerId, observation: Observation, *, proxied: bool) -> Standing:
    """Judge one worker of the inventory, *proxied* if it stands behind the proxy. What could not be seen is a blocker, never a guess."""
    sighting = observation.sightings.get(worker)
    if sighting is None or worker in observation.missing:
        return Standing(None, blockers=(f"{worker} could not be seen: {observation.missing.get(worker, 'nothing is known of it')}",))
    if drained_by_others(sighting):
        # Whatever state it is in, it isn't ours to judge: it is left alone, and counts as out.
        return Standing(_running(worker, sighting, observation.releases).release, foreign=True)
    if sighting.drain is not None:
        return _left_behind(worker, sighting, observation.releases)
    standing = _running(worker, sighting, observation.releases)
    blockers = [*_illness(worker, sighting, proxied=proxied), *standing.blockers]
    notes = list(standing.notes)
    if sighting.proxy is not None and sighting.proxy.weight < _FULL_WEIGHT:
        notes.append(
            f"{worker} has {sighting.proxy.weight} % of its weight at the proxy, by somebody else's hand; it will have 100 % afterwards"
        )
    return Standing(standing.release, blockers=tuple(blockers), notes=tuple(notes))


def drained_by_others(sighting: Sighting) -> bool:
    """Tell whether the proxy was told to send it nothing, and not by us."""
    proxy = sighting.proxy
    return proxy is not None and sighting.drain is None and (not proxy.admitted or proxy.weight == 0)


def _left_behind(worker: WorkerId, sighting: Sighting, releases: Mapping[ReleaseId, Release]) -> Standing:
    """A worker that a rollout of ours took out and never brought back: it may be down, since nobody uses it."""
    standing = _running(worker, sighting, releases)
    mark = sighting.drain
    note = f"{worker} is out since an earlier rollout of ours ({mark.why if mark else ''}): it is brought back first"
    condemned = mark.condemned if mark else None
    process = sighting.process
    if process is not None and not process.running and process.activated in releases:
        # Nothing tells any more what it ran; the way back is then to what it would start with.
        return Standing(process.activated, ours=True, condemned=condemned, notes=(note,))
    return Standing(standing.release, ours=True, condemned=condemned, blockers=standing.blockers, notes=(note, *standing.notes))


def _illness(worker: WorkerId, sighting: Sighting, *, proxied: bool) -> list[str]:
    if sighting.healthy is None:
        return [f"{worker}: whether it is healthy is not known{_because(sighting)}"]
    if not sighting.healthy:
        return [f"{worker} is not healthy: it doesn't answer /health"]
    if not proxied:
        return []
    if sighting.proxy is None:
        return [f"{worker} can't be seen at the proxy{_because(sighting)}"]
    if sighting.proxy.holding:
        return [f"{worker}'s requests are held at the proxy, and not by us: the proxy lets go by itself in a while"]
    return [] if sighting.proxy.up else [f"{worker} is not healthy: the proxy's own check has it down"]


def _running(worker: WorkerId, sighting: Sighting, releases: Mapping[ReleaseId, Release]) -> Standing:
    process = sighting.process
    if process is None:
        return Standing(None, blockers=(f"{worker}: its process could not be seen{_because(sighting)}",))
    if not process.running:
        return Standing(None, blockers=(f"{worker} doesn't run",))
    if sighting.version is None:
        return Standing(None, blockers=(f"{worker}: the version that it runs could not be seen{_because(sighting)}",))
    since = started_since(process)
    if process.activated is None or since is None:
        return Standing(None, blockers=(f"{worker}: which release it runs is not known: its link or its start could not be seen",))
    activated = releases.get(process.activated)
    if activated is None:
        return Standing(
            None, blockers=(f"{worker}: its release {process.activated} isn't prepared at the target any more, so there is no way back",)
        )
    if runs(sighting, activated) is True:
        return Standing(activated.id)
    if since:
        why = f"{worker} reports version {sighting.version}, but its release {activated.id} is {activated.version}"
        return Standing(None, blockers=(why,))
    like = [release.id for release in releases.values() if release.version == sighting.version]
    if len(like) == 1:
        note = f"{worker} was started before its link was switched to {activated.id}; by its version it runs {like[0]}"
        return Standing(like[0], notes=(note,))
    why = (
        f"{worker} was started before its link was switched to {activated.id}, and {len(like)} prepared releases have its version "
        f"{sighting.version}: what it runs is not known (restart it by hand: it will run {activated.id})"
    )
    return Standing(None, blockers=(why,))


def _because(sighting: Sighting) -> str:
    return f" ({'; '.join(sighting.unseen)})" if sighting.unseen else ""
