"""
What was seen and measured + state -> state. What was done is folded in fold.py.

Looks and measurements make up most of a journal, and mostly say that nothing has changed; then nothing is worked out anew.
"""

from dataclasses import dataclass
from functools import reduce

from rollout.deciding.index import PlanIndex, index_of
from rollout.deciding.seeing import last_seen_s, pool_before
from rollout.deciding.sparing import RECENT_MAX
from rollout.deciding.state import DeployState, Direction, StepStatus, WorkerState
from rollout.gating import guards as guard_rules
from rollout.gating import sequential, windows
from rollout.gating.evidence import sound
from rollout.gating.threshold import COMPARABLE_MIN
from rollout.model.changed import changed
from rollout.model.event import BaselineFound
from rollout.model.gate import Measured, Tally
from rollout.model.ids import PoolId, WorkerId
from rollout.model.plan import Plan
from rollout.model.sighting import Observation, Sighting, grown

# After its database is back a homeserver makes new connections, and answers what has piled up.
SETTLES_IN_S = 10.0


def observe(plan: Plan, state: DeployState, seen: Observation) -> DeployState:
    """Take one look in. Who isn't in it, and isn't missing, was seen as it was before."""
    at_s, workers = seen.taken_at_s, state.workers
    told = [worker for worker, known in workers.items() if worker in seen.sightings or worker in seen.missing or not _is_settled(known)]
    if told:
        workers = {**workers, **{worker: _notice(state, workers[worker], worker, seen) for worker in told}}
    guards = seen.guards or state.guards
    broken = bool(plan.guards) and bool(guard_rules.broken(plan.guards, guards))
    since_s = (at_s if state.guard_broken_since_s is None else state.guard_broken_since_s) if broken else None
    if seen.guards:
        state = changed(state, guards_seen_at_s=at_s, no_database=seen.no_database)
    if seen.no_database:
        workers = {worker: _disregard(known, at_s + SETTLES_IN_S) for worker, known in workers.items()}
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


def _disregard(known: WorkerState, until_s: float) -> WorkerState:
    """Let what was measured while the database was away, and shortly after, count neither for a worker nor against it."""
    if known.admitted_at_s is not None:
        known = changed(
            known, after=None, controls=None, windows=(), watched={}, blocks=(), admitted_at_s=max(known.admitted_at_s, until_s)
        )
    if known.ramp_since_s is not None:
        known = changed(known, ramp=None, ramp_since_s=max(known.ramp_since_s, until_s))
    return known


def _is_settled(known: WorkerState) -> bool:
    """Tell whether another look at the same would change nothing: most of a thousand workers are as they were, in most looks."""
    return not known.missing and (known.well_since_s is None) is not (known.unhealthy_since_s is None)


def _notice(state: DeployState, known: WorkerState, worker: WorkerId, seen: Observation) -> WorkerState:
    if worker in seen.missing:
        return changed(known, missing=seen.missing[worker], seen_at_s=last_seen_s(state, known))
    sighting = seen.sightings.get(worker, known.sighting)
    return known if sighting is None else _see(known, sighting, seen.taken_at_s)


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
        missing="",
        unhealthy_since_s=unhealthy_since_s,
        well_since_s=well_since_s,
    )


@dataclass(frozen=True, slots=True)
class _Pool:
    """
    What one sweep says of a pool: who was measured, the completed requests per second of each, those *lasting* ones who were not
    restarted since the rollout began, and the sum of these without those that ran the release before.

    It is worked out once for all of them, or the time would grow with the square of the pool.
    """

    measured: tuple[WorkerId, ...]
    rates: dict[WorkerId, float]
    lasting: tuple[WorkerId, ...]
    untouched: Tally | None


_NOBODY = _Pool((), {}, (), None)


def measure(plan: Plan, state: DeployState, measured: Measured) -> DeployState:
    """Take one sweep of the metrics in."""
    index = index_of(plan)
    surveying = any([state.steps[step.id].status is StepStatus.ACTIVE for step in index.surveys])  # noqa: C419  (quicker)
    by_pool: dict[PoolId, list[WorkerId]] = {}
    for worker in measured.tallies:
        if (its_pool := index.pools.get(worker)) is not None:
            by_pool.setdefault(its_pool, []).append(worker)
    pools = {name: _sum_up(index, state, measured, members) for name, members in by_pool.items()}
    # Whoever has passed is compared in windows from then on.
    forward = state.direction is Direction.FORWARD
    passed = {worker for step, worker in index.soaks if state.steps[step.id].status is StepStatus.DONE} if forward else set()
    workers = dict(state.workers)
    for worker, known in state.workers.items():
        its_pool, unmeasured, own = index.pools[worker], measured.unmeasured.get(worker), measured.tallies.get(worker)
        if own is None and unmeasured is None and known.admitted_at_s is None:
            continue
        pool = _NOBODY if its_pool is None else pools.get(its_pool, _NOBODY)
        controls = (
            known.controls if worker in passed and not index.compares_on(worker) else _with_peers(index, state, worker, pool, measured)
        )
        if own is not None:
            workers[worker] = _take_in(index, state, measured, worker, pool, controls=controls, surveying=surveying)
        elif unmeasured is not None or controls is not known.controls:
            workers[worker] = changed(known, controls=controls, unmeasured=known.unmeasured if unmeasured is None else unmeasured)
    return changed(state, workers=workers)


def _sum_up(index: PlanIndex, state: DeployState, measured: Measured, members: list[WorkerId]) -> _Pool:
    lasting = tuple([worker for worker in members if not _was_restarted(state, worker)])
    untouched = [measured.tallies[worker] for worker in lasting if worker not in index.already_on_it]
    rates = {worker: windows.completed_per_s(measured.tallies[worker]) for worker in members}
    return _Pool(tuple(members), rates, lasting, reduce(_join, untouched) if untouched else None)


def _was_restarted(state: DeployState, worker: WorkerId) -> bool:
    """
    Tell whether a worker's process is a new one since the rollout began: by our hand, by another's, or because it crashed.

    It is compared with the rollout's beginning and not with the baseline's end: a baseline of yesterday says nothing against who was
    restarted this morning and is warm by now.
    """
    known = state.workers[worker]
    process = known.sighting.process if known.sighting is not None else None
    began_later = process is not None and process.started_at_s is not None and process.started_at_s > state.began_at_s
    return known.touched or began_later


def _take_in(
    index: PlanIndex, state: DeployState, measured: Measured, worker: WorkerId, pool: _Pool, *, controls: Tally | None, surveying: bool
) -> WorkerState:
    """Add what one worker did, and the others of its pool meanwhile, to what is kept of it."""
    known, own, plan = state.workers[worker], measured.tallies[worker], index.plan
    baseline, ramp, after = known.baseline, known.ramp, known.after
    stretches, watched, blocks = known.windows, known.watched, known.blocks
    if surveying:
        baseline = _join(baseline, own)
    if known.ramp_since_s is not None and own.since_s >= known.ramp_since_s:
        ramp = _join(ramp, own)
    if _is_after(known, own):
        after = _join(after, own)
        # Of everybody, who was restarted too: a worker's share of its pool is what the proxy gives it beside the others, however well these
        # do, and without them the last one of a pool could never show its share. That a release makes all of them dearer isn't hidden by
        # that: the CPU of a request is held against the worker's own past alone.
        rates = tuple([rate for peer, rate in pool.rates.items() if peer != worker])
        untouched = (
            pool.untouched
            if known.touched
            else _sum_up(index, state, measured, [peer for peer in pool.measured if peer != worker]).untouched
        )
        if plan.recovery is not None:
            stretches = windows.extend(stretches, own, rates, plan.watch.window_s, untouched)
        if worker in index.weighed_gates and sound(own):
            # What can't be true says nothing; when no other comes, that is noticed by its age.
            blocks = windows.extend_blocks(blocks, own, untouched, sequential.BLOCK_S, sequential.BLOCKS_MAX)
        gates = index.windowed(worker)
        watched = windows.extend_each(watched, gates, own, rates, plan.watch.window_s, untouched)
    return changed(
        known,
        controls=controls,
        unmeasured=None,
        recent=(*known.recent, own)[-RECENT_MAX:],
        baseline=baseline,
        ramp=ramp,
        canary_answered_at_s=own.until_s if own.canaries > own.canary_failures else known.canary_answered_at_s,
        after=after,
        windows=stretches,
        watched=watched,
        blocks=blocks,
        bought=known.bought + own.bought,
    )


def _with_peers(index: PlanIndex, state: DeployState, worker: WorkerId, pool: _Pool, measured: Measured) -> Tally | None:
    """
    Add what those of its pool did that were not restarted, since a worker has its traffic again.

    Who was restarted in this rollout is never what another is compared with: a release that makes both slow would be as good as itself.
    Without anybody left a worker has the past alone, its own or that of its pool, and without that no ruling. Those that ran the release
    before show little; they count for who has no such past.
    """
    known = state.workers[worker]
    controls = known.controls
    if known.admitted_at_s is not None:
        has_past = index.already_on_it and (_is_enough(known.baseline) or _is_enough(pool_before(index, state, worker)))
        left_aside = index.already_on_it if has_past else frozenset()
        for peer in pool.lasting:
            if peer != worker and peer not in left_aside and _is_after(known, measured.tallies[peer]):
                controls = _join(controls, measured.tallies[peer])
    return controls


def _is_enough(past: Tally | None) -> bool:
    return past is not None and past.requests + past.polls >= COMPARABLE_MIN


def _is_after(known: WorkerState, tally: Tally) -> bool:
    # A tally that began before the worker was fully back also holds the ramp, so it is left out.
    return known.admitted_at_s is not None and tally.since_s >= known.admitted_at_s


def _join(earlier: Tally | None, later: Tally) -> Tally:
    return later if earlier is None else earlier + later


def find_baseline(state: DeployState, event: BaselineFound) -> DeployState:
    """Keep a baseline that was there already."""
    found = {worker: changed(state.workers[worker], baseline=tally) for worker, tally in event.tallies.items() if worker in state.workers}
    return changed(
        state,
        workers={**state.workers, **found},
        baseline_found=frozenset(found),
        baseline_partly=frozenset(event.partly),
        baseline_source=event.source,
        recoveries=event.recoveries,
    )
