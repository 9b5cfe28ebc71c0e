"""
State + event -> state. Every event of the journal has its row here; an event that cannot follow is our bug and raises
ImpossibleEventError. What was seen and measured is folded in noticing.py.
"""

from collections.abc import Mapping
from typing import TypeVar, assert_never

from rollout.deciding.index import index_of
from rollout.deciding.noticing import find_baseline, measure, observe
from rollout.deciding.seeing import known_of
from rollout.deciding.soaking import gates_asked
from rollout.deciding.state import TRANSITIONS, DeployState, Direction, StepState, StepStatus, Waiting, WorkerState, is_taken_back
from rollout.model.changed import changed
from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.event import (
    BaselineFound,
    Command,
    DeployBegan,
    DeployFinished,
    DeployResumed,
    EffectFailed,
    EffectInDoubt,
    EffectIntended,
    EffectObserved,
    EffectSucceeded,
    Event,
    GateRuled,
    LeaseLost,
    LeaseRegained,
    Observed,
    OperatorSpoke,
    RollbackBegan,
    SamplesTaken,
    StepBegan,
    StepFailed,
    StepFinished,
    WaitBegan,
    WindDownBegan,
)
from rollout.model.gate import Ruling
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Plan, Step, Verb, steps_of

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class ImpossibleEventError(Exception):
    """The journal says something that cannot have followed: our bug, or a journal that was tampered with."""


def start(plan: Plan) -> DeployState:
    """Return the state before anything has happened."""
    return DeployState(
        workers={worker.id: WorkerState() for worker in plan.workers},
        steps=dict.fromkeys((step.id for step in (*steps_of(plan.phases), *steps_of(plan.rollback))), StepState()),
    )


def fold(plan: Plan, state: DeployState, event: Event) -> DeployState:
    """Take one event into the state. Time never runs backwards: an earlier `at_s` counts as the last one."""
    at_s = max(event.at_s, state.last_at_s)
    state = changed(state, last_at_s=at_s, lines=state.lines + 1)
    match event:
        case DeployBegan():
            state = changed(state, token=event.token, end_by_s=event.end_by_s)
            number = max(state.last_number, event.last_number)
            return changed(state, began=True, began_at_s=at_s, progress_at_s=at_s, last_number=number)
        case DeployResumed():
            return _resume(state, event, at_s)
        case LeaseLost():
            return changed(state, lease_lost=event.why, taken_over=event.taken_over or state.taken_over)
        case LeaseRegained():
            return changed(state, lease_lost="")
        case EffectIntended():
            return _intend(state, event.effect, at_s)
        case EffectSucceeded():
            state = _succeed(plan, state, event.number, at_s)
            for worker, warmed in event.warmed.items():
                state = _with_worker(state, worker, changed(state.workers[worker], warmed=warmed))
            return state if event.release is None else changed(state, prepared=event.release)
        case EffectFailed():
            return _fail_effect(state, event)
        case EffectInDoubt():
            effect = _known(state.in_flight, event.number)
            state = _acted(_move(state, effect.step_id, event, why=event.why), effect, at_s)
            return changed(state, in_flight=_without(state.in_flight, event.number), in_doubt=_with(state.in_doubt, event.number, effect))
        case EffectObserved():
            return _settle(plan, state, event, at_s)
        case Observed():
            return observe(plan, state, event.observation)
        case SamplesTaken():
            return measure(plan, state, event.measured)
        case BaselineFound():
            return find_baseline(state, event)
        case StepBegan():
            return _move(state, event.step_id, event, began_at_s=at_s)
        case StepFinished():
            state = changed(_move(state, event.step_id, event, why=event.why, finished_at_s=at_s), progress_at_s=at_s)
            return _finish_step(plan, state, index_of(plan).steps[event.step_id], event, at_s)
        case StepFailed():
            return _move(state, event.step_id, event, why=event.why, finished_at_s=at_s)
        case WaitBegan():
            return changed(state, waiting=Waiting(event.cause, event.why, at_s))
        case GateRuled():
            return _rule(plan, state, event)
        case RollbackBegan():
            return changed(
                state,
                direction=Direction.BACK,
                rollback_why=event.why,
                rollback_requested=event.requested,
                blamed=frozenset(event.blamed),
                progress_at_s=at_s,
                asked=None,
                waiting=None,
            )
        case WindDownBegan():
            return changed(state, winding_down=event.outcome, wind_down_why=event.why, wind_down_at_s=at_s, asked=None, waiting=None)
        case OperatorSpoke():
            return _hear(state, event)
        case DeployFinished():
            return changed(state, outcome=event.outcome, outcome_why=event.why, waiting=None)
        case _:
            assert_never(event)


def _resume(state: DeployState, event: DeployResumed, at_s: float) -> DeployState:
    return changed(
        state,
        steps={step_id: _take_up(step, at_s) for step_id, step in state.steps.items()},
        outcome=None,
        winding_down=None,
        asked=None,
        waiting=None,
        guard_broken_since_s=None,
        fresh_after_s=at_s,
        token=event.token,
        lease_lost="",
        taken_over=False,
        progress_at_s=at_s,
        end_by_s=event.end_by_s,
        last_number=EffectNumber(max(state.last_number, event.last_number)),
        workers={worker: changed(known, restarts_to_safety=0, unhealthy_since_s=None) for worker, known in state.workers.items()},
    )


def _take_up(step: StepState, at_s: float) -> StepState:
    """Deadlines and attempts count from now on: the time in which nobody was there is not the worker's fault."""
    if step.status in {StepStatus.PENDING, StepStatus.DONE}:
        return changed(step, attempts=0)
    return changed(
        step,
        status=StepStatus.ACTIVE if step.status is StepStatus.FAILED else step.status,
        began_at_s=at_s,
        applied_at_s=None if step.applied_at_s is None else at_s,
        attempts=0,
        permanent=False,
    )


def _intend(state: DeployState, effect: Effect, at_s: float) -> DeployState:
    if effect.number <= state.last_number:
        msg = f"effect {effect.number} follows {state.last_number}"
        raise ImpossibleEventError(msg)
    if effect.step_id in state.steps:
        state = _move(state, effect.step_id, EffectIntended(at_s, effect), intended_at_s=at_s)
    state = changed(state, in_flight=_with(state.in_flight, effect.number, effect), last_number=effect.number, waiting=None)
    if effect.worker is None:
        return state
    worker = state.workers[effect.worker]
    if effect.verb in {Verb.DRAIN, Verb.HOLD}:
        worker = changed(worker, drained_by_us=True, users_moved=worker.users_moved or _sessions(worker))
    if effect.verb is Verb.RESTART:
        aside = effect.step_id not in state.steps
        worker = changed(worker, touched=True, restarts_to_safety=worker.restarts_to_safety + (1 if aside else 0))
    return _with_worker(state, effect.worker, worker)


def _succeed(plan: Plan, state: DeployState, number: EffectNumber, at_s: float) -> DeployState:
    effect = _known(state.in_flight, number)
    state = _acted(state, effect, at_s)
    return _happened(plan, changed(state, in_flight=_without(state.in_flight, number)), effect, EffectSucceeded(at_s, number), at_s)


def _happened(plan: Plan, state: DeployState, effect: Effect, event: Event, at_s: float) -> DeployState:
    if effect.step_id in state.steps:
        weights = state.steps[effect.step_id].weights_applied + (1 if effect.verb in {Verb.ADMIT, Verb.DRAIN} else 0)
        state = _move(state, effect.step_id, event, applied_at_s=at_s, weights_applied=weights, weight=effect.weight)
        if effect.verb is Verb.LET_GO and effect.worker is not None and index_of(plan).steps[effect.step_id].verb is Verb.HOLD:
            # Too little of the hold was left for the restart.
            state = _after_return(plan, state, effect.worker, at_s)
    elif effect.verb in {Verb.ADMIT, Verb.LET_GO} and effect.worker is not None:
        state = _after_return(plan, state, effect.worker, at_s)
    if effect.worker is None:
        return state
    worker = state.workers[effect.worker]
    if effect.verb is Verb.ADMIT:
        worker = changed(worker, ramp=None, ramp_since_s=at_s)
    if effect.verb is Verb.LET_GO or (effect.verb is Verb.ADMIT and effect.weight == FULL_WEIGHT):
        worker = changed(worker, drained_by_us=False)
    return _with_worker(state, effect.worker, worker)


def _sessions(worker: WorkerState) -> int:
    proxy = worker.sighting.proxy if worker.sighting is not None else None
    return (proxy.sessions or 0) if proxy is not None else 0


def _hear(state: DeployState, event: OperatorSpoke) -> DeployState:
    """The last word counts, but asking for a stop is never overridden by asking for anything less."""
    match event.command:
        case Command.SKIP:
            worker = event.worker
            untouched = worker in state.workers and not state.workers[worker].touched and not state.workers[worker].drained_by_us
            if worker is None or not untouched or state.direction is Direction.BACK:
                return state
            return changed(state, skipped=_with(state.skipped, worker, event.why))
        case Command.CONTINUE:
            return changed(state, asked=None) if state.asked is Command.PAUSE else state
        case Command.ROLLBACK | Command.PAUSE if state.asked in {Command.ABORT, Command.INTERRUPT}:
            return state
        case _:
            return changed(state, asked=event.command)


def _acted(state: DeployState, effect: Effect, at_s: float) -> DeployState:
    return state if effect.worker is None else _with_worker(state, effect.worker, changed(state.workers[effect.worker], acted_at_s=at_s))


def _after_return(plan: Plan, state: DeployState, worker: WorkerId, at_s: float) -> DeployState:
    """Winding down brought a worker back outside its steps: set them so that a resumed rollout goes on from what is true now."""
    # On the way back, who isn't taken back has only its steps forward to end.
    direction = state.direction if is_taken_back(state, worker) else Direction.FORWARD
    steps = {step.verb: step.id for step in index_of(plan).way(direction).by_worker.get(worker, ())}
    out, back = (Verb.HOLD, Verb.LET_GO) if Verb.HOLD in steps else (Verb.DRAIN, Verb.ADMIT)
    restart, drain, admit = (state.steps[steps[verb]] if verb in steps else None for verb in (Verb.RESTART, out, back))
    if drain is not None and restart is not None and restart.status in {StepStatus.PENDING, StepStatus.ACTIVE}:
        # Not restarted yet: it must be drained again first. What has been tried counts, or it could go on for ever.
        state = _put_step(state, steps[out], StepState(attempts=drain.attempts + 1, why="it was let go before its restart"))
        state = _put_step(state, steps[Verb.RESTART], StepState(attempts=restart.attempts, why=restart.why))
    elif admit is not None and admit.status is not StepStatus.DONE:
        state = _put_step(state, steps[back], changed(admit, status=StepStatus.DONE, finished_at_s=at_s, why="brought back while stopping"))
        state = _skip_warming(plan, state, worker, direction, at_s)
        if state.steps[steps[Verb.AWAIT_HEALTHY]].status is not StepStatus.DONE:
            state = _put_step(
                state, steps[Verb.AWAIT_HEALTHY], StepState(status=StepStatus.DONE, finished_at_s=at_s, why="seen while stopping")
            )
        state = _begin_evidence(state, worker, at_s)
    return state


def _skip_warming(plan: Plan, state: DeployState, worker: WorkerId, direction: Direction, at_s: float) -> DeployState:
    for step in index_of(plan).way(direction).by_worker.get(worker, ()):
        if step.verb is Verb.WARM and state.steps[step.id].status is not StepStatus.DONE:
            state = _put_step(state, step.id, StepState(status=StepStatus.DONE, finished_at_s=at_s, why="it has its users back already"))
    return state


def _fail_effect(state: DeployState, event: EffectFailed) -> DeployState:
    effect = _known(state.in_flight, event.number)
    state = _acted(changed(state, in_flight=_without(state.in_flight, event.number)), effect, state.last_at_s)
    if event.fenced:
        state = changed(state, lease_lost=event.why, taken_over=True)
    if event.unheld:
        state = changed(state, lease_lost=event.why)
    if event.unheld or event.fenced:
        state = _not_taken_out(state, effect)
    # Somebody else has acted, by hand or because nobody seemed to live: what follows has to be numbered above that.
    state = changed(state, last_number=EffectNumber(max(state.last_number, event.ledger_number)))
    if effect.step_id not in state.steps:
        return state
    attempts = state.steps[effect.step_id].attempts + (not event.unheld)
    return _move(state, effect.step_id, event, why=event.why, attempts=attempts, permanent=event.permanent)


def _not_taken_out(state: DeployState, effect: Effect) -> DeployState:
    """Take back what the intent of a drain said of its worker: it was refused before anything was done. On the way back it may be out."""
    step = state.steps.get(effect.step_id)
    if effect.worker is None or effect.verb not in {Verb.DRAIN, Verb.HOLD} or step is None or step.applied_at_s is not None:
        return state
    known = state.workers[effect.worker]
    return state if known.touched else _with_worker(state, effect.worker, changed(known, drained_by_us=False))


def _settle(plan: Plan, state: DeployState, event: EffectObserved, at_s: float) -> DeployState:
    effect = _known(state.in_doubt, event.number)
    state = changed(state, in_doubt=_without(state.in_doubt, event.number))
    if event.happened:
        return _happened(plan, state, effect, event, at_s)
    if effect.step_id not in state.steps:
        return state
    before = state.steps[effect.step_id]
    # What was begun in an earlier life of the tool is not counted against the worker.
    mine = (before.intended_at_s or 0.0) >= state.fresh_after_s
    return _move(state, effect.step_id, event, why=before.why or event.why, attempts=before.attempts + mine)


def _rule(plan: Plan, state: DeployState, event: GateRuled) -> DeployState:
    worker, gate = state.workers[event.worker], plan.gates.get(event.verdict.gate)
    # Nobody heeds a gate that doesn't act, on the way back neither.
    failed = event.verdict.ruling is Ruling.FAIL and (gate is None or gate.acts)
    failed_at_s = state.last_at_s if failed else worker.failed_at_s
    worker = changed(worker, verdicts=_with(worker.verdicts, event.verdict.gate, event.verdict), failed_at_s=failed_at_s)
    state = _with_worker(state, event.worker, worker)
    if failed and state.direction is Direction.BACK:
        return changed(state, rollback_failures=(*state.rollback_failures, f"{event.worker}: {event.verdict.because}"))
    return state


def _finish_step(plan: Plan, state: DeployState, step: Step, event: StepFinished, at_s: float) -> DeployState:
    """Evidence counts from the moment at which a worker carries its full share again: after its ramp, or its boot if it has none."""
    if step.worker is None:
        return state
    if step.verb is Verb.SOAK and state.direction is Direction.BACK:
        return _keep_unproven(plan, state, step, event.why)
    ramped = step.worker in index_of(plan).way(state.direction).returned
    if step.verb in {Verb.ADMIT, Verb.LET_GO} or (step.verb is Verb.AWAIT_HEALTHY and not ramped):
        return _begin_evidence(state, step.worker, at_s)
    return state


def _keep_unproven(plan: Plan, state: DeployState, step: Step, why: str) -> DeployState:
    """
    On the way back a gate without a ruling ends nothing, but what was not shown to be well isn't called well.

    Each gate must have passed: one that is pending until its deadline has left no ruling at all. One that failed is kept already.
    """
    verdicts = known_of(state, step).verdicts
    rulings = {verdicts[gate].ruling if gate in verdicts else Ruling.PENDING for gate in gates_asked(plan, step)}
    if rulings == {Ruling.PASS} or Ruling.FAIL in rulings:
        return state
    return changed(state, rollback_failures=(*state.rollback_failures, why))


def _begin_evidence(state: DeployState, worker: WorkerId, at_s: float) -> DeployState:
    cleared = changed(state.workers[worker], after=None, controls=None, unmeasured=None, verdicts={}, windows=(), ramp_since_s=None)
    return _with_worker(state, worker, changed(cleared, watched={}, blocks=(), admitted_at_s=at_s))


def _move(state: DeployState, step_id: StepId, event: Event, *, why: str = "", **also: float | str | bool | None) -> DeployState:
    """Move a step to where *event* leads, and change what *also* follows from it."""
    if step_id not in state.steps:
        return state
    step = state.steps[step_id]
    happened = event.happened if isinstance(event, EffectObserved) else True
    status = TRANSITIONS.get((step.status, type(event), happened))
    if status is None:
        msg = f"{type(event).__name__} cannot follow: step {step_id} is {step.status}"
        raise ImpossibleEventError(msg)
    return _put_step(state, step_id, changed(step, status=status, why=why or step.why, **also))  # type: ignore[arg-type]


def _put_step(state: DeployState, step_id: StepId, step: StepState) -> DeployState:
    return changed(state, steps=_with(state.steps, step_id, step))


def _with_worker(state: DeployState, worker_id: WorkerId, worker: WorkerState) -> DeployState:
    return changed(state, workers=_with(state.workers, worker_id, worker))


def _known(effects: Mapping[EffectNumber, Effect], number: EffectNumber) -> Effect:
    if number not in effects:
        msg = f"an outcome for effect {number}, which is not under way"
        raise ImpossibleEventError(msg)
    return effects[number]


def _with(mapping: Mapping[_Key, _Value], key: _Key, value: _Value) -> dict[_Key, _Value]:
    return {**mapping, key: value}


def _without(mapping: Mapping[_Key, _Value], key: _Key) -> dict[_Key, _Value]:
    return {other: value for other, value in mapping.items() if other != key}
