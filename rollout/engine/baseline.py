"""
A baseline that is there already: what earlier rollouts and `rollout observe` saw in the last 24 hours, of the same release at the same hour
of the day.

It comes before a SURVEY in the design's order, since it is longer; where there is none that is long enough, the plan's SURVEY takes one.
"""

from collections.abc import Mapping

from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState
from rollout.model.event import BaselineFound, GateRuled
from rollout.model.gate import Ruling, Tally
from rollout.model.ids import ReleaseId, Role, WorkerId
from rollout.model.plan import Plan
from rollout.ports.journal import Journal

HISTORY = "the journal of the last 24 h"

_DAY_S = 86_400.0
_HOUR_S = 3_600.0
# Rollouts of the last day are few; more than this many are not worth their reading time.
_DEPLOYS_MAX = 20
# How workers recover changes with the homeserver, slowly.
_LEARNED_FROM = 5
_CURVES_MAX = 40


def from_history(journal: Journal, plan: Plan, now_s: float) -> BaselineFound | None:
    """Find a tally of at least *plan.baseline_s* for each worker on the release that it runs now; None when no worker has one."""
    found = kept_tallies(journal, plan.homeserver, plan.from_releases, now_s)
    enough = {worker: tally for worker, tally in found.items() if _seconds(tally) >= plan.baseline_s}
    learned = recoveries(journal, plan) if any(gate.odds is not None for gate in plan.gates.values()) else {}
    return BaselineFound(now_s, HISTORY, enough, learned) if enough or learned else None


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


def kept_tallies(journal: Journal, homeserver: str, releases: Mapping[WorkerId, ReleaseId], now_s: float) -> dict[WorkerId, Tally]:
    """
    Sum up what is known of each worker on the release that it runs now.

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
                if _same_hour(tally, now_s):
                    found[worker] = tally + found[worker] if worker in found else tally
    for kept in journal.baselines(homeserver, now_s - _DAY_S):
        for worker, (release, tally) in kept.tallies.items():
            if releases.get(worker) == release and _same_hour(tally, now_s):
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
