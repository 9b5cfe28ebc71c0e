"""
Watching those who have passed, while the others are rolled and a while longer: a release that gets worse slowly passes every first look.

The gates are those of the worker's SOAK, on one window after the other instead of one growing sum, in which what is new would be lost. They
are asked many times, so only two windows that fail, one after the other, count. Compared is with the worker's own past and with those of
its pool who still run the old release: the others may be getting worse as well. What a worker does of its own accord (WORK, BACKLOG, pushes
that fail) comes in bursts longer than a window, so it isn't watched.

Sequential gates need no windows: they go on adding evidence up, with what they have already, and one FAIL of theirs counts.

A window lasts until it holds a gate's samples. Where two of them don't come to an end in the last watch, the gate couldn't have failed
there, and it is named: silence is not health.
"""

from collections.abc import Iterable

from rollout.deciding import weighing
from rollout.deciding.acting import go_back, stop
from rollout.deciding.agenda import Agenda, agenda_of
from rollout.deciding.decision import Decision, Note, Wait, WaitUntil
from rollout.deciding.index import Kept, index_of
from rollout.deciding.seeing import Past, gone_for, is_confirmed, past_of
from rollout.deciding.state import DeployState, StepState, StepStatus, WorkerState
from rollout.gating import threshold
from rollout.gating.windows import BURSTS, WINDOWS_TO_FAIL, Window, is_complete
from rollout.model.event import GateRuled, StepBegan, StepFinished
from rollout.model.gate import Gate, Ruling, Verdict
from rollout.model.ids import GateId, WorkerId
from rollout.model.plan import Plan, Step

# A tally that is older than this many times the time between two measurements was not followed by another.
_FRESH_SAMPLES = 5.0


def alarm(plan: Plan, state: DeployState, agenda: Agenda, now_s: float) -> Decision | None:
    """Answer the way back when somebody who had passed is no longer well; None otherwise."""
    for step, worker in agenda.passed:
        known = state.workers[worker]
        if known.unhealthy_since_s is not None and (gone := gone_for(known, now_s)):
            return go_back(plan, state, f"{worker} had passed, but {gone}", now_s, blamed=worker)
        for gate, verdict in (*_failed(plan, state, worker), *weighing.failed(plan, state, worker)):
            if (before := known.verdicts.get(gate.id)) is None or before.ruling is not Ruling.FAIL:
                return Note(GateRuled(now_s, step.id, worker, verdict))
            if not is_confirmed(state, known, now_s):
                return WaitUntil(now_s + 1.0)
            return go_back(plan, state, f"{worker} had passed, but then failed {gate.id}: {before.because}", now_s, blamed=worker)
    if (together := weighing.failed_together(plan, state, agenda.passed)) is not None:
        step, worker, verdict = together
        known = state.workers[worker]
        if (before := known.verdicts.get(verdict.gate)) is None or before.ruling is not Ruling.FAIL:
            return Note(GateRuled(now_s, step.id, worker, verdict))
        if not is_confirmed(state, known, now_s):
            return WaitUntil(now_s + 1.0)
        return go_back(plan, state, f"{verdict.gate}: {before.because}", now_s, blamed=worker)
    return None


def watch(plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
    """Wait until the last watch has ended, with everybody measured to its end, and nobody left who failed once."""
    if at.status is StepStatus.PENDING:
        return Note(StepBegan(now_s, step.id))
    began_at_s = at.began_at_s or now_s
    ends_at_s = began_at_s + plan.watch.watch_s
    if now_s < ends_at_s:
        return Wait("watch", f"everybody is watched for {plan.watch.watch_s:.0f} s more", ends_at_s)
    until_s = ends_at_s - _FRESH_SAMPLES * plan.sample_s
    passed = agenda_of(plan, state).passed
    unseen = [str(worker) for one, worker in passed if one.gates and _last_s(state.workers[worker]) < until_s]
    once = [f"{worker} failed {gate.id}" for _, worker in passed for gate in _gates(plan, worker) if _fails(plan, state, worker, gate)]
    slow = [f"{worker} ({gate.id})" for _, worker in passed for gate in weighing.excused(plan, state, worker)]
    slow += [f"all {role} workers together ({gate.id})" for role, gate in weighing.excused_together(plan, state, passed)]
    if not unseen and not once and not slow:
        return Note(StepFinished(now_s, step.id, _account(plan, state, began_at_s)))
    why = f"all are slower than usual at the end of the watch, {', '.join(slow)} among them, and it has to show whether that lasts"
    if once:
        why = f"{', '.join(once)} at the end of the watch, and another window has to show whether that lasts"
    if unseen:
        why = f"{', '.join(unseen)} could not be measured to the end of the watch"
    if now_s >= began_at_s + step.deadline_s:
        return stop(now_s, why)
    return Wait("measurement" if unseen else "watch", why, now_s + plan.sample_s)


def undecided(plan: Plan, state: DeployState) -> str:
    """Say by which gates nobody could have failed in the last watch, for want of samples; empty where there are none."""
    step = index_of(plan).watch
    began_at_s = None if step is None else state.steps[step.id].began_at_s
    return "" if began_at_s is None else _listed(_undecided(plan, state, began_at_s))


def _account(plan: Plan, state: DeployState, began_at_s: float) -> str:
    """Say what the last watch has shown, and what it could not show."""
    dark = _undecided(plan, state, began_at_s)
    passed = agenda_of(plan, state).passed
    bursts = {plan.gates[name].id for step, _ in passed for name in step.gates if plan.gates[name].metric in BURSTS}
    weighed = index_of(plan).weighed_gates
    looked_at = sum(len(_gates(plan, worker)) + sum(gate.acts for gate in weighed.get(worker, ())) for _, worker in passed)
    unseen = [
        *([f"too little came to rule twice on {_listed(dark)}"] if dark else []),
        *([f"{', '.join(sorted(bursts))} {'is' if len(bursts) == 1 else 'are'} not watched"] if bursts else []),
    ]
    if not unseen:
        return "nobody who had passed has failed since"
    lead = (
        "nobody who had passed was seen to fail since"
        if looked_at > len(dark)
        else "nothing has shown whether those who had passed still do"
    )
    return f"{lead}: {'; '.join(unseen)}"


def _undecided(plan: Plan, state: DeployState, began_at_s: float) -> list[tuple[GateId, str]]:
    """List the gates, with the workers, that could not have failed since the last watch began: too few windows came to an end."""
    passed = agenda_of(plan, state).passed
    blind = [(gate.id, str(worker)) for _, worker in passed for gate in weighing.blind(plan, state, worker, began_at_s)]
    return blind + [
        (gate.id, str(worker))
        for _, worker in passed
        for gate in _gates(plan, worker)
        if sum(
            window.own.until_s > began_at_s and _decides(gate, past_of(plan, state, worker, gate), window)
            for window in _last(plan, gate, state.workers[worker])
        )
        < WINDOWS_TO_FAIL
    ]


def _listed(pairs: Iterable[tuple[GateId, str]]) -> str:
    """Write who is concerned beside each gate."""
    workers: dict[GateId, list[str]] = {}
    for gate, worker in pairs:
        workers.setdefault(gate, []).append(worker)
    return ", ".join(f"{gate} ({', '.join(its)})" for gate, its in workers.items())


def _gates(plan: Plan, worker: WorkerId) -> tuple[Gate, ...]:
    """List the gates of a SOAK that go on ruling."""
    return index_of(plan).watched_gates[worker]


def _last(plan: Plan, gate: Gate, known: WorkerState) -> tuple[Window, ...]:
    """List as many complete windows as it takes to fail, the newest first: it is the one that seldom fails."""
    windows = known.watched.get(gate.id, ())
    # Another one is begun only when the one before is complete.
    whole = windows if windows and is_complete(windows[-1], plan.watch.window_s, gate) else windows[:-1]
    return whole[: -WINDOWS_TO_FAIL - 1 : -1]


def _failed(plan: Plan, state: DeployState, worker: WorkerId) -> tuple[tuple[Gate, Verdict], ...]:
    """List the gates by which a worker's last windows failed. Decisions come oftener than measurements, so the answer is kept for these."""
    index, known = index_of(plan), state.workers[worker]
    kept = index.rulings.get(worker)
    if kept is not None and kept.watched is known.watched and kept.baseline is known.baseline:
        return kept.failed
    before = kept.newest if kept is not None and kept.baseline is known.baseline else {}
    newest: dict[GateId, tuple[Window, bool]] = {}
    failed: list[tuple[Gate, Verdict]] = []
    for gate in index.watched_gates[worker]:
        last = _last(plan, gate, known)
        if len(last) < WINDOWS_TO_FAIL:
            continue
        ruled = before.get(gate.id)
        if ruled is None or ruled[0] is not last[0]:
            ruled = (last[0], _fails_in(gate, past_of(plan, state, worker, gate), last[0]))
        newest[gate.id] = ruled
        if ruled[1] and (verdict := failed_in_windows(plan, state, worker, gate)) is not None:
            failed.append((gate, verdict))
    index.rulings[worker] = Kept(known.watched, known.baseline, newest, tuple(failed))
    return tuple(failed)


def failed_in_windows(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate) -> Verdict | None:
    """Return the ruling of a gate that failed in its last windows, one after the other; None where it didn't."""
    last, past = _last(plan, gate, state.workers[worker]), past_of(plan, state, worker, gate)
    if len(last) < WINDOWS_TO_FAIL or not all(_fails_in(gate, past, window) for window in last):
        return None
    return _rule_window(gate, past, last[0])


def _fails(plan: Plan, state: DeployState, worker: WorkerId, gate: Gate) -> bool:
    """Tell whether the last window failed."""
    past = past_of(plan, state, worker, gate)
    return any(_fails_in(gate, past, window) for window in _last(plan, gate, state.workers[worker])[:1])


def _fails_in(gate: Gate, past: Past, window: Window) -> bool:
    return threshold.fails(gate, after=window.own, baseline=past.own, controls=window.controls, pool=past.pool)


def _decides(gate: Gate, past: Past, window: Window) -> bool:
    """Tell whether a window could have failed: there is something to compare it with, and it can be true."""
    return _rule_window(gate, past, window).evidence.threshold is not None


def _rule_window(gate: Gate, past: Past, window: Window) -> Verdict:
    return threshold.rule(
        gate,
        after=window.own,
        baseline=past.own,
        controls=window.controls,
        unmeasured=None,
        admitted_at_s=window.own.since_s,
        now_s=window.own.until_s,
        pool=past.pool,
    )


def _last_s(known: WorkerState) -> float:
    return float("-inf") if known.after is None else known.after.until_s
