"""What was seen of the homeserver at one moment, and what could not be seen."""

from dataclasses import dataclass, field

from rollout.model.gate import GuardReading
from rollout.model.ids import EffectNumber, PoolId, ReleaseId, WorkerId
from rollout.model.load import Load
from rollout.model.release import Release


@dataclass(frozen=True, slots=True)
class ProcessSighting:
    """
    What the process manager and the disk say of one worker.

    *activated* is the release that its link names, since *activated_at_s*; the process that runs may still be an older one.
    *started_at_s* is None when it doesn't run. *last_words* are the last lines that it wrote, oldest first, if it was seen to have ended by
    itself; empty when there were none or they could not be read.
    """

    running: bool
    started_at_s: float | None
    activated: ReleaseId | None
    activated_at_s: float | None
    last_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HoldSighting:
    """
    What holding has come to at one backend; of several proxies the sum.

    *held_for_s* is how long the proxy that has held longest holds now, None when none does. *waiting* requests have yet to go on: held, or
    let go one after the other; *waiting_max* were at most during the last hold. Since the proxy started *shed* were answered 503 because
    too many waited, and *let_go_late* were let go by the proxy's own bound before anybody said so.
    """

    held_for_s: float | None = None
    waiting: int = 0
    waiting_max: int = 0
    shed: int = 0
    let_go_late: int = 0


def grown(before: int, now: int) -> int:
    """Return by how much a counter has grown; one of a proxy that was restarted counts from nought again."""
    return now - before if now >= before else now


@dataclass(frozen=True, slots=True)
class ProxySighting:
    """
    What the proxy says of one server.

    *admitted*: new requests may go to it. *weight* is in percent of its full weight. *up* is the proxy's own health check. *sessions* are
    open ones, those that old proxy processes still hold after a reload included; None when those could not be asked. The counters are
    since the proxy started, None where it doesn't count. *held*: new requests for its backend wait in the proxy; in each of them, where
    there are several. *hold* says for how long, and what came of it.
    """

    admitted: bool
    weight: int
    up: bool
    sessions: int | None
    requests: int | None
    cuts: int | None
    counters: dict[str, int] = field(default_factory=dict)
    held: bool = False
    hold: HoldSighting = HoldSighting()

    @property
    def holding(self) -> bool:
        """Tell whether new requests wait anywhere: one proxy of several that holds is enough for that."""
        return self.held or self.hold.held_for_s is not None


@dataclass(frozen=True, slots=True)
class PoolSighting:
    """
    What the proxy says of one backend.

    *requests* counts since the proxy started, *arrivals_per_s* is over its last second; None where it doesn't count. *can_hold*: its
    requests pass through the hold.
    *held* and the rest are as in ProxySighting and HoldSighting. *algorithm* is how the proxy calls its way to choose a server, "" where it
    doesn't say; *hash_points* are the points that each server has at least on its hash ring, 0 where there is none or it isn't known.
    *weighs*: its servers can be given a part of their weight.
    """

    requests: int | None
    arrivals_per_s: float | None
    can_hold: bool = False
    held: bool = False
    hold: HoldSighting = HoldSighting()
    algorithm: str = ""
    hash_points: int = 0
    weighs: bool = True


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """How many connections and files (sockets among them) the proxy has open, and how many it may; of several proxies the tightest."""

    connections: int
    connections_max: int
    files: int
    files_max: int


@dataclass(frozen=True, slots=True)
class DrainMark:
    """
    A line of our ledger at the target: we took this worker out of traffic, by which effect, for which release, why, and when.

    *condemned* is the release that it is taken back from: nobody shall admit it on that one.
    """

    number: EffectNumber
    release: ReleaseId
    why: str
    at_s: float
    condemned: ReleaseId | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """
    One worker. Each part is None when it could not be seen (for *proxy* also when the proxy doesn't know the worker); *unseen* says why.

    *healthy* is what its own listener answers, *version* what it reports of itself, *drain* our own mark if the ledger has one.
    """

    process: ProcessSighting | None = None
    healthy: bool | None = None
    version: str | None = None
    proxy: ProxySighting | None = None
    drain: DrainMark | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SchemaSighting:
    """The database's own schema: version, compatibility floor and every delta that was applied (as `NN/file`)."""

    version: int
    compat_version: int
    deltas: tuple[str, ...]


@dataclass(frozen=True)  # without slots, for quick copies: every look is told without what was known before
class Observation:
    """
    The whole homeserver at *taken_at_s*. *missing* maps a worker that could not be seen at all to the reason; nothing is assumed of it.

    *releases* are those prepared at the target; *last_number* is the highest effect number in the ledger. *pools* and *proxy* are what the
    proxy says of its backends and of itself; *no_warming* is why no worker could be warmed now ("" when one could), *no_canaries* why no
    evidence could be bought, and *no_database* why the homeserver's database could not be asked. *loads* say how busy workers are, where
    that was measured.
    """

    taken_at_s: float
    sightings: dict[WorkerId, Sighting]
    missing: dict[WorkerId, str] = field(default_factory=dict)
    releases: dict[ReleaseId, Release] = field(default_factory=dict)
    guards: tuple[GuardReading, ...] = ()
    schema: SchemaSighting | None = None
    pools: dict[PoolId, PoolSighting] = field(default_factory=dict)
    proxy: ProxyLimits | None = None
    no_warming: str = ""
    no_canaries: str = ""
    no_database: str = ""
    last_number: EffectNumber = EffectNumber(0)
    loads: dict[WorkerId, Load] = field(default_factory=dict)


# How exactly a process's start is known (ports.workers). It is stopped before the release is activated, so nothing else began just before.
START_PRECISION_S = 0.05


def started_since(process: ProcessSighting) -> bool | None:
    """Tell whether a process began after what its link names was activated; None when one of the two times is unknown."""
    if process.started_at_s is None or process.activated_at_s is None:
        return None
    return process.started_at_s >= process.activated_at_s - START_PRECISION_S


def runs(sighting: Sighting, release: Release) -> bool | None:
    """
    Tell whether a worker runs *release*: its process started after the release was activated for it, and it reports its version.

    None when something that is needed could not be seen.
    """
    process = sighting.process
    if process is None:
        return None
    if not process.running or process.activated != release.id:
        return False
    since = started_since(process)
    if since is not True:
        return since
    if sighting.version is None:
        return None
    return sighting.version == release.version


def is_out(sighting: Sighting) -> bool | None:
    """Tell whether a worker that the proxy knows gets no new requests, whoever took it out; None when the proxy's view is unknown."""
    if sighting.proxy is None:
        return None
    proxy = sighting.proxy
    return not (proxy.admitted and proxy.up and proxy.weight > 0) or proxy.holding
