"""
What each verb waits for, and when it is done.

One function per verb: given that the step may run, it answers with a decision, or with a Wait that says why there is nothing to do yet.
All waiting is for something seen *after* the act: what was seen before it proves nothing. Here are the verbs of the whole homeserver;
those of one worker are in going_out.py, coming_back.py and soaking.py.
"""

from rollout.deciding import watching
from rollout.deciding.acting import perform, stop
from rollout.deciding.coming_back import admit, await_healthy, let_go
from rollout.deciding.decision import Decision, Finish, Note, Wait
from rollout.deciding.going_out import drain, hold, restart, warm
from rollout.deciding.seeing import LOOK_FRESH_S
from rollout.deciding.soaking import soak
from rollout.deciding.state import DeployState, StepState, StepStatus
from rollout.homeservers.synapse import schema_rules
from rollout.model.event import Outcome, StepBegan, StepFinished
from rollout.model.plan import Plan, Step, Verb
from rollout.model.sighting import SchemaSighting

# What failed in passing (a proxy that is being reloaded) is tried again after a breath.
RETRY_AFTER_S = 3.0


def advance(plan: Plan, state: DeployState, step: Step, now_s: float) -> Decision | Wait:
    """Say what to do about a step whose needs are met and that isn't done."""
    at = state.steps[step.id]
    if at.status is StepStatus.INTENDED:
        late = step.verb is Verb.MIGRATE and now_s - (at.intended_at_s or now_s) > step.deadline_s
        why = f"the migration takes longer than {step.deadline_s:.0f} s; it is never interrupted" if late else f"{step.id} is being done"
        return Wait(step.verb, why, now_s + LOOK_FRESH_S, quiet=not late)
    if (
        at.status is StepStatus.ACTIVE
        and at.attempts
        and not at.permanent
        and now_s < (retry_at_s := (at.intended_at_s or 0.0) + RETRY_AFTER_S)
    ):
        return Wait("retry", f"{step.id} failed and is tried again: {at.why}", retry_at_s)
    if at.status is StepStatus.DOUBTFUL:
        return Wait("doubt", f"{step.id}: its outcome is unknown; looking before anything else is done", now_s + LOOK_FRESH_S)
    match step.verb:
        case Verb.PREPARE:
            return _prepare(plan, state, step, at, now_s)
        case Verb.MIGRATE:
            return _migrate(plan, state, step, at, now_s)
        case Verb.WATCH:
            return watching.watch(plan, state, step, at, now_s)
        case Verb.SURVEY:
            return _survey(plan, state, step, at, now_s)
        case Verb.WARM:
            return warm(plan, state, step, at, now_s)
        case Verb.DRAIN:
            return drain(plan, state, step, at, now_s)
        case Verb.HOLD:
            return hold(plan, state, step, at, now_s)
        case Verb.RESTART:
            return restart(plan, state, step, at, now_s)
        case Verb.AWAIT_HEALTHY:
            return await_healthy(plan, state, step, at, now_s)
        case Verb.ADMIT:
            return admit(plan, state, step, at, now_s)
        case Verb.LET_GO:
            return let_go(plan, state, step, at, now_s)
        case Verb.SOAK:
            return soak(plan, state, step, at, now_s)


def _prepare(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision:
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED or (at.status is StepStatus.ACTIVE and (at.permanent or at.attempts >= step.attempts_max)):
        return Finish(Outcome.REFUSED, f"the release could not be prepared: {at.why}")
    if at.status is StepStatus.ACTIVE:
        return perform(state, step, now_s)
    release = state.prepared or plan.to_release
    # What runs now runs on this database, so where the database can't be asked its floor is no higher than what runs allows.
    schema = state.schema or SchemaSighting(0, 0, ())
    for name in sorted(set(plan.from_releases.values())) if plan.point_of_no_return is None else ():
        old = plan.releases[name]
        if old.version != release.version and schema_rules.rollback_possible(schema, old, release) is not True:
            why = f"the plan promises a way back, but {schema_rules.explain_rollback(schema, old, release)}"
            return Finish(Outcome.REFUSED, why)
    return Note(StepFinished(now_s, step.id, f"{release.version} is there and its configuration was accepted"))


def _migrate(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision:
    del plan
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.ACTIVE and at.attempts:
        return stop(now_s, f"the migration failed: {at.why}; every worker still runs what it ran before")
    if at.status is StepStatus.ACTIVE:
        return perform(state, step, now_s)
    return Note(StepFinished(now_s, step.id, "the database has the new release's schema"))


def _survey(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if state.baseline_found.issuperset(state.workers) and not state.baseline_partly:
        return Note(StepFinished(now_s, step.id, f"the baseline of {state.baseline_source} serves"))
    ends_at_s = (at.began_at_s or now_s) + plan.baseline_s
    if now_s >= ends_at_s:
        without = sorted(worker for worker, known in state.workers.items() if known.baseline is None)
        return Note(StepFinished(now_s, step.id, "baseline taken" + (f"; none for {', '.join(without)}" if without else "")))
    return Wait("survey", f"watching the untouched homeserver for {plan.baseline_s:.0f} s", ends_at_s)
