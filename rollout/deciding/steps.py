"""
What each verb waits for, and when it is done.

One function per verb: given that the step may run, it answers with a decision, or with a Wait that says why there is nothing to do yet.
All waiting is for something seen *after* the act: what was seen before it proves nothing.
"""

from dataclasses import dataclass

from rollout.deciding.decision import Decision, Finish, Note, Perform
from rollout.deciding.state import DeployState, Direction, StepState, StepStatus, WorkerState
from rollout.gating import guards as guard_rules
from rollout.gating import liveness, threshold
from rollout.homeservers.synapse import schema_rules
from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.event import GateRuled, Outcome, RollbackBegan, StepBegan, StepFailed, StepFinished, WindDownBegan
from rollout.model.gate import Gate, Ruling, Verdict
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Plan, Step, Verb, Worker, steps_of
from rollout.model.sighting import SchemaSighting, Sighting, runs, started_since
from rollout.planning.disruption import Seen, why_not_down
from rollout.planning.standing import drained_by_others

# A look that is older than this says nothing about now. Looks come about every second; five of them may be lost.
LOOK_FRESH_S = 6.0
# A worker that has been admitted may miss a few health checks under load before it counts as gone.
UNHEALTHY_GRACE_S = 15.0
# A process that has just been started may not be listed yet.
EXIT_GRACE_S = 2.0
# What failed in passing (a proxy that is being reloaded) is tried again after a breath.
RETRY_AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class Wait:
    """
    Nothing to do before *until_s* unless something is seen; *cause* is one word for the accounts, *why* a steady sentence.

    A *quiet* one goes without saying: an effect is under way, which its intent has said already.
    """

    cause: str
    why: str
    until_s: float
    quiet: bool = False


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
        case Verb.SURVEY:
            return _survey(plan, state, step, at, now_s)
        case Verb.DRAIN:
            return _drain(plan, state, step, at, now_s)
        case Verb.RESTART:
            return _restart(plan, state, step, at, now_s)
        case Verb.AWAIT_HEALTHY:
            return _await_healthy(plan, state, step, at, now_s)
        case Verb.ADMIT:
            return _admit(plan, state, step, at, now_s)
        case Verb.SOAK:
            return _soak(plan, state, step, at, now_s)


# --- the whole homeserver


def _prepare(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision:
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED or (at.status is StepStatus.ACTIVE and (at.permanent or at.attempts >= step.attempts_max)):
        return Finish(Outcome.REFUSED, f"the release could not be prepared: {at.why}")
    if at.status is StepStatus.ACTIVE:
        return _perform(state, step, now_s)
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
        return _stop(now_s, f"the migration failed: {at.why}; every worker still runs what it ran before")
    if at.status is StepStatus.ACTIVE:
        return _perform(state, step, now_s)
    return Note(StepFinished(now_s, step.id, "the database has the new release's schema"))


def _survey(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if state.baseline_found.issuperset(state.workers):
        return Note(StepFinished(now_s, step.id, f"the baseline of {state.baseline_source} serves"))
    ends_at_s = (at.began_at_s or now_s) + plan.baseline_s
    if now_s >= ends_at_s:
        without = sorted(worker for worker, known in state.workers.items() if known.baseline is None)
        return Note(StepFinished(now_s, step.id, "baseline taken" + (f"; none for {', '.join(without)}" if without else "")))
    return Wait("survey", f"watching the untouched homeserver for {plan.baseline_s:.0f} s", ends_at_s)


# --- one worker


def _drain(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = _worker(plan, step), _known(state, step)
    if at.status is StepStatus.PENDING:
        blocker = _blocker(plan, state, worker, now_s)
        return blocker or Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return _stop(now_s, f"{worker.id} could not be drained: {at.why}")
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        blocker = _blocker(plan, state, worker, now_s)
        return blocker or _perform(state, step, now_s)
    sighting = _seen_after(state, known, at.applied_at_s)
    deadline_at_s = (at.applied_at_s or now_s) + step.deadline_s
    if sighting is not None and sighting.proxy is not None:
        if sighting.proxy.admitted:
            # A reload makes the proxy forget what it was told at run time.
            return _blocker(plan, state, worker, now_s) or _perform(state, step, now_s, why=f"{worker.id} was admitted again by the proxy")
        if sighting.proxy.sessions == 0:
            return Note(StepFinished(now_s, step.id, f"{worker.id} has no sessions left"))
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"it still has {_sessions(sighting)} after {step.deadline_s:.0f} s"))
    known_for_s = now_s - (at.applied_at_s or now_s)
    if (sighting is None or sighting.proxy is None or sighting.proxy.sessions is None) and known_for_s > LOOK_FRESH_S:
        return Wait("observation", f"how many sessions {worker.id} still has is not known", deadline_at_s)
    return Wait("drain", f"{worker.id} still has sessions", deadline_at_s)


def _restart(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker = _worker(plan, step)
    if at.status is StepStatus.PENDING:
        return _before_restart(plan, state, step, now_s) or Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return _go_back(plan, state, f"{worker.id} could not be restarted: {at.why}", now_s)
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        return _before_restart(plan, state, step, now_s) or _perform(state, step, now_s)
    return Note(StepFinished(now_s, step.id, f"{worker.id} was started on {step.release}"))


def _before_restart(plan: Plan, state: DeployState, step: Step, now_s: float) -> Decision | Wait | None:
    """Look once more: still drained, and still allowed to be down."""
    worker, known = _worker(plan, step), _known(state, step)
    drain = next((other for other in _steps(plan, state) if other.worker == worker.id and other.verb is Verb.DRAIN), None)
    if drain is None:
        return _blocker(plan, state, worker, now_s)
    sighting = seen_lately(state, known, now_s)
    if sighting is None or sighting.proxy is None:
        return Wait("observation", f"{worker.id} is drained, but has not been seen for a while", now_s + LOOK_FRESH_S)
    if sighting.proxy.admitted or sighting.proxy.sessions != 0:
        return _blocker(plan, state, worker, now_s) or _perform(state, drain, now_s, why=f"{worker.id} has got traffic again")
    return None


def _await_healthy(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = _worker(plan, step), _known(state, step)
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return _go_back(plan, state, f"{worker.id} did not come up: {at.why}", now_s)
    began_at_s = at.began_at_s or now_s
    sighting = _seen_after(state, known, began_at_s)
    release = plan.releases[step.release]
    if sighting is not None:
        up = sighting.healthy is True and (worker.pool is None or (sighting.proxy is not None and sighting.proxy.up))
        if up and runs(sighting, release) is True:
            return Note(StepFinished(now_s, step.id, f"{worker.id} runs {release.version} and answers"))
        if sighting.process is not None and not sighting.process.running and now_s >= began_at_s + EXIT_GRACE_S:
            return Note(StepFailed(now_s, step.id, "its process has ended"))
    deadline_at_s = began_at_s + step.deadline_s
    if now_s >= deadline_at_s:
        if sighting is not None and sighting.healthy is True and runs(sighting, release) is None:
            # It answers, and what it runs can't be seen: that is no failure, and no pass.
            return _stop(now_s, f"{worker.id} answers, but after {step.deadline_s:.0f} s the version that it runs can't be read")
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s {_what_is_wrong(sighting, step)}"))
    return Wait("boot", f"{worker.id} is starting", deadline_at_s)


def _admit(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = _worker(plan, step), _known(state, step)
    weights = plan.ramp.weights
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return _go_back(plan, state, f"{worker.id} could not be admitted: {at.why}", now_s)
    if gone := _gone(known, now_s):
        return Note(StepFailed(now_s, step.id, gone))
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        return _perform(state, step, now_s, weight=weights[min(at.weights_applied, len(weights) - 1)])
    applied_at_s = at.applied_at_s or now_s
    if at.weights_applied < len(weights):
        next_at_s = applied_at_s + plan.ramp.step_s
        if now_s < next_at_s:
            return Wait("ramp", f"{worker.id} has {weights[at.weights_applied - 1]} % of its weight", next_at_s)
        return _perform(state, step, now_s, weight=weights[at.weights_applied])
    sighting = _seen_after(state, known, applied_at_s)
    proxy = sighting.proxy if sighting is not None else None
    if proxy is not None and proxy.admitted and proxy.up and proxy.weight == weights[-1]:
        return Note(StepFinished(now_s, step.id, f"{worker.id} takes its full share"))
    deadline_at_s = applied_at_s + step.deadline_s
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s the proxy does not show it with its full weight"))
    return Wait("ramp", f"the proxy has yet to show {worker.id} with its full weight", deadline_at_s)


def _soak(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = _worker(plan, step), _known(state, step)
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if gone := _gone(known, now_s):
        return _condemn(plan, state, step, f"{worker.id}: {gone}", now_s)
    verdicts = {name: _verdict(plan.gates[name], known, now_s) for name in step.gates}
    if not step.gates:
        # One that dies and comes back again and again is alive now and then, never for long.
        since_s = max(known.admitted_at_s or now_s, known.well_since_s or now_s)
        verdicts = {liveness.GATE: liveness.rule(healthy=_well(state, known, now_s), since_s=since_s, now_s=now_s)}
    for name, verdict in verdicts.items():
        before = known.verdicts.get(name)
        # That nothing is known yet goes without saying.
        if verdict.ruling is not (Ruling.PENDING if before is None else before.ruling):
            return Note(GateRuled(now_s, step.id, worker.id, verdict))
    return _weigh(plan, state, step, at, tuple(verdicts.values()), now_s)


def _weigh(plan: Plan, state: DeployState, step: Step, at: StepState, verdicts: tuple[Verdict, ...], now_s: float) -> Decision | Wait:
    """Turn the rulings of all gates of one worker into what to do."""
    worker = _worker(plan, step)
    if failed := [verdict for verdict in verdicts if verdict.ruling is Ruling.FAIL]:
        sentence = f"{worker.id} failed {failed[0].gate}: {failed[0].because}"
        return _condemn(plan, state, step, sentence, now_s)
    if all(verdict.ruling is Ruling.PASS for verdict in verdicts):
        return Note(StepFinished(now_s, step.id, "; ".join(verdict.because for verdict in verdicts)))
    began_at_s = at.began_at_s or now_s
    for verdict in verdicts:
        gate = plan.gates.get(verdict.gate)
        if gate is None or now_s < began_at_s + gate.deadline_s or verdict.ruling is Ruling.PASS:
            continue
        policy = gate.on_unmeasurable if verdict.ruling is Ruling.UNMEASURABLE else gate.on_inconclusive
        sentence = f"{worker.id} has no ruling on {verdict.gate} after {gate.deadline_s:.0f} s: {verdict.because}"
        return _condemn(plan, state, step, sentence, now_s) if policy == "rollback" else _stop(now_s, sentence)
    open_ones = [verdict for verdict in verdicts if verdict.ruling is not Ruling.PASS]
    cause = "measurement" if open_ones[0].ruling is Ruling.UNMEASURABLE else "evidence"
    waiting_for = ", ".join(sorted(verdict.gate for verdict in open_ones))
    return Wait(cause, f"{worker.id} has yet to pass {waiting_for}", now_s + plan.sample_s)


def _verdict(gate: Gate, known: WorkerState, now_s: float) -> Verdict:
    return threshold.rule(
        gate,
        after=known.after,
        baseline=known.baseline,
        controls=known.controls,
        unmeasured=known.unmeasured,
        admitted_at_s=known.admitted_at_s or now_s,
        now_s=now_s,
    )


def _gone(known: WorkerState, now_s: float) -> str:
    since_s = known.unhealthy_since_s
    if since_s is not None and now_s - since_s > UNHEALTHY_GRACE_S:
        return f"it has not answered for {UNHEALTHY_GRACE_S:.0f} s"
    return ""


# --- what they share


def _go_back(plan: Plan, state: DeployState, why: str, now_s: float) -> Decision:
    """What a failure leads to: the way back, if there is one; otherwise make safe what is out and call for a person."""
    if state.direction is Direction.BACK:
        return Note(WindDownBegan(now_s, Outcome.HALTED, f"on the way back: {why}"))
    if plan.point_of_no_return is not None and state.steps[plan.point_of_no_return].status is not StepStatus.PENDING:
        return Note(WindDownBegan(now_s, Outcome.HALTED, f"{why}; there is no way back after {plan.point_of_no_return}"))
    return Note(RollbackBegan(now_s, why, requested=False))


def _condemn(plan: Plan, state: DeployState, step: Step, why: str, now_s: float) -> Decision:
    """A worker that is admitted and not well; on the way back there is nowhere else to go, so it is kept for the end."""
    return Note(StepFinished(now_s, step.id, why)) if state.direction is Direction.BACK else _go_back(plan, state, why, now_s)


def _stop(now_s: float, why: str) -> Decision:
    return Note(WindDownBegan(now_s, Outcome.PAUSED, why))


def _perform(state: DeployState, step: Step, now_s: float, *, weight: int = FULL_WEIGHT, why: str = "") -> Perform:
    return Perform(
        next_effect(
            state,
            step.id,
            step.verb,
            step.worker,
            step.release,
            deadline_at_s=now_s + step.deadline_s,
            weight=weight,
            why=why or step.why,
        )
    )


def next_effect(
    state: DeployState,
    step_id: StepId,
    verb: Verb,
    worker: WorkerId | None,
    release: ReleaseId,
    *,
    deadline_at_s: float,
    weight: int = FULL_WEIGHT,
    why: str,
) -> Effect:
    """Number an effect: one more than any that the journal or the ledger knows."""
    return Effect(EffectNumber(state.last_number + 1), step_id, verb, worker, release, deadline_at_s, weight, why)


def _taken_by_others(plan: Plan, worker: Worker, sighting: Sighting | None) -> str:
    """Say what somebody else has done with a worker since it was planned for; empty when nothing is known of it."""
    if sighting is None:
        return ""
    if drained_by_others(sighting) and not sighting.unseen:
        return f"{worker.id} was drained by somebody else"
    if sighting.process is not None and sighting.process.activated not in {plan.from_releases.get(worker.id), plan.to_release.id}:
        return f"{worker.id} was given {sighting.process.activated} by somebody else since this was planned"
    return ""


def _blocker(plan: Plan, state: DeployState, worker: Worker, now_s: float) -> Wait | Decision | None:
    """Say what forbids taking a worker out now: nothing fresh to go by, a guard, or too many out already."""
    soon_s = now_s + LOOK_FRESH_S
    if state.observed_at_s <= state.fresh_after_s or now_s - state.observed_at_s > LOOK_FRESH_S:
        return Wait("observation", "nothing has been seen of the homeserver lately", soon_s)
    if state.direction is Direction.FORWARD and (broken := guard_rules.broken(plan.guards, state.guards)):
        since_s = state.guard_broken_since_s or now_s
        deadline_s = min(guard.deadline_s for guard in plan.guards if guard.guard in {one.guard for one in broken})
        if now_s - since_s >= deadline_s:
            return _stop(now_s, f"for {deadline_s:.0f} s {broken[0].why}")
        return Wait("guard", f"{worker.id} may not go down: {broken[0].why}", min(soon_s, since_s + deadline_s))
    if theirs := _taken_by_others(plan, worker, seen_lately(state, state.workers[worker.id], now_s)):
        return _stop(now_s, theirs)
    seen = {
        other: Seen(
            known.sighting, known.seen_at_s, known.missing or ("" if now_s - known.seen_at_s <= LOOK_FRESH_S else "not seen lately")
        )
        for other, known in state.workers.items()
    }
    if why := why_not_down(worker, plan.workers, seen, plan.max_unavailable):
        return Wait("capacity", why, soon_s)
    return None


def _worker(plan: Plan, step: Step) -> Worker:
    return next(worker for worker in plan.workers if worker.id == step.worker)


def _known(state: DeployState, step: Step) -> WorkerState:
    if step.worker is None:
        msg = f"{step.id} concerns no worker"
        raise ValueError(msg)
    return state.workers[step.worker]


def _steps(plan: Plan, state: DeployState) -> tuple[Step, ...]:
    return steps_of(plan.phases if state.direction is Direction.FORWARD else plan.rollback)


def _seen_after(state: DeployState, known: WorkerState, at_s: float | None) -> Sighting | None:
    if known.missing or known.seen_at_s <= max(state.fresh_after_s, known.acted_at_s, at_s or 0.0):
        return None
    return known.sighting


def seen_lately(state: DeployState, known: WorkerState, now_s: float) -> Sighting | None:
    """Return what was seen of a worker if it is fresh and later than everything that was done to it; None otherwise."""
    return None if now_s - known.seen_at_s > LOOK_FRESH_S else _seen_after(state, known, None)


def _well(state: DeployState, known: WorkerState, now_s: float) -> bool | None:
    sighting = seen_lately(state, known, now_s)
    return None if sighting is None else sighting.healthy


def _sessions(sighting: Sighting | None) -> str:
    if sighting is None or sighting.proxy is None or sighting.proxy.sessions is None:
        return "an unknown number of sessions"
    return f"{sighting.proxy.sessions} sessions"


def _what_is_wrong(sighting: Sighting | None, step: Step) -> str:
    if sighting is None:
        return "it has not been seen"
    if sighting.process is not None and sighting.process.activated != step.release:
        return f"its release is {sighting.process.activated}"
    if sighting.healthy is not True:
        return "it doesn't answer /health"
    if sighting.proxy is not None and not sighting.proxy.up:
        return "the proxy still sees it down"
    if sighting.process is not None and started_since(sighting.process) is False:
        return f"its process began before {step.release} was activated"
    return f"it reports version {sighting.version or 'unknown'}"
