"""
A baseline that is there already: what a Prometheus has kept, or else what earlier rollouts and `rollout observe` saw in the last 24 hours,
of the same release at the same hour of the day.

They come before a SURVEY in the design's order, since they are longer; where none is long enough, the plan's SURVEY takes one. No
Prometheus knows our own canaries. So each worker is asked one, which tells whether it answers them at all, and who has a gate that compares
them is surveyed all the same: what that sees is added.

Where evidence is bought, only what was seen with as many canary requests serves: they are answered sooner than much of what users ask for,
and the more of them there are, the quicker any release looks. No Prometheus tells them from users' requests.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState
from rollout.engine import past
from rollout.engine.drivers import Drivers
from rollout.engine.survey import with_canary
from rollout.homeservers.synapse import canaries
from rollout.model.errors import RolloutError
from rollout.model.event import BaselineFound, GateRuled
from rollout.model.gate import Metric, Ruling, Tally
from rollout.model.ids import ReleaseId, Role, WorkerId
from rollout.model.plan import Plan, steps_of
from rollout.ports.journal import Journal

HISTORY = "the journal of the last 24 h"
PAST = "Prometheus"

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
    of_past = {worker: tally for worker, tally in _from_past(drivers, plan, now_s).items() if _is_alike(plan, worker, tally)}
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
    found = kept_tallies(journal, plan.homeserver, plan.from_releases, now_s, lambda worker, tally: _is_alike(plan, worker, tally))
    enough = {worker: tally for worker, tally in found.items() if _seconds(tally) >= plan.baseline_s}
    return BaselineFound(now_s, HISTORY, enough) if enough else None


def recoveries(journal: Journal, plan: Plan) -> dict[Role, tuple[str, ...]]:
    """Name, by role, the curves by which workers recovered that passed in the last rollouts, the newest ones first."""
    roles = {worker.id: worker.role for worker in plan.workers}
    found: dict[Role, list[str]] = {}
    for line in journal.deploys(plan.homeserver, _LEARNED_FROM):
        for _, event in journal.events(line.deploy_id):
            if (
                isinstance(event, GateRuled)
                and event.worker in roles
                and event.verdict.ruling is Ruling.PASS
                and event.verdict.evidence.curve
            ):
                found.setdefault(roles[event.worker], []).append(event.verdict.evidence.curve)
    return {role: tuple(curves[:_CURVES_MAX]) for role, curves in found.items()}


def _is_alike(plan: Plan, worker: WorkerId, tally: Tally) -> bool:
    """Tell whether as many canary requests are in a tally as there will be in what is compared with it."""
    if plan.buying is None or worker not in plan.buying.workers:
        return not tally.bought
    return tally.bought >= _AS_OFTEN * plan.buying.per_s * _seconds(tally) and tally.bought * _AS_OFTEN <= plan.buying.per_s * _seconds(
        tally
    )


def _any(_worker: WorkerId, _tally: Tally) -> bool:
    return True


def kept_tallies(
    journal: Journal,
    homeserver: str,
    releases: Mapping[WorkerId, ReleaseId],
    now_s: float,
    serves: Callable[[WorkerId, Tally], bool] = _any,
) -> dict[WorkerId, Tally]:
    """
    Sum up what is known of each worker on the release that it runs now, and *serves*.

    Counted is what was surveyed before an earlier rollout, what was watched after it, and what was kept by `rollout observe`, each for the
    release that ran then.
    """
    found: dict[WorkerId, Tally] = {}
    for line in journal.deploys(homeserver, _DEPLOYS_MAX):
        if line.finished_at_s is None or now_s - line.finished_at_s > _DAY_S:
            continue
        earlier = journal.plan(line.deploy_id)
        state = start(earlier)
        for _, event in journal.events(line.deploy_id):
            state = fold(earlier, state, event)
        for worker, release in releases.items():
            for tally in _tallies(earlier, state, worker, release):
                if _same_hour(tally, now_s) and serves(worker, tally):
                    found[worker] = tally + found[worker] if worker in found else tally
    for kept in journal.baselines(homeserver, now_s - _DAY_S):
        for worker, (release, tally) in kept.tallies.items():
            if releases.get(worker) == release and _same_hour(tally, now_s) and serves(worker, tally):
                found[worker] = tally + found[worker] if worker in found else tally
    return found


def _tallies(plan: Plan, state: DeployState, worker: WorkerId, release: ReleaseId) -> list[Tally]:
    known = state.workers.get(worker)
    if known is None:
        return []
    before = known.baseline if worker not in state.baseline_found and plan.from_releases.get(worker) == release else None
    runs_now = known.sighting.process.activated if known.sighting is not None and known.sighting.process is not None else None
    after = known.after if runs_now == release else None
    return [tally for tally in (before, after) if tally is not None]


def _same_hour(tally: Tally, now_s: float) -> bool:
    apart_s = (now_s - tally.until_s) % _DAY_S
    return min(apart_s, _DAY_S - apart_s) <= _HOUR_S


def _seconds(tally: Tally) -> float:
    return tally.until_s - tally.since_s
