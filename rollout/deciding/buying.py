"""
To whom requests are sent now that buy evidence: nobody's decision depends on it, only how much there is to decide by.

While the baseline is taken, all that can be asked; afterwards those who soak or are watched, and those of their pools who are compared with
them. Nobody who is out, or about to be: what is cut at a restart would count against the release. Nobody whose page can't be read, since
how busy it is isn't known then. And nobody at all once the rollout stops, or without the lease: what goes on then is for safety alone.

Source: docs/decisions/0020-canary-requests.md.
"""

from rollout.deciding.agenda import Agenda, agenda_of
from rollout.deciding.seeing import last_seen_s
from rollout.deciding.state import DeployState, WorkerState
from rollout.gating.windows import seconds
from rollout.model.buying import Buying
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Verb
from rollout.model.sighting import is_out

_NOBODY: frozenset[WorkerId] = frozenset()


def asked(plan: Plan, state: DeployState) -> frozenset[WorkerId]:
    """Name the workers to which requests are sent that buy evidence, until something changes."""
    buying = plan.buying
    if buying is None or _is_stopping(state):
        return _NOBODY
    agenda = agenda_of(plan, state)
    if not _shows_something(agenda):
        return _NOBODY
    acted_on = {effect.worker for effect in (*state.in_flight.values(), *state.in_doubt.values())}
    return frozenset(
        worker
        for worker in buying.workers
        if worker in agenda.focus and worker not in acted_on and _may_be_asked(buying, state, state.workers[worker])
    )


def _is_stopping(state: DeployState) -> bool:
    return state.outcome is not None or state.winding_down is not None or bool(state.lease_lost)


def _shows_something(agenda: Agenda) -> bool:
    """Tell whether anybody's evidence is being added up."""
    return bool(agenda.passed) or any(step.verb in {Verb.SURVEY, Verb.SOAK, Verb.WATCH} for step in agenda.begun)


def _may_be_asked(buying: Buying, state: DeployState, known: WorkerState) -> bool:
    if known.drained_by_us or known.missing or known.well_since_s is None or last_seen_s(state, known) <= known.acted_at_s:
        return False
    if known.bought >= buying.requests_max or known.sighting is None or is_out(known.sighting) is True:
        return False
    return known.unmeasured is None and _is_calm(buying, known)


def _is_calm(buying: Buying, known: WorkerState) -> bool:
    """Tell whether it has the time, by its last measurement with its full share; before there is one, nobody knows."""
    if not known.recent or known.recent[-1].since_s < (known.admitted_at_s or 0.0):
        return False
    last = known.recent[-1]
    return last.cpu_s <= buying.cpu_max * seconds(last)
