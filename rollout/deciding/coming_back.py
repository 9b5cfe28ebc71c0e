"""Bringing a worker back into traffic: AWAIT_HEALTHY, ADMIT, LET_GO."""

from rollout.deciding.acting import go_back, perform, stop
from rollout.deciding.admission import next_weight
from rollout.deciding.decision import Decision, Note, Wait
from rollout.deciding.seeing import LOOK_FRESH_S, gone_for, has_ended, known_of, not_held, seen_after, seen_lately, worker_of
from rollout.deciding.state import DeployState, StepState, StepStatus, WorkerState
from rollout.model.event import StepBegan, StepFailed, StepFinished
from rollout.model.plan import Plan, Step, Worker
from rollout.model.sighting import Sighting, runs, started_since

# A process that has just been started may not be listed yet.
EXIT_GRACE_S = 2.0


def await_healthy(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = worker_of(plan, step), known_of(state, step)
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return go_back(plan, state, f"{worker.id} did not come up: {at.why}", now_s, blamed=worker.id)
    began_at_s = at.began_at_s or now_s
    sighting = seen_after(state, known, began_at_s)
    release = plan.releases[step.release]
    if sighting is not None:
        up = sighting.healthy is True and (worker.pool is None or (sighting.proxy is not None and sighting.proxy.up))
        if up and runs(sighting, release) is True and not _answers_canaries(known, began_at_s):
            return _await_canary(worker, step, began_at_s, now_s)
        if up and runs(sighting, release) is True:
            return Note(StepFinished(now_s, step.id, f"{worker.id} runs {release.version} and answers"))
        if now_s >= began_at_s + EXIT_GRACE_S and (ended := has_ended(sighting)):
            return Note(StepFailed(now_s, step.id, ended))
    deadline_at_s = began_at_s + step.deadline_s
    if now_s >= deadline_at_s:
        if sighting is not None and sighting.healthy is True and runs(sighting, release) is None:
            # It answers, and what it runs can't be seen: that is no failure, and no pass.
            return stop(now_s, f"{worker.id} answers, but after {step.deadline_s:.0f} s the version that it runs can't be read")
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s {_what_is_wrong(sighting, step)}"))
    return Wait("boot", f"{worker.id} is starting", deadline_at_s)


def _answers_canaries(known: WorkerState, began_at_s: float) -> bool:
    """Tell whether one was answered since the restart. /health is static; where canaries were never asked, it is all there is."""
    if known.baseline is None or known.baseline.canaries == known.baseline.canary_failures:
        return True
    return known.canary_answered_at_s is not None and known.canary_answered_at_s >= began_at_s


def _await_canary(worker: Worker, step: Step, began_at_s: float, now_s: float) -> Decision | Wait:
    deadline_at_s = began_at_s + step.deadline_s
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s it answers /health, but no canary request"))
    return Wait("boot", f"{worker.id} answers /health, but has yet to answer a canary request", deadline_at_s)


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


def admit(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = worker_of(plan, step), known_of(state, step)
    weights = plan.ramp.weights
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return go_back(plan, state, f"{worker.id} could not be admitted: {at.why}", now_s, blamed=worker.id)
    if gone := gone_for(known, now_s):
        return Note(StepFailed(now_s, step.id, gone))
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        by_steps = plan.ramp.utilisation_max is None
        return _unseen(state, step, at, known, now_s) or perform(
            state, step, now_s, weight=weights[min(at.weights_applied, len(weights) - 1)] if by_steps else at.weight or weights[0]
        )
    applied_at_s = at.applied_at_s or now_s
    if plan.ramp.utilisation_max is not None and at.weight != weights[-1]:
        return _rise(plan, state, step, at, now_s)
    if plan.ramp.utilisation_max is None and at.weights_applied < len(weights):
        next_at_s = applied_at_s + plan.ramp.step_s
        if now_s < next_at_s:
            return Wait("ramp", f"{worker.id} has {weights[at.weights_applied - 1]} % of its weight", next_at_s)
        return _unseen(state, step, at, known, now_s) or perform(state, step, now_s, weight=weights[at.weights_applied])
    sighting = seen_after(state, known, applied_at_s)
    proxy = sighting.proxy if sighting is not None else None
    if proxy is not None and proxy.admitted and proxy.up and proxy.weight == weights[-1]:
        return Note(StepFinished(now_s, step.id, f"{worker.id} takes its full share"))
    deadline_at_s = applied_at_s + step.deadline_s
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s the proxy does not show it with its full weight"))
    return Wait("ramp", f"the proxy has yet to show {worker.id} with its full weight", deadline_at_s)


def _rise(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    """Give a worker as much more as it can bear, by what it used at its present weight."""
    worker, known = worker_of(plan, step), known_of(state, step)
    weight, applied_at_s = at.weight or plan.ramp.weights[0], at.applied_at_s or now_s
    deadline_at_s = (at.began_at_s or now_s) + step.deadline_s
    if now_s >= deadline_at_s:
        what = "how busy it is can't be measured" if known.ramp is None else "more would be too much for it"
        why = f"{worker.id} has only {weight} % of its weight after {step.deadline_s:.0f} s: {what}"
        # Unmeasured is no failure.
        return stop(now_s, f"{why} ({known.unmeasured})") if known.ramp is None else Note(StepFailed(now_s, step.id, why))
    next_at_s = max(applied_at_s + plan.ramp.step_s, now_s if known.ramp is not None else now_s + plan.sample_s)
    if now_s < next_at_s or known.ramp is None:
        return Wait("ramp", f"{worker.id} has {weight} % of its weight", next_at_s)
    wanted = next_weight(weight, known.ramp, known.baseline, plan.ramp.utilisation_max or 1.0)
    if wanted == weight:
        return Wait("ramp", f"{worker.id} has {weight} % of its weight, and more would be too much for now", now_s + plan.sample_s)
    return _unseen(state, step, at, known, now_s) or perform(state, step, now_s, weight=wanted)


def _unseen(state: DeployState, step: Step, at: StepState, known: WorkerState, now_s: float) -> Decision | Wait | None:
    """Look before each act that sends a worker requests: it may have died since it was last given some. None when it is seen well."""
    sighting = seen_lately(state, known, now_s)
    if sighting is not None and sighting.healthy is True and sighting.proxy is not None and sighting.proxy.up:
        return None
    # Taken up later it has its whole time again.
    deadline_at_s = (at.began_at_s or now_s) + step.deadline_s
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s it is not seen to answer"))
    # That a look has yet to come goes without saying.
    quiet = sighting is None and now_s - known.acted_at_s <= LOOK_FRESH_S
    why = f"{step.worker} is not seen to answer, so it gets nothing (more) for now"
    return Wait("boot", why, min(deadline_at_s, now_s + LOOK_FRESH_S), quiet=quiet)


def let_go(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    worker, known = worker_of(plan, step), known_of(state, step)
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    if at.status is StepStatus.FAILED:
        return go_back(plan, state, f"what waited for {worker.id} could not be let go: {at.why}", now_s, blamed=worker.id)
    if at.status is StepStatus.ACTIVE:
        if at.permanent or at.attempts >= step.attempts_max:
            return Note(StepFailed(now_s, step.id, at.why))
        return _unseen(state, step, at, known, now_s) or perform(state, step, now_s)
    applied_at_s = at.applied_at_s or now_s
    sighting = seen_after(state, known, applied_at_s)
    proxy = sighting.proxy if sighting is not None else None
    if proxy is not None and not proxy.holding and proxy.admitted and proxy.up:
        waited = f" ({proxy.hold.waiting_max} at the most)" if proxy.hold.waiting_max else ""
        lost = f"; {text}" if (text := not_held(known)) else ""
        return Note(StepFinished(now_s, step.id, f"what waited for {worker.id} goes on{waited}{lost}"))
    deadline_at_s = applied_at_s + step.deadline_s
    if now_s >= deadline_at_s:
        return Note(StepFailed(now_s, step.id, f"after {step.deadline_s:.0f} s the proxy does not show it with its requests"))
    return Wait("hold", f"the proxy has yet to show that {worker.id} gets its requests", deadline_at_s)
