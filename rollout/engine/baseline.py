"""
A baseline that is there already: what a Prometheus has kept, or else what earlier rollouts and `rollout observe` saw in the last 24 hours,
of the same release at the same hour of the day.

They come before a SURVEY in the design's order, since they are longer; where none is long enough, the plan's SURVEY takes one. No
Prometheus knows our own canaries. So each worker is asked one, which tells whether it answers them at all, and who has a gate that compares
them is surveyed all the same: what that sees is added.

Where evidence is bought, only what was seen with as many canary requests serves: they are answered sooner than much of what users ask for,
and the more of them there are, the quicker any release looks. No Prometheus tells them from users' requests.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState
from rollout.engine import past
from rollout.engine.drivers import Drivers
from rollout.engine.metering import with_canary
from rollout.gating.windows import covering
from rollout.homeservers.synapse import canaries
from rollout.model.errors import RolloutError
from rollout.model.event import BaselineFound, GateRuled, SamplesTaken
from rollout.model.gate import Metric, Ruling, Tally
from rollout.model.ids import PoolId, ReleaseId, Role, WorkerId
from rollout.model.plan import Plan, steps_of
from rollout.ports.journal import Journal

HISTORY = "the journal of the last 24 h"
PAST = "Prometheus"

NO_POOLS: Mapping[WorkerId, PoolId | None] = MappingProxyType({})
_DAY_S = 86_400.0
_HOUR_S = 3_600.0
# Rollouts of the last day are few; more than this many are not worth their reading time.
_DEPLOYS_MAX = 20
# How workers recover changes with the homeserver, slowly.
_LEARNED_FROM = 5
_CURVES_MAX = 40
# Before the first that a rollout's own measuring sends.
CANARY = 0
CANARY_TIMEOUT_S = 5.0
# What was bought comes as often as it should but for sweeps at the ends, and moments at which the worker was busy.
_AS_OFTEN = 0.75
# No Prometheus has these: what comes of our own requests, and what the proxy counts when it is looked at.
_OURS = frozenset({Metric.CANARY_P95, Metric.CANARY_FAILURES, Metric.PROXY_FAILURES})


def find(drivers: Drivers, journal: Journal, plan: Plan, now_s: float) -> BaselineFound | None:
    """
    Find a tally of at least *plan.baseline_s* for each worker on the release that it runs now; None when no worker has one.

    How workers recovered before is told with it, where a gate asks. A Prometheus that doesn't answer is no baseline. Raises DriverError
    when the journal can't be read.
    """
    kept = from_history(journal, plan, now_s)
    of_journal = {} if kept is None else kept.tallies
    alike = {worker: tally for worker, tally in _from_past(drivers, plan, now_s).items() if _is_alike(plan, worker, tally)}
    of_past = of_whole_pools(alike, of_journal, plan)
    tallies = of_journal | of_past
    learned = recoveries(journal, plan) if any(gate.odds is not None for gate in plan.gates.values()) else {}
    if not tallies:
        return BaselineFound(now_s, "", {}, (), learned) if learned else None
    source = PAST if of_past else HISTORY
    if others := sorted(of_journal.keys() - of_past.keys()) if of_past else []:
        source = f"{PAST}, and for {', '.join(others)} {HISTORY}"
    partly = tuple(sorted(worker for worker in of_past if _compares_ours(plan, worker)))
    return BaselineFound(now_s, source, tallies, partly, learned)


def _from_past(drivers: Drivers, plan: Plan, now_s: float) -> dict[WorkerId, Tally]:
    """Return what a Prometheus has kept, as far as it is enough."""
    if drivers.history is None:
        return {}
    workers = tuple(plan.from_releases)
    try:
        links = drivers.releases.activations(workers)
    except RolloutError:
        return {}
    # What was planned for, and not what somebody has activated since.
    links = {worker: link for worker, link in links.items() if link.release == plan.from_releases.get(worker)}
    found = past.tallies(drivers.history, workers, past.runs_of(plan.releases, links), now_s)
    return {worker: tally for worker, tally in found.items() if not isinstance(tally, str) and _seconds(tally) >= plan.baseline_s}


def of_whole_pools(of_past: dict[WorkerId, Tally], of_journal: Mapping[WorkerId, Tally], plan: Plan) -> dict[WorkerId, Tally]:
    """
    Leave those out of whose pool a Prometheus knows only some, and the journal all.

    Other minutes than its pool's would look like a difference between the two.
    """
    pools = {worker.id: worker.pool for worker in plan.workers if worker.id in plan.from_releases}
    partly = {pool for worker, pool in pools.items() if pool is not None and worker not in of_past}
    in_journal = {pool for pool in partly if all(worker in of_journal for worker, its in pools.items() if its == pool)}
    return {worker: tally for worker, tally in of_past.items() if pools.get(worker) not in in_journal}


def _compares_ours(plan: Plan, worker: WorkerId) -> bool:
    gates = (plan.gates[gate] for step in steps_of(plan.phases) if step.worker == worker for gate in step.gates)
    return any(gate.metric in _OURS and (gate.ratio_max is not None or gate.odds is not None) for gate in gates)


def with_canaries(drivers: Drivers, plan: Plan, found: BaselineFound) -> BaselineFound:
    """Ask each worker without a canary in its tally for one: whoever answers now is waited for until it does so again after its restart."""
    roles = {worker.id: worker.role for worker in plan.workers}
    paths = {
        worker: path
        for worker, tally in found.tallies.items()
        if not tally.canaries and worker in roles and (path := canaries.canary_path(roles[worker], CANARY)) is not None
    }
    answers = drivers.probe.canary(paths, CANARY_TIMEOUT_S) if paths else {}
    asked = {worker: with_canary(found.tallies[worker], answer) for worker, answer in answers.items()}
    return replace(found, tallies={**found.tallies, **asked})


def from_history(journal: Journal, plan: Plan, now_s: float) -> BaselineFound | None:
    """Find the same in the journal alone."""
    pools = {worker.id: worker.pool for worker in plan.workers}
    found = kept_tallies(
        journal, plan.homeserver, plan.from_releases, now_s, pools, plan.baseline_s, lambda worker, tally: _is_alike(plan, worker, tally)
    )
    enough = {worker: tally for worker, tally in found.items() if _seconds(tally) >= plan.baseline_s}
    return BaselineFound(now_s, HISTORY, enough) if enough else None


def recoveries(journal: Journal, plan: Plan) -> dict[Role, dict[Metric, tuple[str, ...]]]:
    """
    Name, by role and metric, the curves by which workers recovered that passed in the last rollouts, the newest ones first.

    What a request costs and how long it takes come back each in its own time.
    """
    roles = {worker.id: worker.role for worker in plan.workers}
    found: dict[Role, dict[Metric, list[str]]] = {}
    for line in journal.deploys(plan.homeserver, _LEARNED_FROM):
        gates = journal.plan(line.deploy_id).gates
        for _, event in journal.events(line.deploy_id):
            if (
                isinstance(event, GateRuled)
                and event.worker in roles
                and event.verdict.ruling is Ruling.PASS
                and event.verdict.evidence.curve
                and event.verdict.gate in gates
            ):
                by_metric = found.setdefault(roles[event.worker], {})
                by_metric.setdefault(gates[event.verdict.gate].metric, []).append(event.verdict.evidence.curve)
    return {role: {metric: tuple(curves[:_CURVES_MAX]) for metric, curves in by_metric.items()} for role, by_metric in found.items()}


def _is_alike(plan: Plan, worker: WorkerId, tally: Tally) -> bool:
    """Tell whether as many canary requests are in a tally as there will be in what is compared with it."""
    if plan.buying is None or worker not in plan.buying.workers:
        return not tally.bought
    return tally.bought >= _AS_OFTEN * plan.buying.per_s * _seconds(tally) and tally.bought * _AS_OFTEN <= plan.buying.per_s * _seconds(
        tally
    )


def _any(_worker: WorkerId, _tally: Tally) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Occasion:
    """What was measured of several workers at about the same time; of what single *sweeps*, where some of them were in it for longer."""

    tallies: Mapping[WorkerId, Tally]
    sweeps: Sequence[Mapping[WorkerId, Tally]] = ()


def kept_tallies(
    journal: Journal,
    homeserver: str,
    releases: Mapping[WorkerId, ReleaseId],
    now_s: float,
    pools: Mapping[WorkerId, PoolId | None] = NO_POOLS,
    enough_s: float = 0.0,
    serves: Callable[[WorkerId, Tally], bool] = _any,
) -> dict[WorkerId, Tally]:
    """
    Sum up what is known of each worker on the release that it runs now, and *serves*.

    Counted is what was surveyed before an earlier rollout, what was watched after it, and what was kept by `rollout observe`, each for the
    release that ran then. A tally ends at *now_s*, and is as long as the time that it covers.

    Of those in one of *pools* only the minutes count in which all of them were measured, if these come to *enough_s*: a worker is compared
    with its pool, and what was different about other minutes would be taken for a difference between the two.
    """
    told = [*_of_rollouts(journal, homeserver, releases, now_s, sweeping=bool(pools)), *_of_observing(journal, homeserver, releases, now_s)]
    occasions = [replace(one, tallies={worker: its for worker, its in one.tallies.items() if serves(worker, its)}) for one in told]
    alike: dict[tuple[PoolId | None, WorkerId | None], list[WorkerId]] = {}
    for worker in releases:
        pool = pools.get(worker)
        alike.setdefault((pool, worker if pool is None else None), []).append(worker)
    found: dict[WorkerId, Tally] = {}
    for members in alike.values():
        shared = _summed([_shared(occasion, members) for occasion in occasions], members)
        if len(shared) < len(members) or min(map(_seconds, shared.values())) < enough_s:
            shared = _summed([occasion.tallies for occasion in occasions], members)
        found |= shared
    return {worker: past.ending(tally, now_s) for worker, tally in found.items()}


def _of_rollouts(
    journal: Journal, homeserver: str, releases: Mapping[WorkerId, ReleaseId], now_s: float, *, sweeping: bool
) -> Iterator[_Occasion]:
    # Sweeps of hours are large, and only a pool's workers have minutes in common.
    for line in journal.deploys(homeserver, _DEPLOYS_MAX):
        if line.finished_at_s is None or now_s - line.finished_at_s > _DAY_S:
            continue
        earlier = journal.plan(line.deploy_id)
        state = start(earlier)
        sweeps: list[Mapping[WorkerId, Tally]] = []
        for _, event in journal.events(line.deploy_id):
            state = fold(earlier, state, event)
            if sweeping and isinstance(event, SamplesTaken):
                sweeps.append(event.measured.tallies)
        told = {worker: _tallies(earlier, state, worker, release) for worker, release in releases.items()}
        yield _Occasion(_same_hour({worker: before for worker, (before, _) in told.items()}, now_s))
        yield _Occasion(_same_hour({worker: after for worker, (_, after) in told.items()}, now_s), sweeps)


def _of_observing(journal: Journal, homeserver: str, releases: Mapping[WorkerId, ReleaseId], now_s: float) -> Iterator[_Occasion]:
    for kept in journal.baselines(homeserver, now_s - _DAY_S):
        told = {worker: tally for worker, (release, tally) in kept.tallies.items() if releases.get(worker) == release}
        yield _Occasion(_same_hour(told, now_s))


def _tallies(plan: Plan, state: DeployState, worker: WorkerId, release: ReleaseId) -> tuple[Tally | None, Tally | None]:
    """Return what a worker did on *release* before a rollout, and after it."""
    known = state.workers.get(worker)
    if known is None:
        return None, None
    before = known.baseline if worker not in state.baseline_found and plan.from_releases.get(worker) == release else None
    runs_now = known.sighting.process.activated if known.sighting is not None and known.sighting.process is not None else None
    return before, known.after if runs_now == release else None


def _shared(occasion: _Occasion, members: Collection[WorkerId]) -> Mapping[WorkerId, Tally]:
    """Return what *members* did in the minutes in which all of them were measured; nothing where there are none."""
    its = [occasion.tallies[worker] for worker in members if worker in occasion.tallies]
    if len(its) < len(members):
        return {}
    if len(its) == 1 or not occasion.sweeps:
        return occasion.tallies
    since_s, until_s = max(one.since_s for one in its), min(one.until_s for one in its)
    within: dict[WorkerId, list[Tally]] = {}
    for sweep in occasion.sweeps:
        for worker in members:
            if worker in sweep and since_s <= sweep[worker].since_s and sweep[worker].until_s <= until_s:
                within.setdefault(worker, []).append(sweep[worker])
    return {worker: covering(its) for worker, its in within.items()} if len(within) == len(members) else {}


def _summed(occasions: Sequence[Mapping[WorkerId, Tally]], members: Collection[WorkerId]) -> dict[WorkerId, Tally]:
    told = {worker: [occasion[worker] for occasion in occasions if worker in occasion] for worker in members}
    return {worker: covering(its) for worker, its in told.items() if its}


def _same_hour(told: Mapping[WorkerId, Tally | None], now_s: float) -> dict[WorkerId, Tally]:
    """Leave out what was measured at another hour of the day."""
    return {worker: tally for worker, tally in told.items() if tally is not None and _is_same_hour(tally, now_s)}


def _is_same_hour(tally: Tally, now_s: float) -> bool:
    apart_s = (now_s - tally.until_s) % _DAY_S
    return min(apart_s, _DAY_S - apart_s) <= _HOUR_S


def _seconds(tally: Tally) -> float:
    return tally.until_s - tally.since_s
