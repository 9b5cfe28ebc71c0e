"""
What became of an effect whose outcome is unknown: judged from what is seen afterwards, never assumed, never simply repeated.

A cluster-wide effect cannot be seen in one sighting: a release is prepared when the target lists it, a migration is done when no delta of
the release is missing from the database.
"""

from rollout.deciding.seeing import last_seen_s
from rollout.deciding.state import DeployState
from rollout.homeservers.synapse import schema_rules
from rollout.model.effect import Effect, drains_in_part
from rollout.model.plan import Plan, Verb
from rollout.model.sighting import Sighting


def happened(plan: Plan, state: DeployState, effect: Effect, intended_at_s: float) -> bool | None:
    """
    Tell whether *effect* took place; None while nothing fresh has been seen that would tell.

    A restart that isn't to be seen yet may still be on its way, or under way at its host, until its time is over.
    """
    if effect.worker is None:
        return _happened_to_all(plan, state, effect)
    worker = state.workers[effect.worker]
    if (
        last_seen_s(state, worker) <= max(state.fresh_after_s, intended_at_s, worker.acted_at_s)
        or worker.missing
        or worker.sighting is None
    ):
        return None
    shows = _shows(worker.sighting, effect, intended_at_s)
    return None if shows is False and effect.verb is Verb.RESTART and state.observed_at_s < effect.deadline_at_s else shows


def _shows(sighting: Sighting, effect: Effect, intended_at_s: float) -> bool | None:
    match effect.verb:
        case Verb.RESTART:
            process = sighting.process
            if process is None:
                return None
            return process.running and process.activated == effect.release and (process.started_at_s or 0.0) >= intended_at_s
        case Verb.DRAIN if drains_in_part(effect):
            return None if sighting.proxy is None else sighting.proxy.weight == effect.weight
        case Verb.DRAIN:
            return None if sighting.proxy is None else not sighting.proxy.admitted
        case Verb.HOLD:
            return None if sighting.proxy is None else sighting.proxy.held
        case Verb.LET_GO:
            return None if sighting.proxy is None else not sighting.proxy.holding
        case Verb.WARM:
            # Nothing shows it, and warming again is harmless.
            return False
        case Verb.ADMIT:
            return None if sighting.proxy is None else sighting.proxy.admitted and sighting.proxy.weight == effect.weight
        case _:
            return None


def _happened_to_all(plan: Plan, state: DeployState, effect: Effect) -> bool | None:
    if state.observed_at_s <= state.fresh_after_s:
        return None
    match effect.verb:
        case Verb.PREPARE:
            # Preparing again is harmless and says what is in the release, so it simply counts as not done.
            return False
        case Verb.MIGRATE:
            release = state.prepared or plan.to_release
            # Migrating again does nothing once it is done, and waits for the first one while that is under way: where the schema can't be
            # read it is the way to find out.
            return bool(release.deltas) and state.schema is not None and not schema_rules.pending_deltas(state.schema, release)
        case _:
            return False
