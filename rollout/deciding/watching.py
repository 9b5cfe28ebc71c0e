"""
Watching those who have passed, while the others are rolled and a while longer: a release that gets worse slowly passes every first look.

The gates are those of the worker's SOAK, on one window after the other instead of one growing sum, in which what is new would be lost. They
are asked many times, so only two windows that fail, one after the other, count. Compared is with the worker's own past and with those of
its pool who still run the old release: the others may be getting worse as well. What a worker does of its own accord (WORK, BACKLOG) comes
in bursts longer than a window, so it isn't watched.
"""

from collections.abc import Iterator

from rollout.deciding.acting import go_back, stop
from rollout.deciding.decision import Decision, Note, Wait
from rollout.deciding.seeing import gone_for
from rollout.deciding.state import DeployState, Direction, StepState, StepStatus, WorkerState
from rollout.gating import threshold
from rollout.gating.windows import Window, complete
from rollout.model.event import GateRuled, StepBegan, StepFinished
from rollout.model.gate import Gate, Metric, Ruling, Verdict
from rollout.model.plan import Plan, Step, Verb, steps_of

_BURSTS = frozenset({Metric.WORK, Metric.BACKLOG})
_WINDOWS_TO_FAIL = 2
# A tally that is older than this many times the time between two measurements was not followed by another.
_FRESH_SAMPLES = 5.0


def alarm(plan: Plan, state: DeployState, now_s: float) -> Decision | None:
    """Answer the way back when somebody who had passed is no longer well; None otherwise."""
    for step, known in _watched(plan, state):
        worker = str(step.worker)
        if step.worker is None:
            continue
        if gone := gone_for(known, now_s):
            return go_back(plan, state, f"{worker} had passed, but {gone}", now_s, blamed=step.worker)
        for name in step.gates:
            verdict = _rule(plan.gates[name], known, complete(known.windows, plan.watch.window_s))
            if verdict is None:
                continue
            if (before := known.verdicts.get(name)) is None or before.ruling is not Ruling.FAIL:
                return Note(GateRuled(now_s, step.id, step.worker, verdict))
            return go_back(plan, state, f"{worker} had passed, but then failed {name}: {before.because}", now_s, blamed=step.worker)
    return None


def watch(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    """Wait until the last watch has ended, with everybody measured to its end."""
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    ends_at_s = (at.began_at_s or now_s) + plan.watch.watch_s
    if now_s < ends_at_s:
        return Wait("watch", f"everybody is watched for {plan.watch.watch_s:.0f} s more", ends_at_s)
    until_s = ends_at_s - _FRESH_SAMPLES * plan.sample_s
    unseen = [str(one.worker) for one, known in _watched(plan, state) if one.gates and _last_s(known) < until_s]
    if not unseen:
        return Note(StepFinished(now_s, step.id, "nobody who had passed has failed since"))
    why = f"{', '.join(unseen)} could not be measured to the end of the watch"
    if now_s >= (at.began_at_s or now_s) + step.deadline_s:
        return stop(now_s, why)
    return Wait("measurement", why, now_s + plan.sample_s)


def _watched(plan: Plan, state: DeployState) -> Iterator[tuple[Step, WorkerState]]:
    """List the SOAKs that are done, with their workers."""
    if state.direction is Direction.BACK:
        return
    for step in steps_of(plan.phases):
        if step.verb is Verb.SOAK and step.worker is not None and state.steps[step.id].status is StepStatus.DONE:
            yield step, state.workers[step.worker]


def _rule(gate: Gate, known: WorkerState, whole: list[Window]) -> Verdict | None:
    """Return the FAIL of the last window, if the one before failed too."""
    last = whole[-_WINDOWS_TO_FAIL:]
    if gate.metric in _BURSTS or len(last) < _WINDOWS_TO_FAIL:
        return None
    # The newest first: it is the one that seldom fails.
    rulings = (_rule_window(gate, known, window) for window in reversed(last))
    newest = next(rulings)
    failed = newest.ruling is Ruling.FAIL and all(verdict.ruling is Ruling.FAIL for verdict in rulings)
    return newest if failed else None


def _rule_window(gate: Gate, known: WorkerState, window: Window) -> Verdict:
    return threshold.rule(
        gate,
        after=window.own,
        baseline=known.baseline,
        controls=window.controls,
        unmeasured=None,
        admitted_at_s=window.own.since_s,
        now_s=window.own.until_s,
    )


def _last_s(known: WorkerState) -> float:
    return known.windows[-1].own.until_s if known.windows else float("-inf")
