"""What may be gone by: only what was seen after the act, and lately."""

import operator
from functools import reduce
from typing import NamedTuple

from rollout.deciding.index import PlanIndex, index_of
from rollout.deciding.state import DeployState, WorkerState
from rollout.gating import threshold
from rollout.model.gate import Gate, Metric, Tally
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Step, Worker
from rollout.model.sighting import Sighting

# A look that is older than this says nothing about now. Looks come about every second; five of them may be lost.
LOOK_FRESH_S = 6.0
# A thorough look comes every five seconds (engine/perform.py), and one may be lost.
DATABASE_SEEN_WITHIN_S = 12.0
# A worker that has been admitted may miss a few health checks under load before it counts as gone.
UNHEALTHY_GRACE_S = 15.0


def last_seen_s(state: DeployState, known: WorkerState) -> float:
    """Say when a worker was last seen: by the last look, unless it was missing then. -inf if never."""
    return known.seen_at_s if known.missing or known.sighting is None else state.observed_at_s


def seen_after(state: DeployState, known: WorkerState, at_s: float | None) -> Sighting | None:
    if known.missing or last_seen_s(state, known) <= max(state.fresh_after_s, known.acted_at_s, at_s or 0.0):
        return None
    return known.sighting


def seen_lately(state: DeployState, known: WorkerState, now_s: float) -> Sighting | None:
    """Return what was seen of a worker if it is fresh and later than everything that was done to it; None otherwise."""
    return None if now_s - last_seen_s(state, known) > LOOK_FRESH_S else seen_after(state, known, None)


def well(state: DeployState, known: WorkerState, now_s: float) -> bool | None:
    sighting = seen_lately(state, known, now_s)
    return None if sighting is None else sighting.healthy


def is_confirmed(state: DeployState, known: WorkerState, now_s: float) -> bool:
    """
    Tell whether a FAIL may be acted on: the database was seen to be there since. What a homeserver does without it condemns no release.

    Where nobody looks at the database, or no look comes, there is nothing to wait for.
    """
    failed_at_s = known.failed_at_s
    if state.schema is None or failed_at_s is None or now_s - failed_at_s > DATABASE_SEEN_WITHIN_S:
        return True
    return state.guards_seen_at_s > failed_at_s


def gone_for(known: WorkerState, now_s: float) -> str:
    since_s = known.unhealthy_since_s
    if since_s is None or now_s - since_s <= UNHEALTHY_GRACE_S:
        return ""
    silent = f"it has not answered for {UNHEALTHY_GRACE_S:.0f} s"
    return silent if known.missing or not (ended := has_ended(known.sighting)) else f"{silent}: {ended}"


class Past(NamedTuple):
    """What a worker did before, and the others of its pool then; these only where its own says too little."""

    own: Tally | None
    pool: Tally | None


def past_of(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate) -> Past:
    """Return what a threshold compares a worker with."""
    own = state.workers[worker].baseline
    return Past(own, pool_before(index_of(plan), state, worker) if threshold.needs_pool(gate, own) else None)


def pool_before(index: PlanIndex, state: DeployState, worker: WorkerId) -> Tally | None:
    """Sum the baselines of the others of its pool up; those that ran the release before show nothing of how it was without it."""
    pool = index.pools[worker]
    if pool is None:
        return None
    others = [other for other, its in index.pools.items() if other != worker and its == pool and other not in index.already_on_it]
    theirs = [baseline for other in others if (baseline := state.workers[other].baseline) is not None]
    kept = index.pasts.get(worker)
    if kept is None or kept[0] != theirs:
        kept = index.pasts[worker] = (theirs, reduce(operator.add, theirs) if theirs else None)
    return kept[1]


def unmeasured_by(known: WorkerState, gate: Gate) -> str | None:
    """Say why a gate can't be asked now, whatever was measured before; None when it can. What its proxy counts no metrics page tells."""
    if known.unmeasured is None and gate.metric is Metric.PROXY_FAILURES:
        proxy = None if known.missing or known.sighting is None else known.sighting.proxy
        if proxy is None:
            return "its proxy can't be seen"
        if proxy.requests is None or proxy.cuts is None:
            return "its proxy doesn't count requests"
    return known.unmeasured


def has_ended(sighting: Sighting | None) -> str:
    """Say that its process has ended, and with which words; empty when it runs, or when nobody knows."""
    process = None if sighting is None else sighting.process
    if process is None or process.running:
        return ""
    words = "\n    ".join(process.last_words)
    return f"its process has ended; its last words: {words}" if words else "its process has ended"


def not_held(known: WorkerState) -> str:
    """Say which requests the hold of a worker did not keep for it; empty when there were none. No counter of its server knows of them."""
    shed = f"{known.shed} requests were refused (503), because too many waited" if known.shed else ""
    late = f"{known.let_go_late} were let go by the proxy itself, because its time was up" if known.let_go_late else ""
    return ", and ".join(part for part in (shed, late) if part)


def sessions_of(sighting: Sighting | None) -> str:
    if sighting is None or sighting.proxy is None or sighting.proxy.sessions is None:
        return "an unknown number of sessions"
    return f"{sighting.proxy.sessions} sessions"


def known_of(state: DeployState, step: Step) -> WorkerState:
    if step.worker is None:
        msg = f"{step.id} concerns no worker"
        raise ValueError(msg)
    return state.workers[step.worker]


def worker_of(plan: Plan, step: Step) -> Worker:
    if step.worker is None:
        msg = f"{step.id} concerns no worker"
        raise ValueError(msg)
    return index_of(plan).workers[step.worker]
