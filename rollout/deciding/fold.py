"""
State + event -> state. Every event of the journal has its row here; an event that cannot follow is our bug and raises
ImpossibleEventError.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import TypeVar, assert_never

from rollout.deciding.seeing import known_of
from rollout.deciding.soaking import gates_asked
from rollout.deciding.state import TRANSITIONS, DeployState, Direction, StepState, StepStatus, Waiting, WorkerState, is_taken_back
from rollout.gating import guards as guard_rules
from rollout.gating import windows
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
from rollout.model.gate import Gate, Measured, Ruling, Tally
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.plan import Plan, Step, Verb, steps_of
from rollout.model.sighting import Observation, Sighting, grown

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class ImpossibleEventError(Exception):
    """The journal says something that cannot have followed: our bug, or a journal that was tampered with."""


def start(plan: Plan) -> DeployState:
    """Return the state before anything has happened."""
    return DeployState(
        workers={worker.id: WorkerState() for worker in plan.workers},
        steps={step.id: StepState() for step in (*steps_of(plan.phases), *steps_of(plan.rollback))},
    )


def fold(plan: Plan, state: DeployState, event: Event) -> DeployState:
    """Take one event into the state. Time never runs backwards: an earlier `at_s` counts as the last one."""
    at_s = max(event.at_s, state.last_at_s)
    state = replace(state, last_at_s=at_s, lines=state.lines + 1)
    match event:
        case DeployBegan():
            state = replace(state, token=event.token)
            return replace(state, began=True, began_at_s=at_s, progress_at_s=at_s, last_number=max(state.last_number, event.last_number))
        case DeployResumed():
            return _resume(state, event, at_s)
        case LeaseLost():
            return replace(state, lease_lost=event.why, taken_over=event.taken_over or state.taken_over)
        case LeaseRegained():
            return replace(state, lease_lost="")
        case EffectIntended():
            return _intend(state, event.effect, at_s)
        case EffectSucceeded():
            state = _succeed(plan, state, event.number, at_s)
            for worker, warmed in event.warmed.items():
                state = _with_worker(state, worker, replace(state.workers[worker], warmed=warmed))
            return state if event.release is None else replace(state, prepared=event.release)
        case EffectFailed():
            return _fail_effect(state, event)
        case EffectInDoubt():
            effect = _known(state.in_flight, event.number)
            state = _acted(_move(state, effect.step_id, event, why=event.why), effect, at_s)
            return replace(state, in_flight=_without(state.in_flight, event.number), in_doubt=_with(state.in_doubt, event.number, effect))
        case EffectObserved():
            return _settle(plan, state, event, at_s)
        case Observed():
            return _observe(plan, state, event.observation)
        case SamplesTaken():
            return _measure(plan, state, event.measured)
        case BaselineFound():
            return _find_baseline(state, event)
        case StepBegan():
            return _with_step(_move(state, event.step_id, event), event.step_id, began_at_s=at_s)
        case StepFinished():
            state = _with_step(_move(state, event.step_id, event, why=event.why), event.step_id, finished_at_s=at_s)
            return _finish_step(plan, replace(state, progress_at_s=at_s), _step(plan, event.step_id), event, at_s)
        case StepFailed():
            return _with_step(_move(state, event.step_id, event, why=event.why), event.step_id, finished_at_s=at_s)
        case WaitBegan():
            return replace(state, waiting=Waiting(event.cause, event.why))
        case GateRuled():
            return _rule(state, event)
        case RollbackBegan():
            return replace(
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
            return replace(state, winding_down=event.outcome, wind_down_why=event.why, wind_down_at_s=at_s, asked=None, waiting=None)
        case OperatorSpoke():
            return _hear(state, event)
        case DeployFinished():
            return replace(state, outcome=event.outcome, outcome_why=event.why, waiting=None)
        case _:
            assert_never(event)


def _resume(state: DeployState, event: DeployResumed, at_s: float) -> DeployState:
    return replace(
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
        last_number=EffectNumber(max(state.last_number, event.last_number)),
        workers={worker: replace(known, restarts_to_safety=0, unhealthy_since_s=None) for worker, known in state.workers.items()},
    )


def _take_up(step: StepState, at_s: float) -> StepState:
    """Deadlines and attempts count from now on: the time in which nobody was there is not the worker's fault."""
    if step.status in {StepStatus.PENDING, StepStatus.DONE}:
        return replace(step, attempts=0)
    return replace(
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
        state = _with_step(_move(state, effect.step_id, EffectIntended(at_s, effect)), effect.step_id, intended_at_s=at_s)
    state = replace(state, in_flight=_with(state.in_flight, effect.number, effect), last_number=effect.number, waiting=None)
    if effect.worker is None:
        return state
    worker = state.workers[effect.worker]
    if effect.verb in {Verb.DRAIN, Verb.HOLD}:
        worker = replace(worker, drained_by_us=True, users_moved=worker.users_moved or _sessions(worker))
    if effect.verb is Verb.RESTART:
        aside = effect.step_id not in state.steps
        worker = replace(worker, touched=True, restarts_to_safety=worker.restarts_to_safety + (1 if aside else 0))
    return _with_worker(state, effect.worker, worker)


def _succeed(plan: Plan, state: DeployState, number: EffectNumber, at_s: float) -> DeployState:
    effect = _known(state.in_flight, number)
    state = _acted(state, effect, at_s)
    return _happened(plan, replace(state, in_flight=_without(state.in_flight, number)), effect, EffectSucceeded(at_s, number), at_s)


def _happened(plan: Plan, state: DeployState, effect: Effect, event: Event, at_s: float) -> DeployState:
    if effect.step_id in state.steps:
        state = _move(state, effect.step_id, event)
        weights = state.steps[effect.step_id].weights_applied + (1 if effect.verb in {Verb.ADMIT, Verb.DRAIN} else 0)
        state = _with_step(state, effect.step_id, applied_at_s=at_s, weights_applied=weights, weight=effect.weight)
        if effect.verb is Verb.LET_GO and effect.worker is not None and _step(plan, effect.step_id).verb is Verb.HOLD:
            # Too little of the hold was left for the restart.
            state = _after_return(plan, state, effect.worker, at_s)
    elif effect.verb in {Verb.ADMIT, Verb.LET_GO} and effect.worker is not None:
        state = _after_return(plan, state, effect.worker, at_s)
    if effect.worker is None:
        return state
    worker = state.workers[effect.worker]
    if effect.verb is Verb.ADMIT:
        worker = replace(worker, ramp=None, ramp_since_s=at_s)
    if effect.verb is Verb.LET_GO or (effect.verb is Verb.ADMIT and effect.weight == FULL_WEIGHT):
        worker = replace(worker, drained_by_us=False)
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
            return replace(state, skipped=_with(state.skipped, worker, event.why))
        case Command.CONTINUE:
            return replace(state, asked=None) if state.asked is Command.PAUSE else state
        case Command.ROLLBACK | Command.PAUSE if state.asked in {Command.ABORT, Command.INTERRUPT}:
            return state
        case _:
            return replace(state, asked=event.command)


def _acted(state: DeployState, effect: Effect, at_s: float) -> DeployState:
    return state if effect.worker is None else _with_worker(state, effect.worker, replace(state.workers[effect.worker], acted_at_s=at_s))


def _after_return(plan: Plan, state: DeployState, worker: WorkerId, at_s: float) -> DeployState:
    """Winding down brought a worker back outside its steps: set them so that a resumed rollout goes on from what is true now."""
    # On the way back, who isn't taken back has only its steps forward to end.
    direction = state.direction if is_taken_back(state, worker) else Direction.FORWARD
    steps = {step.verb: step.id for step in _phases_steps(plan, direction) if step.worker == worker}
    out, back = (Verb.HOLD, Verb.LET_GO) if Verb.HOLD in steps else (Verb.DRAIN, Verb.ADMIT)
    restart, drain, admit = (state.steps[steps[verb]] if verb in steps else None for verb in (Verb.RESTART, out, back))
    if drain is not None and restart is not None and restart.status in {StepStatus.PENDING, StepStatus.ACTIVE}:
        # Not restarted yet: it must be drained again first. What has been tried counts, or it could go on for ever.
        state = _put_step(state, steps[out], StepState(attempts=drain.attempts + 1, why="it was let go before its restart"))
        state = _put_step(state, steps[Verb.RESTART], StepState(attempts=restart.attempts, why=restart.why))
    elif admit is not None and admit.status is not StepStatus.DONE:
        state = _put_step(state, steps[back], replace(admit, status=StepStatus.DONE, finished_at_s=at_s, why="brought back while stopping"))
        state = _skip_warming(plan, state, worker, direction, at_s)
        if state.steps[steps[Verb.AWAIT_HEALTHY]].status is not StepStatus.DONE:
            state = _put_step(
                state, steps[Verb.AWAIT_HEALTHY], StepState(status=StepStatus.DONE, finished_at_s=at_s, why="seen while stopping")
            )
        state = _begin_evidence(state, worker, at_s)
    return state


def _skip_warming(plan: Plan, state: DeployState, worker: WorkerId, direction: Direction, at_s: float) -> DeployState:
    for step in _phases_steps(plan, direction):
        if step.verb is Verb.WARM and step.worker == worker and state.steps[step.id].status is not StepStatus.DONE:
            state = _put_step(state, step.id, StepState(status=StepStatus.DONE, finished_at_s=at_s, why="it has its users back already"))
    return state


def _fail_effect(state: DeployState, event: EffectFailed) -> DeployState:
    effect = _known(state.in_flight, event.number)
    state = _acted(replace(state, in_flight=_without(state.in_flight, event.number)), effect, state.last_at_s)
    if event.fenced:
        state = replace(state, lease_lost=event.why, taken_over=True)
    if event.unheld:
        state = replace(state, lease_lost=event.why)
    if event.unheld or event.fenced:
        state = _not_taken_out(state, effect)
    # Somebody else has acted, by hand or because nobody seemed to live: what follows has to be numbered above that.
    state = replace(state, last_number=EffectNumber(max(state.last_number, event.ledger_number)))
    if effect.step_id not in state.steps:
        return state
    state = _move(state, effect.step_id, event, why=event.why)
    return _with_step(state, effect.step_id, attempts=state.steps[effect.step_id].attempts + (not event.unheld), permanent=event.permanent)


def _not_taken_out(state: DeployState, effect: Effect) -> DeployState:
    """Take back what the intent of a drain said of its worker: it was refused before anything was done. On the way back it may be out."""
    step = state.steps.get(effect.step_id)
    if effect.worker is None or effect.verb not in {Verb.DRAIN, Verb.HOLD} or step is None or step.applied_at_s is not None:
        return state
    known = state.workers[effect.worker]
    return state if known.touched else _with_worker(state, effect.worker, replace(known, drained_by_us=False))


def _settle(plan: Plan, state: DeployState, event: EffectObserved, at_s: float) -> DeployState:
    effect = _known(state.in_doubt, event.number)
    state = replace(state, in_doubt=_without(state.in_doubt, event.number))
    if event.happened:
        return _happened(plan, state, effect, event, at_s)
    if effect.step_id not in state.steps:
        return state
    before = state.steps[effect.step_id]
    state = _move(state, effect.step_id, event, why=before.why or event.why)
    # What was begun in an earlier life of the tool is not counted against the worker.
    mine = (before.intended_at_s or 0.0) >= state.fresh_after_s
    return _with_step(state, effect.step_id, attempts=before.attempts + mine)


def _observe(plan: Plan, state: DeployState, seen: Observation) -> DeployState:
    workers = dict(state.workers)
    for worker, known in workers.items():
        if worker in seen.missing:
            workers[worker] = replace(known, missing=seen.missing[worker])
            continue
        sighting = seen.sightings.get(worker, known.sighting)
        if sighting is None:
            continue
        well = sighting.healthy is True and (sighting.proxy is None or sighting.proxy.up)
        since = None if well else (seen.taken_at_s if known.unhealthy_since_s is None else known.unhealthy_since_s)
        well_since_s = (known.well_since_s or seen.taken_at_s) if well else None
        workers[worker] = replace(
            _with_hold(known, sighting),
            sighting=sighting,
            seen_at_s=seen.taken_at_s,
            missing="",
            unhealthy_since_s=since,
            well_since_s=well_since_s,
        )
    guards = seen.guards or state.guards
    broken = bool(guard_rules.broken(plan.guards, guards))
    since_s = (seen.taken_at_s if state.guard_broken_since_s is None else state.guard_broken_since_s) if broken else None
    if seen.pools:
        state = replace(state, pools=seen.pools, proxy=seen.proxy, proxy_seen_at_s=seen.taken_at_s)
    return replace(
        state,
        workers=workers,
        guards=guards,
        guard_broken_since_s=since_s,
        schema=seen.schema or state.schema,
        releases_seen=frozenset(seen.releases) or state.releases_seen,
        observed_at_s=seen.taken_at_s,
    )


def _with_hold(known: WorkerState, sighting: Sighting) -> WorkerState:
    if sighting.proxy is None:
        return known
    before, now = known.hold or sighting.proxy.hold, sighting.proxy.hold
    shed, late = grown(before.shed, now.shed), grown(before.let_go_late, now.let_go_late)
    return replace(known, hold=now, shed=known.shed + shed, let_go_late=known.let_go_late + late)


def _measure(plan: Plan, state: DeployState, measured: Measured) -> DeployState:
    forward = steps_of(plan.phases)
    surveying = any(state.steps[step.id].status is StepStatus.ACTIVE for step in forward if step.verb is Verb.SURVEY)
    gates = {step.worker: step.gates for step in forward if step.verb is Verb.SOAK}
    pools = {worker.id: worker.pool for worker in plan.workers}
    workers: dict[WorkerId, WorkerState] = {}
    for worker, known in state.workers.items():
        beside = {
            peer: tally
            for peer, tally in measured.tallies.items()
            if peer != worker and pools[worker] is not None and pools.get(peer) == pools[worker]
        }
        peers = list(beside.values())
        untouched = [tally for peer, tally in beside.items() if not state.workers[peer].touched]
        own = measured.tallies.get(worker)
        summed = _with_tally(known, own, peers, measured.unmeasured.get(worker), surveying=surveying)
        if own is not None:
            controls = reduce(_join, untouched) if untouched else None
            summed = _with_windows(plan, summed, own, peers, controls, [plan.gates[name] for name in gates.get(worker, ())])
        workers[worker] = summed
    return replace(state, workers=workers)


def _with_tally(known: WorkerState, own: Tally | None, peers: list[Tally], unmeasured: str | None, *, surveying: bool) -> WorkerState:
    if own is not None:
        baseline = _join(known.baseline, own) if surveying else known.baseline
        after = _join(known.after, own) if _after(known, own) else known.after
        known = replace(known, unmeasured=None, baseline=baseline, after=after)
    elif unmeasured is not None:
        known = replace(known, unmeasured=unmeasured)
    for peer in peers:
        if _after(known, peer):
            known = replace(known, controls=_join(known.controls, peer))
    return known


def _with_windows(plan: Plan, known: WorkerState, own: Tally, peers: list[Tally], controls: Tally | None, gates: list[Gate]) -> WorkerState:
    """Keep what the ramp, the load-recovery gate and the watch look at: stretches of time, not one long sum."""
    if known.ramp_since_s is not None and own.since_s >= known.ramp_since_s:
        known = replace(known, ramp=_join(known.ramp, own))
    if own.canaries > own.canary_failures:
        known = replace(known, canary_answered_at_s=own.until_s)
    if _after(known, own):
        watched = {
            gate.id: windows.extend(known.watched.get(gate.id, ()), own, peers, plan.watch.window_s, controls, gate)
            for gate in gates
            if gate.metric not in windows.BURSTS
        }
        known = replace(known, windows=windows.extend(known.windows, own, peers, plan.watch.window_s, controls), watched=watched)
    return known


def _find_baseline(state: DeployState, event: BaselineFound) -> DeployState:
    found = {worker: replace(state.workers[worker], baseline=tally) for worker, tally in event.tallies.items() if worker in state.workers}
    return replace(state, workers={**state.workers, **found}, baseline_found=frozenset(found), baseline_source=event.source)


def _after(worker: WorkerState, tally: Tally) -> bool:
    # A tally that began before the worker was fully back also holds the ramp, so it is left out.
    return worker.admitted_at_s is not None and tally.since_s >= worker.admitted_at_s


def _join(earlier: Tally | None, later: Tally) -> Tally:
    return later if earlier is None else earlier + later


def _rule(state: DeployState, event: GateRuled) -> DeployState:
    worker = state.workers[event.worker]
    state = _with_worker(state, event.worker, replace(worker, verdicts=_with(worker.verdicts, event.verdict.gate, event.verdict)))
    if state.direction is Direction.BACK and event.verdict.ruling is Ruling.FAIL:
        return replace(state, rollback_failures=(*state.rollback_failures, f"{event.worker}: {event.verdict.because}"))
    return state


def _finish_step(plan: Plan, state: DeployState, step: Step, event: StepFinished, at_s: float) -> DeployState:
    """Evidence counts from the moment at which a worker carries its full share again: after its ramp, or its boot if it has none."""
    if step.worker is None:
        return state
    if step.verb is Verb.SOAK and state.direction is Direction.BACK:
        return _keep_unproven(plan, state, step, event.why)
    comes_back = (Verb.ADMIT, Verb.LET_GO)
    ramped = any(other.verb in comes_back and other.worker == step.worker for other in _phases_steps(plan, state.direction))
    if step.verb in comes_back or (step.verb is Verb.AWAIT_HEALTHY and not ramped):
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
    return replace(state, rollback_failures=(*state.rollback_failures, why))


def _begin_evidence(state: DeployState, worker: WorkerId, at_s: float) -> DeployState:
    cleared = replace(state.workers[worker], after=None, controls=None, unmeasured=None, verdicts={}, windows=(), ramp_since_s=None)
    return _with_worker(state, worker, replace(cleared, watched={}, admitted_at_s=at_s))


def _phases_steps(plan: Plan, direction: Direction) -> tuple[Step, ...]:
    return steps_of(plan.phases if direction is Direction.FORWARD else plan.rollback)


def _step(plan: Plan, step_id: StepId) -> Step:
    return next(step for step in (*steps_of(plan.phases), *steps_of(plan.rollback)) if step.id == step_id)


def _move(state: DeployState, step_id: StepId, event: Event, *, why: str = "") -> DeployState:
    if step_id not in state.steps:
        return state
    step = state.steps[step_id]
    happened = event.happened if isinstance(event, EffectObserved) else True
    status = TRANSITIONS.get((step.status, type(event), happened))
    if status is None:
        msg = f"{type(event).__name__} cannot follow: step {step_id} is {step.status}"
        raise ImpossibleEventError(msg)
    return _put_step(state, step_id, replace(step, status=status, why=why or step.why))


def _with_step(state: DeployState, step_id: StepId, **changes: float | str | bool | None) -> DeployState:
    return _put_step(state, step_id, replace(state.steps[step_id], **changes))  # type: ignore[arg-type]


def _put_step(state: DeployState, step_id: StepId, step: StepState) -> DeployState:
    return replace(state, steps=_with(state.steps, step_id, step))


def _with_worker(state: DeployState, worker_id: WorkerId, worker: WorkerState) -> DeployState:
    return replace(state, workers=_with(state.workers, worker_id, worker))


def _known(effects: Mapping[EffectNumber, Effect], number: EffectNumber) -> Effect:
    if number not in effects:
        msg = f"an outcome for effect {number}, which is not under way"
        raise ImpossibleEventError(msg)
    return effects[number]


def _with(mapping: Mapping[_Key, _Value], key: _Key, value: _Value) -> dict[_Key, _Value]:
    return {**mapping, key: value}


def _without(mapping: Mapping[_Key, _Value], key: _Key) -> dict[_Key, _Value]:
    return {other: value for other, value in mapping.items() if other != key}
