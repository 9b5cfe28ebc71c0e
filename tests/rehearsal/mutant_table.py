"""
Faults that a tired programmer could make where steps are decided and events are folded, one line each, and which promise each breaks.

What is changed (the first text) occurs in its file exactly once. Who catches each is recorded in caught.json (`python -m
tests.rehearsal.mutants --record`); SURVIVES explains those that nobody does.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault: in *file*, below rollout/, *old* becomes *new*."""

    name: str
    file: str
    old: str
    new: str
    breaks: str


def _in(file: str, *rows: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(name, f"deciding/{file}", old, new, breaks) for name, old, new, breaks in rows)


MUTANTS: tuple[Mutant, ...] = (
    *_in(
        "decide.py",
        ("nobody_is_heard", "if state.asked is not None and (asked", "if False and (asked", "a person is heeded"),
        (
            "winding_down_goes_on",
            "if state.winding_down is not None:\n        return _answer(state, safety",
            "if False:\n        return _answer(state, safety",
            "a stop makes safe",
        ),
        (
            "doubt_is_never_settled",
            "if state.in_doubt and (settled",
            "if not state.in_doubt and (settled",
            "what is in doubt is settled by what is seen",
        ),
        ("last_look_is_skipped", "    if not_seen or out:\n", "    if out:\n", "the end is said only if it is seen to be true"),
        (
            "last_look_takes_unknown_for_well",
            "if answer is not True or fresh is None or fresh.healthy is not True:",
            "if answer is False:",
            "unknown is never healthy",
        ),
        (
            "last_look_never_ends",
            "if now_s - state.progress_at_s > LAST_LOOK_S:",
            "if now_s - state.progress_at_s < 0.0:",
            "every wait ends",
        ),
        (
            "way_back_is_looked_at_for_the_new_release",
            "plan.releases[goes_back_to(plan, worker)] if back else plan.to_release",
            "plan.to_release",
            "a release that is taken back is seen to be gone",
        ),
        (
            "out_is_no_reason_to_stay",
            "out = tuple(worker for worker, known in state.workers.items() if known.drained_by_us)\n    if not_seen",
            "out: tuple[WorkerId, ...] = ()\n    if not_seen",
            "nothing ends well with somebody out by our hand",
        ),
        (
            "abort_is_ignored",
            "case Command.ABORT if state.winding_down in {None, Outcome.PAUSED}:",
            "case Command.ABORT if state.winding_down is Outcome.PAUSED:",
            "an abort is heeded",
        ),
        (
            "pause_lets_others_begin",
            "ready = tuple(step for step in ready if step in under_way)",
            "ready = tuple(step for step in ready if step in agenda.open)",
            "after a pause nobody new has a turn",
        ),
        (
            "never_stuck",
            "<= plan.progress_deadline_s or agenda.watching:",
            "<= plan.progress_deadline_s or not agenda.watching:",
            "a rollout without progress stops",
        ),
        (
            "effects_of_both_ways_overlap",
            "return any(effect.worker == step.worker and effect.step_id != step.id for effect in flight)",
            "return any(effect.worker == step.worker and effect.step_id == step.id for effect in flight)",
            "one act at a time on a worker",
        ),
        (
            "untouched_stay_out_on_the_way_back",
            "    if state.direction is Direction.FORWARD:\n        return None\n    return safety",
            "    if state.direction is Direction.FORWARD or state:\n        return None\n    return safety",
            "whoever was only drained is let back in",
        ),
    ),
    *_in(
        "fold.py",
        (
            "admission_is_forgotten",
            "worker = changed(worker, drained_by_us=False)",
            "worker = changed(worker, ramp=None)",
            "who is back is remembered",
        ),
        ("what_did_not_happen_did", "    if event.happened:\n", "    if True:\n", "what was seen not to have happened is done again"),
        (
            "the_old_evidence_counts",
            "after=None, controls=None, unmeasured=None, verdicts={}",
            "verdicts={}",
            "evidence counts from the return on",
        ),
        (
            "forgets_who_was_drained",
            "changed(worker, drained_by_us=True,",
            "changed(worker, drained_by_us=False,",
            "what is out by our hand is known",
        ),
        (
            "in_with_a_part_of_its_weight",
            "(effect.verb is Verb.ADMIT and effect.weight == FULL_WEIGHT):",
            "(effect.verb is Verb.ADMIT and effect.weight <= FULL_WEIGHT):",
            "who has a part of its traffic is still out",
        ),
        (
            "forgets_who_was_restarted",
            "changed(worker, touched=True,",
            "changed(worker, touched=worker.touched,",
            "who runs the new release is known",
        ),
        (
            "number_is_not_counted_up",
            "_with(state.in_flight, effect.number, effect), last_number=effect.number, waiting=None)",
            "_with(state.in_flight, effect.number, effect), waiting=None)",
            "numbers only rise",
        ),
        ("old_looks_count_after_a_resume", "        fresh_after_s=at_s,\n", "", "a resumed rollout looks before it acts"),
        ("stop_outlives_a_resume", "        winding_down=None,\n", "", "a resumed rollout goes on"),
        (
            "failures_are_not_counted",
            "attempts = state.steps[effect.step_id].attempts + (not event.unheld)",
            "attempts = state.steps[effect.step_id].attempts",
            "an act is tried so often, and no more",
        ),
        (
            "doubts_are_not_counted",
            "attempts=before.attempts + mine)",
            "attempts=before.attempts)",
            "an act is tried so often, and no more",
        ),
        (
            "ledger_is_not_listened_to",
            "last_number=EffectNumber(max(state.last_number, event.ledger_number)))",
            "last_number=state.last_number)",
            "what follows is numbered above what others did",
        ),
        (
            "numbers_begin_anew_after_a_lost_journal",
            "number = max(state.last_number, event.last_number)\n",
            "number = state.last_number\n",
            "what follows is numbered above what the target knows",
        ),
        (
            "looks_from_before_an_act_count_after_it",
            "    effect = _known(state.in_flight, number)\n    state = _acted(state, effect, at_s)\n",
            "    effect = _known(state.in_flight, number)\n",
            "only what was seen after an act shows what came of it",
        ),
        (
            "doubtful_acts_are_no_acts",
            "state = _acted(_move(state, effect.step_id, event, why=event.why), effect, at_s)",
            "state = _move(state, effect.step_id, event, why=event.why)",
            "only what was seen after an act shows what came of it",
        ),
        (
            "abort_is_overridden",
            "if state.asked in {Command.ABORT, Command.INTERRUPT}:",
            "if state.asked is Command.INTERRUPT:",
            "a stop is never overridden by less",
        ),
        (
            "drain_is_done_though_it_was_undone",
            "restart.status in {StepStatus.PENDING, StepStatus.ACTIVE}:",
            "restart.status in {StepStatus.FAILED}:",
            "who was let back in is drained again before its restart",
        ),
        (
            "failed_for_ever",
            "status=StepStatus.ACTIVE if step.status is StepStatus.FAILED else step.status,",
            "status=step.status,",
            "a resumed rollout tries again",
        ),
        (
            "failure_on_the_way_back_is_forgotten",
            "if state.direction is Direction.BACK and event.verdict.ruling is Ruling.FAIL:",
            "if state.direction is Direction.FORWARD and event.verdict.ruling is Ruling.FAIL:",
            "who isn't well on the old release is named",
        ),
    ),
    *_in(
        "safety.py",
        ("stops_without_restarting", "if condemned or not process.running:", "if False:", "who doesn't run is started once"),
        (
            "condemned_is_admitted",
            "condemned = is_taken_back(state, worker) and not _runs_as_before(",
            "condemned = not is_taken_back(state, worker) and not _runs_as_before(",
            "a release that failed is never admitted again",
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
            "admitted_before_it_answers",
            "if sighting.healthy is not True or sighting.proxy is None or not sighting.proxy.up:",
            "if sighting.proxy is None:",
            "nobody is admitted who is down",
        ),
        ("held_is_admitted", "Verb.LET_GO if is_held(plan, worker) else Verb.ADMIT", "Verb.ADMIT", "what waits is let go"),
        (
            "the_dead_are_left_when_stopping",
            "return known.drained_by_us or is_down(known) or",
            "return known.drained_by_us or",
            "who was restarted and died is brought back",
        ),
        (
            "who_is_left_out_is_not_named",
            "if worker in unknown or _is_silent(known) or _is_out(state, known))",
            "if worker in unknown)",
            "who could not be brought back is named",
        ),
        (
            "abort_says_nothing_of_mixed_releases",
            "if state.winding_down is Outcome.ABORTED and any(",
            "if state.winding_down is Outcome.PAUSED and any(",
            "an abort is said to be clean only if it is",
        ),
        (
            "who_was_restarted_where_it_stands_is_back",
            "    return sighting.healthy is not True or (sighting.proxy is not None and not sighting.proxy.up)",
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
        "coming_back.py",
        ("healthy_is_not_asked", "up = sighting.healthy is True and (", "up = True or (", "no traffic before it answers"),
        ("gone_is_not_noticed", "    if gone := gone_for(known, now_s):", '    if gone := "":', "who is gone fails"),
        (
            "half_is_full",
            "if plan.ramp.utilisation_max is None and at.weights_applied < len(weights):",
            "if False:",
            "the ramp ends at the full weight",
        ),
        (
            "well_on_any_release",
            "        if up and runs(sighting, release) is True:\n            return Note(StepFinished",
            "        if up:\n            return Note(StepFinished",
            "a worker is back when it runs what it should",
        ),
        (
            "well_by_an_old_look",
            "sighting = seen_after(state, known, began_at_s)\n    release",
            "sighting = known.sighting\n    release",
            "a worker is well when it was seen after its start",
        ),
        (
            "no_look_before_the_admission",
            "if sighting is not None and sighting.healthy is True and sighting.proxy is not None and sighting.proxy.up:\n        return None",
            "if sighting is None or sighting.proxy is not None:\n        return None",
            "nobody is admitted who is down",
        ),
        (
            "ramp_stops_short",
            "at.weights_applied < len(weights):",
            "at.weights_applied < len(weights) - 1:",
            "a worker gets its whole weight back",
        ),
        (
            "full_weight_is_not_checked",
            "if proxy is not None and proxy.admitted and proxy.up and proxy.weight == weights[-1]:",
            "if proxy is not None:",
            "a worker is back when the proxy shows it",
        ),
        (
            "a_boot_may_take_for_ever",
            "    deadline_at_s = began_at_s + step.deadline_s\n    if now_s >= deadline_at_s:\n        if sighting is not None and",
            "    deadline_at_s = began_at_s + step.deadline_s * 1e6\n    if now_s >= deadline_at_s:\n        if sighting is not None and",
            "every wait ends",
        ),
        (
            "let_go_is_not_checked",
            "if proxy is not None and not proxy.holding and proxy.admitted and proxy.up:",
            "if proxy is not None:",
            "what waited is seen to go on",
        ),
    ),
    *_in(
        "doubt.py",
        ("a_drain_in_doubt_is_done", "not sighting.proxy.admitted", "True", "a drain in doubt is looked for"),
        (
            "a_restart_in_doubt_has_happened",
            "process.activated == effect.release and (process.started_at_s or 0.0) >= intended_at_s",
            "process.activated == effect.release",
            "a process that began before did not restart",
        ),
        (
            "doubt_is_settled_by_an_old_look",
            "        last_seen_s(state, worker) <= max(state.fresh_after_s, intended_at_s, worker.acted_at_s)\n        or worker.missing",
            "        worker.missing",
            "doubt is settled by what is seen afterwards",
        ),
        (
            "an_admission_in_doubt_has_happened_in_part",
            "else sighting.proxy.admitted and sighting.proxy.weight == effect.weight",
            "else sighting.proxy.up",
            "doubt is settled by what is seen",
        ),
        (
            "a_migration_in_doubt_has_happened",
            "return bool(release.deltas) and state.schema is not None and not",
            "return state.schema is None or not",
            "unknown is not done",
        ),
    ),
    *_in(
        "noticing.py",
        ("missing_for_ever", '        missing="",\n', "", "who is seen again is no longer missing"),
        (
            "never_gone",
            "(at_s if known.unhealthy_since_s is None else known.unhealthy_since_s)\n    well_since_s",
            "at_s\n    well_since_s",
            "who doesn't answer for long is gone",
        ),
        (
            "database_away_is_held_against_workers",
            "    if seen.no_database:\n        workers = {",
            "    if seen.no_database and not seen.guards:\n        workers = {",
            "what happens without a database condemns no release",
        ),
        (
            "the_release_is_as_good_as_itself",
            "left_aside = index.already_on_it if has_past else frozenset()",
            "left_aside = frozenset()",
            "nobody is compared with who ran the release before",
        ),
    ),
    *_in(
        "going_out.py",
        (
            "sessions_are_not_waited_for",
            '        if sighting.proxy.sessions == 0:\n            return Note(StepFinished(now_s, step.id, f"{worker.id} has no sessions left"))',
            '        if sighting.proxy.sessions is not None:\n            return Note(StepFinished(now_s, step.id, f"{worker.id} has no sessions left"))',
            "a drain ends when the sessions have",
        ),
        (
            "a_reload_of_the_proxy_is_not_noticed",
            "        if sighting.proxy.admitted:\n            # A reload",
            "        if sighting.proxy.admitted and not sighting.proxy.up:\n            # A reload",
            "who is admitted by a reload is drained again",
        ),
        (
            "restarts_with_sessions",
            "if not (sighting.proxy.held or not sighting.proxy.admitted) or sighting.proxy.sessions != 0:",
            "if sighting.proxy.held and sighting.proxy.admitted and sighting.proxy.sessions != 0:",
            "no request is cut by a restart",
        ),
        (
            "no_look_before_the_restart",
            "return _before_restart(plan, state, step, now_s) or perform(state, step, now_s)",
            "return perform(state, step, now_s)",
            "a restart is preceded by a look",
        ),
        (
            "hold_runs_out_during_the_boot",
            "if left_s < HOLD_SHARE_TO_BOOT * plan.hold.hold_s else None",
            "if left_s < 0 else None",
            "a hold lasts as long as the boot",
        ),
        (
            "restarted_onto_a_release_that_is_taken_back",
            "too_late = state.direction is Direction.BACK and not is_taken_back(state, worker.id)",
            "too_late = state.direction is Direction.FORWARD and is_taken_back(state, worker.id)",
            "nobody is put on a release that is being taken back",
        ),
        (
            "what_blocks_is_not_asked_again",
            "        blocker = blocker_of(plan, state, worker, now_s)\n        return blocker or perform(",
            "        return perform(",
            "what forbids a drain is asked at the last moment",
        ),
        (
            "held_while_what_waited_goes_on",
            "    if sighting.proxy.hold.waiting and not sighting.proxy.holding:",
            "    if False:",
            "what an earlier hold let go is not cut",
        ),
    ),
    *_in(
        "agenda.py",
        (
            "steps_need_nothing",
            "ready = tuple([step for step in left if met.issuperset(step.needs)])",
            "ready = tuple(left)",
            "steps are done in the plan's order",
        ),
        (
            "way_back_in_the_wrong_order",
            "if not _concerns(state, step) and met.issuperset(step.needs):",
            "if not _concerns(state, step) or not met.issuperset(step.needs):",
            "the way back is taken in the plan's order",
        ),
        (
            "the_skipped_are_rolled",
            "return step.worker is None or step.worker not in state.skipped",
            "return step.worker is None or step.worker not in state.blamed",
            "who is skipped is left alone",
        ),
        (
            "who_keeps_the_release_is_left_out",
            "if known.touched and not is_taken_back(state, worker)} & restarted",
            "if known.touched and is_taken_back(state, worker)} & restarted",
            "who isn't blamed comes back",
        ),
    ),
)

SURVIVES: dict[str, str] = {}
