"""
Faults that a tired programmer could make, one line each, and which promise each breaks.

*file* is below rollout/; *old* occurs in it exactly once.
They were chosen to differ, and to be spread over the promises, before any of them was tried; what survives stays, and *survives* says why.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault."""

    name: str
    file: str
    old: str
    new: str
    breaks: str
    survives: str = ""


def _in(file: str, *rows: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(name, file, old, new, breaks, SURVIVES.get(name, "")) for name, old, new, breaks in rows)


# Why nobody notices.
SURVIVES: dict[str, str] = {
    "two_at_one_worker": "it takes two steps of one worker that are ready at once, as on the way back: one rehearsal in many hundreds, and no test of its own",
}

MUTANTS: tuple[Mutant, ...] = (
    *_in(
        "deciding/decide.py",
        (
            "doubt_is_never_settled",
            "if state.in_doubt and (settled",
            "if False and (settled",
            "what is in doubt is looked at",
        ),
        (
            "abort_is_ignored",
            "case Command.ABORT if state.winding_down in {None, Outcome.PAUSED}:",
            "case Command.ABORT if state.winding_down is Outcome.PAUSED:",
            "an abort is heeded",
        ),
        (
            "winding_down_goes_on",
            "if state.winding_down is not None:\n        return _answer(state, safety",
            "if False:\n        return _answer(state, safety",
            "a stop makes safe",
        ),
        (
            "never_stuck",
            "if _stuck(plan, state, agenda, now_s):",
            "if False:",
            "what is stuck pauses",
        ),
        (
            "two_at_one_worker",
            "        if _busy_elsewhere(state, step):",
            "        if False:",
            "one act at a time on a worker",
        ),
        (
            "untouched_stay_out",
            "    if stray is not None:",
            "    if False:",
            "who was only drained comes back on the way back",
        ),
        (
            "last_look_takes_unknown_for_well",
            "if answer is not True or fresh is None or fresh.healthy is not True:",
            "if answer is False:",
            "unknown is never healthy",
        ),
        (
            "way_back_is_looked_at_for_the_new_release",
            "plan.releases[goes_back_to(plan, worker)] if back else plan.to_release",
            "plan.to_release",
            "a release that is taken back is seen to be gone",
        ),
        (
            "concludes_with_somebody_out",
            "    if not_seen or out:",
            "    if not_seen:",
            "nothing ends well with somebody out",
        ),
        (
            "pause_lets_others_begin",
            "ready = tuple(step for step in ready if step in under_way)",
            "ready = tuple(step for step in ready if step in agenda.open)",
            "after a pause nobody new has a turn",
        ),
    ),
    *_in(
        "deciding/fold.py",
        (
            "drains_are_forgotten",
            "drained_by_us=True, users_moved",
            "drained_by_us=False, users_moved",
            "who is out is remembered",
        ),
        (
            "admission_is_forgotten",
            "worker = changed(worker, drained_by_us=False)",
            "worker = changed(worker, ramp=None)",
            "who is back is remembered",
        ),
        (
            "a_part_of_its_weight_is_enough",
            "(effect.verb is Verb.ADMIT and effect.weight == FULL_WEIGHT)",
            "effect.verb is Verb.ADMIT",
            "who has part of its traffic isn't back",
        ),
        (
            "restarts_touch_nobody",
            "touched=True, restarts",
            "touched=False, restarts",
            "who was restarted is taken back",
        ),
        (
            "acts_make_nothing_stale",
            "changed(state.workers[effect.worker], acted_at_s=at_s)",
            "changed(state.workers[effect.worker], acted_at_s=0.0)",
            "what was seen before an act proves nothing",
        ),
        (
            "old_looks_count_after_a_resume",
            "        fresh_after_s=at_s,\n",
            "",
            "a resumed rollout looks before it acts",
        ),
        (
            "failed_for_ever",
            "status=StepStatus.ACTIVE if step.status is StepStatus.FAILED else step.status,",
            "status=step.status,",
            "a resumed rollout tries again",
        ),
        (
            "numbers_begin_anew_after_a_lost_journal",
            "number = max(state.last_number, event.last_number)\n",
            "number = state.last_number\n",
            "what follows is numbered above what the target knows",
        ),
        (
            "ledger_is_not_listened_to",
            "last_number=EffectNumber(max(state.last_number, event.ledger_number)))",
            "last_number=state.last_number)",
            "what follows is numbered above what others did",
        ),
        (
            "failures_are_not_counted",
            "attempts = state.steps[effect.step_id].attempts + (not event.unheld)",
            "attempts = state.steps[effect.step_id].attempts",
            "an act is tried so often, and no more",
        ),
        (
            "drain_is_done_though_it_was_undone",
            "restart.status in {StepStatus.PENDING, StepStatus.ACTIVE}:",
            "False:",
            "who was let go before its restart is drained again",
        ),
        (
            "what_did_not_happen_did",
            "    if event.happened:\n",
            "    if True:\n",
            "what was seen not to have happened is done again",
        ),
        (
            "old_evidence_counts",
            "after=None, controls=None, unmeasured=None, verdicts={}",
            "verdicts={}",
            "evidence counts from the return on",
        ),
        (
            "abort_is_overridden",
            "if state.asked in {Command.ABORT, Command.INTERRUPT}:",
            "if state.asked is Command.INTERRUPT:",
            "a stop is never overridden by less",
        ),
        (
            "failure_on_the_way_back_is_forgotten",
            "if failed and state.direction is Direction.BACK:",
            "if failed and state.direction is Direction.FORWARD:",
            "who isn't well on the old release is named",
        ),
    ),
    *_in(
        "deciding/noticing.py",
        (
            "database_away_is_held_against_workers",
            "    if seen.no_database:\n        workers = {",
            "    if seen.no_database and not seen.guards:\n        workers = {",
            "what happens without a database condemns no release",
        ),
    ),
    *_in(
        "deciding/seeing.py",
        (
            "any_look_is_fresh",
            "return None if now_s - last_seen_s(state, known) > LOOK_FRESH_S else seen_after(state, known, None)",
            "return seen_after(state, known, None)",
            "an old look says nothing about now",
        ),
    ),
    *_in(
        "deciding/safety.py",
        (
            "nobody_is_brought_back",
            "        if not _is_out(state, known):",
            "        if True:",
            "a stop brings back who is out",
        ),
        (
            "condemned_is_admitted",
            "condemned = is_taken_back(state, worker) and not _runs_as_before(sighting, plan.releases[old])",
            "condemned = False",
            "nobody is admitted on what is taken back",
        ),
        (
            "admitted_before_it_answers",
            "if sighting.healthy is not True or sighting.proxy is None or not sighting.proxy.up:",
            "if sighting.proxy is None:",
            "nobody is admitted who is down",
        ),
        (
            "sessions_are_cut_to_stop_sooner",
            "sighting.proxy is not None and sighting.proxy.sessions != 0:",
            "sighting.proxy is not None and sighting.proxy.sessions is None:",
            "no request is cut to save time",
        ),
        (
            "restarted_again_and_again",
            "if known.restarts_to_safety:",
            "if known.restarts_to_safety < 0:",
            "a worker is started once to stop",
        ),
        (
            "who_is_left_out_is_not_named",
            "if worker in unknown or _is_silent(plan, worker, known) or _is_out(state, known)",
            "if known.drained_by_us and is_down(known)",
            "who could not be brought back is named",
        ),
    ),
    *_in(
        "deciding/safety.py",
        (
            "who_was_restarted_where_it_stands_is_back",
            "    return sighting.healthy is not True or (proxied and (sighting.proxy is None or not sighting.proxy.up))",
            "    return False",
            "a stop waits for who was just restarted",
        ),
        (
            "who_an_earlier_rollout_left_out_stays_out",
            "if not (known.drained_by_us or is_left_out(state, known)) or",
            "if not known.drained_by_us or",
            "nothing of ours stays out on the way back",
        ),
    ),
    *_in(
        "deciding/going_out.py",
        (
            "held_while_what_waited_goes_on",
            "    if sighting.proxy.hold.waiting and not sighting.proxy.holding:",
            "    if False:",
            "what an earlier hold let go is not cut",
        ),
    ),
    *_in(
        "deciding/blocking.py",
        (
            "capacity_is_not_asked",
            "if why := why_not_down(",
            "if why := None and why_not_down(",
            "never more than may be out",
        ),
        (
            "between_two_looks",
            "            _taken_by_us(state, other, known),\n",
            "",
            "what was begun between two looks counts",
        ),
        (
            "hosts_that_are_away_are_not_asked",
            "    if unasked := why_unasked(own):\n",
            "    if unasked := why_unasked(None):\n",
            "nobody is taken out whose host can't be asked",
        ),
        (
            "others_drains_are_ours",
            "if theirs := _taken_by_others(plan, worker, state.workers[worker.id], own):",
            "if False:",
            "what others drained stays",
        ),
        (
            "restarts_without_a_database",
            "    if state.no_database:\n",
            "    if state.no_database and state.direction is Direction.BACK:\n",
            "nobody is restarted while the database is away",
        ),
        (
            "guards_are_asked_on_the_way_back_only",
            "if state.direction is Direction.BACK or not plan.guards or",
            "if state.direction is Direction.FORWARD or not plan.guards or",
            "guards forbid a drain",
        ),
    ),
    *_in(
        "deciding/going_out.py",
        (
            "sessions_are_not_waited_for",
            "        if sighting.proxy.sessions == 0:\n            return Note(StepFinished(now_s, step.id",
            "        if sighting.proxy.sessions is not None:\n            return Note(StepFinished(now_s, step.id",
            "a drain ends when the sessions have",
        ),
        (
            "forgotten_drain_is_not_repeated",
            "        if sighting.proxy.admitted:\n",
            "        if False:\n",
            "the proxy may forget a drain",
        ),
        (
            "no_look_before_the_restart",
            "return _before_restart(plan, state, step, now_s) or perform(state, step, now_s)",
            "return perform(state, step, now_s)",
            "a restart is preceded by a look",
        ),
        (
            "hold_runs_out_during_the_boot",
            "return max(0.0, left_s) if left_s < HOLD_SHARE_TO_BOOT * plan.hold.hold_s else None",
            "return 0.0 if left_s < 0 else None",
            "a hold lasts as long as the boot",
        ),
    ),
    *_in(
        "deciding/coming_back.py",
        (
            "healthy_is_not_asked",
            "up = sighting.healthy is True and (",
            "up = True or (",
            "no traffic before it answers",
        ),
        (
            "well_by_an_old_look",
            "sighting = seen_after(state, known, began_at_s)\n    release",
            "sighting = known.sighting\n    release",
            "a worker is well when it was seen after its start",
        ),
        (
            "ramp_stops_short",
            "if plan.ramp.utilisation_max is None and at.weights_applied < len(weights):",
            "if False:",
            "the ramp ends at the full weight",
        ),
    ),
    *_in(
        "deciding/doubt.py",
        (
            "a_restart_in_doubt_has_happened",
            "process.activated == effect.release and (process.started_at_s or 0.0) >= intended_at_s",
            "process.activated == effect.release",
            "a process that began before did not restart",
        ),
        (
            "doubt_is_settled_by_an_old_look",
            "last_seen_s(state, worker) <= max(state.fresh_after_s, intended_at_s, worker.acted_at_s)\n        or ",
            "",
            "doubt is settled by what is seen afterwards",
        ),
        (
            "a_restart_in_doubt_is_soon_done_again",
            "shows is False and effect.verb is Verb.RESTART and state.observed_at_s < effect.deadline_at_s",
            "False",
            "a restart that may still be under way is not done again",
        ),
    ),
    *_in(
        "deciding/soaking.py",
        (
            "unmeasurable_is_a_pass",
            "if all(verdict.ruling is Ruling.PASS for verdict in verdicts):",
            "if all(verdict.ruling in {Ruling.PASS, Ruling.UNMEASURABLE} for verdict in verdicts):",
            "unknown is never healthy",
        ),
        (
            "failing_passes",
            "if failed := [verdict for verdict in verdicts if verdict.ruling is Ruling.FAIL]:",
            "if failed := []:",
            "who fails is taken back",
        ),
    ),
    *_in(
        "deciding/watching.py",
        (
            "who_dies_later_is_not_missed",
            "if known.unhealthy_since_s is not None and (gone := gone_for(known, now_s)):",
            "if known.unhealthy_since_s is None and (gone := gone_for(known, now_s)):",
            "who has passed is watched",
        ),
        (
            "last_watch_is_skipped",
            "    if now_s < ends_at_s:\n",
            "    if now_s < began_at_s:\n",
            "everybody is watched for a while",
        ),
    ),
    *_in(
        "deciding/acting.py",
        (
            "numbers_stand_still",
            "EffectNumber(state.last_number + 1)",
            "EffectNumber(state.last_number)",
            "numbers rise",
        ),
    ),
    *_in(
        "deciding/agenda.py",
        (
            "steps_need_nothing",
            "ready = tuple([step for step in left if met.issuperset(step.needs)])",
            "ready = tuple(left)",
            "steps are done in the plan's order",
        ),
        (
            "the_skipped_are_rolled",
            "return step.worker is None or step.worker not in state.skipped",
            "return True",
            "who is skipped is left alone",
        ),
    ),
    *_in(
        "deciding/leasing.py",
        (
            "lease_is_not_asked",
            "if not state.lease_lost or (is_taken_back(state, worker)",
            "if not state.taken_over or (is_taken_back(state, worker)",
            "nobody is taken out without the lease",
        ),
        (
            "goes_on_after_a_takeover",
            "    if not state.taken_over:\n",
            "    if True:\n",
            "who was taken over does nothing more",
        ),
    ),
)
