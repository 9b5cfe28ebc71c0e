"""
What was seen and measured + state -> state. What was done is folded in fold.py.

Looks and measurements make up most of a journal, and mostly say that nothing has changed; then nothing is worked out anew.
"""

from dataclasses import dataclass
from functools import reduce

from rollout.deciding.index import index_of
from rollout.deciding.sparing import RECENT_MAX
from rollout.deciding.state import DeployState, StepStatus, WorkerState
from rollout.gating import guards as guard_rules
from rollout.gating import windows
from rollout.model.changed import changed
from rollout.model.event import BaselineFound
from rollout.model.gate import Gate, Measured, Tally
from rollout.model.ids import PoolId, WorkerId
from rollout.model.plan import Plan
from rollout.model.sighting import Observation, Sighting, grown


def observe(plan: Plan, state: DeployState, seen: Observation) -> DeployState:
    """Take one look in. Who isn't in it, and isn't missing, was seen as it was before."""
    at_s = seen.taken_at_s
    workers: dict[WorkerId, WorkerState] = {}
    for worker, known in state.workers.items():
        if worker in seen.missing:
            workers[worker] = changed(known, missing=seen.missing[worker])
            continue
        sighting = seen.sightings.get(worker, known.sighting)
        workers[worker] = known if sighting is None else _see(known, sighting, at_s)
    guards = seen.guards or state.guards
    broken = bool(plan.guards) and bool(guard_rules.broken(plan.guards, guards))
    since_s = (at_s if state.guard_broken_since_s is None else state.guard_broken_since_s) if broken else None
    if seen.guards:
        state = changed(state, guards_seen_at_s=at_s)
    if seen.pools:
        state = changed(state, pools=seen.pools, proxy=seen.proxy, proxy_seen_at_s=at_s)
    return changed(
        state,
        workers=workers,
        guards=guards,
        guard_broken_since_s=since_s,
        schema=seen.schema or state.schema,
        releases_seen=frozenset(seen.releases) or state.releases_seen,
        observed_at_s=at_s,
    )


def _see(known: WorkerState, sighting: Sighting, at_s: float) -> WorkerState:
    proxy = sighting.proxy
    well = sighting.healthy is True and (proxy is None or proxy.up)
    unhealthy_since_s = None if well else (at_s if known.unhealthy_since_s is None else known.unhealthy_since_s)
    well_since_s = (known.well_since_s or at_s) if well else None
    hold, shed, late = known.hold, known.shed, known.let_go_late
    if proxy is not None:
        before, hold = hold or proxy.hold, proxy.hold
        shed += grown(before.shed, hold.shed)
        late += grown(before.let_go_late, hold.let_go_late)
    return changed(
        known,
        hold=hold,
        shed=shed,
        let_go_late=late,
        sighting=sighting,
        seen_at_s=at_s,
        missing="",
        unhealthy_since_s=unhealthy_since_s,
        well_since_s=well_since_s,
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What a worker is compared with, and by what: *peers* are the tallies of its pool's others, *untouched* of those not restarted yet."""

    peers: list[Tally]
    untouched: list[Tally]
    gates: tuple[Gate, ...]


def measure(plan: Plan, state: DeployState, measured: Measured) -> DeployState:
    """Take one sweep of the metrics in."""
    index = index_of(plan)
    surveying = any(state.steps[step.id].status is StepStatus.ACTIVE for step in index.surveys)
    by_pool: dict[PoolId, list[tuple[WorkerId, Tally]]] = {}
    for worker, tally in measured.tallies.items():
        if (pool := index.pools.get(worker)) is not None:
            by_pool.setdefault(pool, []).append((worker, tally))
    workers = dict(state.workers)
    for worker, known in state.workers.items():
        own, unmeasured, pool = measured.tallies.get(worker), measured.unmeasured.get(worker), index.pools[worker]
        pairs = [] if pool is None else [pair for pair in by_pool.get(pool, ()) if pair[0] != worker]
        if own is None and unmeasured is None and not pairs:
            continue
        peers, untouched = [tally for _, tally in pairs], [tally for peer, tally in pairs if not state.workers[peer].touched]
        beside = Beside(peers, untouched, index.watched_gates.get(worker, ()))
        workers[worker] = _take_in(plan, known, beside, own, unmeasured, surveying=surveying)
    return changed(state, workers=workers)


def _take_in(plan: Plan, known: WorkerState, beside: Beside, own: Tally | None, unmeasured: str | None, *, surveying: bool) -> WorkerState:
    """Add what one worker did, and its pool's others meanwhile, to what is kept of it."""
    controls = known.controls
    for peer in beside.peers:
        if _is_after(known, peer):
            controls = _join(controls, peer)
    if own is None:
        return changed(known, controls=controls, unmeasured=known.unmeasured if unmeasured is None else unmeasured)
    ramps = known.ramp_since_s is not None and own.since_s >= known.ramp_since_s
    taken = changed(
        known,
        controls=controls,
        unmeasured=None,
        recent=(*known.recent, own)[-RECENT_MAX:],
        baseline=_join(known.baseline, own) if surveying else known.baseline,
        ramp=_join(known.ramp, own) if ramps else known.ramp,
        canary_answered_at_s=own.until_s if own.canaries > own.canary_failures else known.canary_answered_at_s,
    )
    if not _is_after(known, own):
        return taken
    untouched = reduce(_join, beside.untouched) if beside.untouched else None
    window_s = plan.watch.window_s
    return changed(
        taken,
        after=_join(known.after, own),
        windows=windows.extend(known.windows, own, beside.peers, window_s, untouched),
        watched={
            gate.id: windows.extend(known.watched.get(gate.id, ()), own, beside.peers, window_s, untouched, gate) for gate in beside.gates
        },
    )


def _is_after(known: WorkerState, tally: Tally) -> bool:
    # A tally that began before the worker was fully back also holds the ramp, so it is left out.
    return known.admitted_at_s is not None and tally.since_s >= known.admitted_at_s


def _join(earlier: Tally | None, later: Tally) -> Tally:
    return later if earlier is None else earlier + later


def find_baseline(state: DeployState, event: BaselineFound) -> DeployState:
    """Keep a baseline that was there already."""
    found = {worker: changed(state.workers[worker], baseline=tally) for worker, tally in event.tallies.items() if worker in state.workers}
    return changed(state, workers={**state.workers, **found}, baseline_found=frozenset(found), baseline_source=event.source)
