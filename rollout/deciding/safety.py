"""
Bringing back what is out, before the rollout stops.

Nothing of ours stays drained: each worker that we took out is admitted as soon as it answers, at its full weight, without the ramp,
because whoever asked us to stop may end us within seconds. A worker that isn't running is started once: on what its link names, or, on
the way back, on what it ran before, since the release that failed is never admitted again.
"""

from rollout.deciding.acting import next_number
from rollout.deciding.decision import Decision, Finish, Perform, Wait
from rollout.deciding.index import index_of
from rollout.deciding.seeing import LOOK_FRESH_S, last_seen_s, seen_lately
from rollout.deciding.state import DeployState, StepStatus, WorkerState, is_taken_back
from rollout.model.effect import Effect
from rollout.model.event import Outcome
from rollout.model.ids import ReleaseId, StepId, WorkerId
from rollout.model.plan import Plan, Verb, goes_back_to
from rollout.model.release import Release
from rollout.model.sighting import Sighting, runs, started_since

# Longer than any boot that was measured under load (7.4 s), short enough for someone who waits at a terminal.
SAFE_WITHIN_S = 60.0


def wind_down(plan: Plan, state: DeployState, now_s: float) -> Decision | Wait:
    """Say what to do next to leave nothing of ours out; Finish when there is nothing left to do, or nothing more that can be done."""
    wait: Wait | None = None
    for worker, known in state.workers.items():
        flight = [effect for effect in (*state.in_flight.values(), *state.in_doubt.values()) if effect.worker == worker]
        if flight:
            wait = wait or Wait("stopping", f"{flight[0].step_id} is being done", now_s + 1.0)
            continue
        if not _is_out(state, known):
            if state.wind_down_at_s <= known.acted_at_s and last_seen_s(state, known) <= known.acted_at_s:
                # Whoever did it says so; that it is so is seen.
                wait = wait or Wait("stopping", f"{worker} has yet to be seen back", now_s + 1.0, quiet=True)
            elif _is_silent(plan, worker, known) and now_s < state.wind_down_at_s + SAFE_WITHIN_S:
                wait = wait or Wait("stopping", f"{worker} was restarted and has yet to answer", now_s + 1.0)
            continue
        if now_s >= state.wind_down_at_s + SAFE_WITHIN_S:
            continue
        answer = bring_back(plan, state, worker, known, now_s)
        if not isinstance(answer, Wait):
            return answer
        wait = wait or answer
    if wait is not None and now_s < state.wind_down_at_s + 2 * SAFE_WITHIN_S:
        return wait
    return _end(plan, state)


def _is_out(state: DeployState, known: WorkerState) -> bool:
    """Tell whether it is ours to bring back, for whichever reason."""
    return known.drained_by_us or is_down(known) or is_left_out(state, known)


def is_down(known: WorkerState) -> bool:
    """A worker that we restarted and that doesn't run is ours to bring back, drained or not."""
    process = known.sighting.process if known.sighting is not None else None
    return known.touched and process is not None and not process.running


def is_left_out(state: DeployState, known: WorkerState) -> bool:
    """Tell whether it is seen to be out with our mark, whatever was said: left so by an earlier rollout, or admitted by word alone."""
    sighting = known.sighting
    if sighting is None or sighting.drain is None or last_seen_s(state, known) <= known.acted_at_s:
        return False
    if sighting.drain.condemned is not None and not known.touched:
        # It was being taken back then; before its turn it stays as it was found.
        return False
    # What the proxy doesn't say isn't known to be in.
    proxy = sighting.proxy
    return proxy is None or not proxy.admitted or proxy.weight == 0 or proxy.holding


def _is_silent(plan: Plan, worker: WorkerId, known: WorkerState) -> bool:
    """A worker that we restarted, and that isn't seen to answer (any more), by itself and at its proxy: nobody can say that it is back."""
    sighting = known.sighting
    if not known.touched or sighting is None:
        return known.touched
    proxied = index_of(plan).pools[worker] is not None
    return sighting.healthy is not True or (proxied and (sighting.proxy is None or not sighting.proxy.up))


def bring_back(plan: Plan, state: DeployState, worker: WorkerId, known: WorkerState, now_s: float) -> Decision | Wait:
    sighting = seen_lately(state, known, now_s)
    if sighting is None:
        return Wait("stopping", f"{worker} is out and has not been seen lately", now_s + LOOK_FRESH_S)
    process = sighting.process
    if process is None:
        return Wait("stopping", f"{worker} is out and its process cannot be seen", now_s + LOOK_FRESH_S)
    old = goes_back_to(plan, worker)
    # On the way back only what it ran before may be admitted, and only when it is seen to run that.
    condemned = is_taken_back(state, worker) and not _runs_as_before(sighting, plan.releases[old])
    # So may an earlier rollout have said, whose mark it still has.
    condemned = condemned or (sighting.drain is not None and sighting.drain.condemned not in {None, old} and not _left(sighting))
    if condemned and process.running and sighting.proxy is not None and sighting.proxy.sessions != 0:
        # Nothing is cut to save time: if they don't end, it stays out, and is named.
        return Wait("stopping", f"{worker} still has sessions on the release that is taken back", now_s + 1.0)
    if condemned or not process.running:
        if known.restarts_to_safety:
            return Wait("stopping", f"{worker} has been started and has yet to answer", now_s + 1.0)
        return _aside(plan, state, Verb.RESTART, worker, old if condemned else process.activated or old, now_s)
    if sighting.healthy is not True or sighting.proxy is None or not sighting.proxy.up:
        return Wait("stopping", f"{worker} has yet to answer before it is admitted", now_s + 1.0)
    return _aside(plan, state, Verb.LET_GO if is_held(plan, worker) else Verb.ADMIT, worker, process.activated or old, now_s)


def _left(sighting: Sighting) -> bool:
    """Tell whether a worker has left the release that its mark condemns."""
    process, mark = sighting.process, sighting.drain
    return process is None or mark is None or process.activated != mark.condemned


def _runs_as_before(sighting: Sighting, old: Release) -> bool:
    """
    Tell whether a worker that is taken back runs what it ran before.

    Its link and its start say so. That it reports its version besides is asked where it can be read: without metrics it is no less back.
    """
    process, answer = sighting.process, runs(sighting, old)
    if answer is None and process is not None:
        return process.activated == old.id and started_since(process) is True
    return answer is True


def is_held(plan: Plan, worker: WorkerId) -> bool:
    """Tell whether a worker is held, rather than drained, while it restarts."""
    out = index_of(plan).forward.out.get(worker)
    return out is not None and out.verb is Verb.HOLD


def _aside(plan: Plan, state: DeployState, verb: Verb, worker: WorkerId, release: ReleaseId, now_s: float) -> Decision:
    """Number an effect that belongs to no step of the plan."""
    effect = Effect(
        number=next_number(state),
        step_id=StepId(f"{worker}/safety"),
        verb=verb,
        worker=worker,
        release=release,
        deadline_at_s=now_s + SAFE_WITHIN_S,
        why="nothing of ours stays out",
        condemned=plan.to_release.id if is_taken_back(state, worker) and plan.to_release.id != release else None,
    )
    return Perform(effect)


def _end(plan: Plan, state: DeployState) -> Decision:
    unknown = {effect.worker for effect in (*state.in_flight.values(), *state.in_doubt.values())}
    out = tuple(
        worker for worker, known in state.workers.items() if worker in unknown or _is_silent(plan, worker, known) or _is_out(state, known)
    )
    if out:
        return Finish(Outcome.HALTED, f"{state.wind_down_why}; {', '.join(out)} could not be brought back", drained=out)
    if state.winding_down is Outcome.ABORTED and any(known.touched for known in state.workers.values()):
        touched = ", ".join(worker for worker, known in state.workers.items() if known.touched)
        return Finish(Outcome.HALTED, f"{state.wind_down_why}; releases are mixed: {touched} was restarted")
    return Finish(state.winding_down or Outcome.PAUSED, state.wind_down_why)


def readmit_untouched(plan: Plan, state: DeployState, now_s: float) -> Decision | Wait | None:
    """On the way back: admit workers that were drained but not restarted; None when there are none (left)."""
    for worker, known in state.workers.items():
        if not (known.drained_by_us or is_left_out(state, known)) or (known.touched and not _is_kept_out(plan, state, worker)):
            continue
        if any(effect.worker == worker for effect in (*state.in_flight.values(), *state.in_doubt.values())):
            return Wait("rollback", f"{worker} is being admitted", now_s + 1.0)
        return bring_back(plan, state, worker, known, now_s)
    return None


def _is_kept_out(plan: Plan, state: DeployState, worker: WorkerId) -> bool:
    """Tell whether a worker that isn't taken back was being drained once more, its restart having been seen not to happen."""
    drain = index_of(plan).forward.out.get(worker)
    return drain is not None and not is_taken_back(state, worker) and state.steps[drain.id].status is not StepStatus.DONE
