"""
Plan + state + time -> what to do next. Pure: the same three always give the same answer.

The order of the questions is the order of what matters: whether it is ours to decide at all, then what is in doubt, then what a person
asked for, then whether the rollout is stuck, then the steps in the plan's order. Steps whose needs are met may run side by side; the first
that has something to do gets its turn.
"""

from dataclasses import replace

from rollout.deciding import doubt, leasing, safety, shadowing, steps, time_left, watching
from rollout.deciding.agenda import Agenda, agenda_of
from rollout.deciding.decision import Decision, Finish, Note, Wait, WaitUntil
from rollout.deciding.index import index_of
from rollout.deciding.seeing import LOOK_FRESH_S, last_seen_s, not_held, well
from rollout.deciding.state import DeployState, Direction, StepStatus, Waiting, is_taken_back, skips_text, without_figures
from rollout.model.event import Command, EffectObserved, Outcome, RollbackBegan, WaitBegan, WindDownBegan
from rollout.model.ids import WorkerId
from rollout.model.plan import Plan, Step, Verb, goes_back_to
from rollout.model.sighting import runs

# What a gate still lacks is told anew so often, when it is the same but for its figures.
FIGURES_EVERY_S = 30.0
_WITH_FIGURES = frozenset({"evidence", "guard", "measurement"})
# How long the last look may take to show that every worker runs what it should before the rollout is called unfinished.
LAST_LOOK_S = 60.0


def decide(plan: Plan, state: DeployState, now_s: float) -> Decision:
    """Answer what to do next. Never raises for a state that `fold` made."""
    return leasing.signed(state, _decide(plan, state, now_s), now_s)


def _decide(plan: Plan, state: DeployState, now_s: float) -> Decision:
    if state.outcome is not None:
        return Finish(state.outcome, state.outcome_why)
    if (left := leasing.leave(state)) is not None:
        return left
    if state.in_doubt and (settled := _settle_doubt(plan, state, now_s)) is not None:
        return settled
    if state.asked is not None and (asked := _heed(plan, state, now_s)) is not None:
        return asked
    if state.winding_down is not None:
        return _answer(state, safety.wind_down(plan, state, now_s), now_s)
    agenda = agenda_of(plan, state)
    if _stuck(plan, state, agenda, now_s):
        return Note(WindDownBegan(now_s, Outcome.PAUSED, f"no step has finished for {plan.progress_deadline_s:.0f} s"))
    if (alarmed := watching.alarm(plan, state, agenda, now_s)) is not None:
        return alarmed
    if (shadow := shadowing.ruled(plan, state, agenda, now_s)) is not None:
        return shadow
    ready = agenda.ready
    late = time_left.too_late(plan, state, agenda.open, now_s)
    if state.asked is Command.PAUSE or late:
        pauses = state.asked is Command.PAUSE
        # Of a watch nobody is out.
        under_way = tuple(step for step in agenda.open if _is_under_way(agenda, step) and not (pauses and step.verb is Verb.WATCH))
        if not under_way and not state.in_flight and not state.in_doubt:
            return Note(WindDownBegan(now_s, Outcome.PAUSED, late or "paused on request"))
        ready = tuple(step for step in ready if step in under_way)
    waits: list[Wait] = []
    for step in ready:
        if _busy_elsewhere(state, step):
            # There is something left to do, so this isn't the end.
            waits.append(Wait(step.verb, f"{step.worker} is being seen to", now_s + LOOK_FRESH_S, quiet=True))
            continue
        answer = leasing.instead(plan, state, step, now_s) or steps.advance(plan, state, step, now_s)
        if not isinstance(answer, Wait):
            return answer
        waits.append(answer)
    stray = _return_untouched(plan, state, now_s)
    if stray is not None:
        return _answer(state, stray, now_s)
    if waits:
        # What has something to say is said first.
        first = next((wait for wait in waits if not wait.quiet), waits[0])
        return _answer(state, first, now_s, until_s=min([wait.until_s for wait in waits]))
    return _answer(state, _conclude(plan, state, now_s), now_s)


def open_steps(plan: Plan, state: DeployState) -> tuple[Step, ...]:
    """List the steps that are still to be done, in order; on the way back those of workers that are taken back, and what was begun."""
    return agenda_of(plan, state).open


def _is_under_way(agenda: Agenda, step: Step) -> bool:
    """Tell whether a step's worker has had its turn begun; what is under way is ended before a pause."""
    at = agenda.state.steps
    if step.worker is None:
        return at[step.id].status is not StepStatus.PENDING
    index = agenda.index
    way = index.forward if step in index.forward.by_worker.get(step.worker, ()) else index.back
    return any(at[other.id].status is not StepStatus.PENDING for other in way.by_worker.get(step.worker, ()))


def focus(plan: Plan, state: DeployState) -> frozenset[WorkerId]:
    """Name the workers that are worth measuring now: those under way or touched, and their pools; sometimes all (see Agenda)."""
    return agenda_of(plan, state).focus


def is_eager(plan: Plan, state: DeployState) -> bool:
    """Tell whether a worker is out or coming back, so that every look counts."""
    return state.winding_down is not None or agenda_of(plan, state).is_anybody_out


def _answer(state: DeployState, answer: Decision | Wait, now_s: float, *, until_s: float | None = None) -> Decision:
    """
    A wait is written down once, when its reason changes; then it is only waited for, until *until_s* if others end earlier. The end says
    what the holds did not keep.
    """
    if isinstance(answer, Wait):
        if not answer.quiet and _is_news(state.waiting, answer, now_s):
            return Note(WaitBegan(now_s, answer.cause, answer.why))
        return WaitUntil(max(answer.until_s if until_s is None else until_s, now_s))
    if isinstance(answer, Finish):
        lost = "".join(f"; while {worker} was held, {text}" for worker, known in state.workers.items() if (text := not_held(known)))
        return replace(answer, why=answer.why + lost)
    return answer


def _is_news(waiting: Waiting | None, answer: Wait, now_s: float) -> bool:
    """Tell whether a reason is worth a line. Figures of the same reason change with every measurement, and are told now and then."""
    if waiting is None or waiting.cause != answer.cause:
        return True
    if waiting.why == answer.why:
        return False
    same = answer.cause in _WITH_FIGURES and without_figures(waiting.why) == without_figures(answer.why)
    return not same or now_s - waiting.at_s >= FIGURES_EVERY_S


def _settle_doubt(plan: Plan, state: DeployState, now_s: float) -> Decision | None:
    for number, effect in state.in_doubt.items():
        # On a step aside (bringing a worker back) only the moment of resuming is known.
        step = state.steps.get(effect.step_id)
        intended_at_s = (step.intended_at_s if step is not None else None) or 0.0
        answer = doubt.happened(plan, state, effect, intended_at_s)
        if answer is not None:
            seen = "was seen to have happened" if answer else "was seen not to have happened"
            return Note(EffectObserved(now_s, number, answer, f"{effect.verb} of {effect.worker or 'the release'} {seen}"))
    return None


def _heed(plan: Plan, state: DeployState, now_s: float) -> Decision | None:
    match state.asked:
        case Command.INTERRUPT if state.winding_down is None:
            return Note(WindDownBegan(now_s, Outcome.INTERRUPTED, "interrupted"))
        case Command.ABORT if state.winding_down in {None, Outcome.PAUSED}:
            return Note(WindDownBegan(now_s, Outcome.ABORTED, "aborted on request"))
        case Command.ROLLBACK if (state.direction is Direction.FORWARD or state.blamed) and state.winding_down is None:
            if plan.point_of_no_return is not None and state.steps[plan.point_of_no_return].status is not StepStatus.PENDING:
                why = f"a roll-back was asked for, but there is no way back after {plan.point_of_no_return}"
                return Note(WindDownBegan(now_s, Outcome.PAUSED, why))
            return Note(RollbackBegan(now_s, "asked for", requested=True))
    return None


def _stuck(plan: Plan, state: DeployState, agenda: Agenda, now_s: float) -> bool:
    """
    A migration is never interrupted, and a watch lasts as long as it lasts; anything else must finish a step now and then.

    Of one that has just been prepared or migrated the end has yet to be noted.
    """
    if now_s - state.progress_at_s <= plan.progress_deadline_s or agenda.watching:
        return False
    for_all = {Verb.MIGRATE, Verb.PREPARE}
    if any(effect.verb in for_all for effect in (*state.in_flight.values(), *state.in_doubt.values())):
        return False
    return not any(step.verb in for_all and state.steps[step.id].status is StepStatus.APPLIED for step in agenda.begun)


def _busy_elsewhere(state: DeployState, step: Step) -> bool:
    """An effect on the same worker from another list of steps (the way forward, when the way back began) ends first."""
    if step.worker is None or not (state.in_flight or state.in_doubt):
        return False
    flight = (*state.in_flight.values(), *state.in_doubt.values())
    return any(effect.worker == step.worker and effect.step_id != step.id for effect in flight)


def _return_untouched(plan: Plan, state: DeployState, now_s: float) -> Decision | Wait | None:
    """On the way back a worker that was drained but not yet restarted has no steps; it is simply admitted."""
    if state.direction is Direction.FORWARD:
        return None
    return safety.readmit_untouched(plan, state, now_s)


def _conclude(plan: Plan, state: DeployState, now_s: float) -> Decision | Wait:
    """Every step is done: say so only if it is seen to be true."""
    if state.observed_at_s <= state.fresh_after_s and now_s - state.progress_at_s <= LAST_LOOK_S:
        return Wait("observation", "nothing has been seen of the homeserver yet", now_s + LOOK_FRESH_S)
    back = state.direction is Direction.BACK
    rolled = index_of(plan).back.by_worker
    moved = {worker for worker in rolled if (is_taken_back(state, worker) if back else worker not in state.skipped)}
    not_seen: list[str] = []
    for worker in sorted(moved):
        known = state.workers[worker]
        release = plan.releases[goes_back_to(plan, worker)] if back else plan.to_release
        fresh = known.sighting if not known.missing and last_seen_s(state, known) > max(state.progress_at_s, state.fresh_after_s) else None
        answer = None if fresh is None else runs(fresh, release)
        if answer is not True or fresh is None or fresh.healthy is not True:
            not_seen.append(worker)
    # Whoever it is, and whatever became of its steps: nothing ends well with somebody out by our hand.
    out = tuple(worker for worker, known in state.workers.items() if known.drained_by_us)
    if not_seen or out:
        why = f"a last look at {', '.join(sorted({*not_seen, *out}))}"
        if now_s - state.progress_at_s > LAST_LOOK_S:
            return Finish(Outcome.HALTED, why, drained=out)
        return Wait("observation", why, now_s + LOOK_FRESH_S)
    if not back:
        unseen = f"; the last watch had too little to rule twice on {gates}" if (gates := watching.undecided(plan, state)) else ""
        return Finish(Outcome.DEPLOYED, f"{len(moved)} workers run {plan.to_release.version}{skips_text(state.skipped)}{unseen}")
    rest = ", ".join(worker for worker, known in state.workers.items() if known.touched and worker not in moved)
    if state.rollback_failures:
        whom = f"{', '.join(sorted(moved))} is back on the old release, {rest} not" if rest else "every worker is back on its old release"
        return Finish(Outcome.HALTED, f"{whom}; but not everybody was shown to be well: {'; '.join(state.rollback_failures)}")
    if rest:
        return Finish(Outcome.PAUSED, f"{', '.join(sorted(moved))} is back on the old release, {rest} not: {state.rollback_why}")
    # An earlier rollout may have put them on the release that failed; this one knows of nothing else that they ran.
    on_it = [worker for worker, release in plan.from_releases.items() if release == plan.to_release.id and worker not in moved]
    if ill := ", ".join(worker for worker in on_it if well(state, state.workers[worker], now_s) is not True):
        if now_s - state.progress_at_s <= LAST_LOOK_S:
            return Wait("observation", f"a last look at {ill}", now_s + LOOK_FRESH_S)
        whom = f"{', '.join(sorted(moved))} is back on the old release"
        return Finish(Outcome.HALTED, f"{whom}; but {ill} ran {plan.to_release.id} before, and isn't well on it: {state.rollback_why}")
    outcome = Outcome.ROLLED_BACK_ON_REQUEST if state.rollback_requested else Outcome.ROLLED_BACK
    still = f"; {', '.join(on_it)} ran {plan.to_release.version} before, and still does" if on_it else ""
    return Finish(outcome, f"back on the old release: {state.rollback_why}{still}")
