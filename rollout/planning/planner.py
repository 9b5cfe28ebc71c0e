"""
The planner: playbook + inventory + what was seen + the release -> a plan, or a refusal that names every blocker at once.

It is pure, and looks at nothing but its arguments: a dry run is this function, printed. Whatever is uncertain is refused here, before
anything is touched; what can change while the plan runs is asked again before each step (disruption.py, deciding/).
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise

from rollout.model.errors import RefusedError
from rollout.model.ids import ReleaseId, Role, StepId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.load import Headroom
from rollout.model.plan import Duty, Forecast, Guard, HoldBound, Phase, Plan, Ramp, Step, Verb, Watch, Wave, Windows, Worker, steps_of
from rollout.model.playbook import Playbook
from rollout.model.playbook import Windows as WrittenWindows
from rollout.model.release import Release
from rollout.model.sighting import Observation
from rollout.planning import buying, capacity, holding, notes, plan_checks, reasons, warming
from rollout.planning.basis import basis_of
from rollout.planning.digest import digest_of_observation, digest_of_plan, digest_of_playbook
from rollout.planning.evidence import gates_of, resolved_recovery, spent
from rollout.planning.forecast import WATCH_MARGIN_S, forecast, sessions_of, traffic_of
from rollout.planning.order import Stretch, in_stretches
from rollout.planning.scope import cut_after, why_skipped
from rollout.planning.situation import Situation, look
from rollout.planning.worker_steps import Turn, Way, worker_steps

PREPARE_STEP = StepId("release/prepare")
MIGRATE_STEP = StepId("release/migrate")
SURVEY_STEP = StepId("homeserver/survey")
WATCH_STEP = StepId("homeserver/watch")

# An installer that failed may succeed once more (an index that was away); the migration never runs twice without a person.
PREPARE_ATTEMPTS_MAX = 2
# SURVEY ends by itself after baseline_s; the margin is for a process that was stopped meanwhile.
SURVEY_MARGIN_S = 60.0


def make_plan(
    playbook: Playbook,
    inventory: Inventory,
    observation: Observation,
    to: Release,
    *,
    only: Role | None = None,
    until: str | None = None,
    among: Collection[WorkerId] | None = None,
) -> Plan:
    """
    Plan the way from what runs to *to*, and the way back.

    *only* restricts the rollout to one role; *until* ("canary", a worker or a role) cuts it after that one; of an
    earlier rollout that is taken back, *among* are the workers. A homeserver that runs *to* already gets a plan without phases.

    Raises RefusedError naming every blocker; InvalidFileError when *only* or *until* name nothing.
    """
    situation = look(playbook, inventory, observation, to)
    skipped = why_skipped(situation, only, among)
    rolled = [worker for worker in situation.workers if worker.id not in skipped]
    blockers = _blockers(situation, rolled)
    stretches = in_stretches(rolled, playbook.strategy, situation.budget, situation.ours)
    if until is not None and rolled:
        stretches = cut_after(stretches, until, skipped)
        kept = {worker.id for stretch in stretches for worker in stretch.workers()}
        skipped |= {worker.id: f"after --until {until}" for worker in rolled if worker.id not in kept}
    headroom = capacity.of_plan(situation, stretches)
    if among is None:
        # Nobody is kept on a bad release because it would be narrow to leave it.
        blockers += capacity.refusals(headroom, capacity.limits_of(playbook))
    if blockers:
        what = f"{inventory.homeserver} can't be rolled to {to.id} now"
        raise RefusedError(what, why="\n".join(blockers), remedy="settle what is listed, then plan again; nothing was touched")
    return _plan(situation, stretches, skipped, headroom)


def _blockers(situation: Situation, rolled: list[Worker]) -> list[str]:
    blockers = [blocker for standing in situation.standings.values() for blocker in standing.blockers]
    if rolled:
        blockers += plan_checks.misplaced_canary(situation)
        blockers += plan_checks.condemned(situation)
        blockers += plan_checks.changed_topology(situation)
        blockers += plan_checks.too_old_for_the_database(situation)
        blockers += plan_checks.overdrawn_pools(situation, rolled)
        blockers += plan_checks.without_evidence(rolled, situation.playbook)
        blockers += plan_checks.unmeasurable_guards(situation)
        blockers += plan_checks.uncounting_proxies(situation, rolled)
        blockers += plan_checks.unweighable_pools(situation, rolled)
        blockers += warming.refusals(rolled, situation)
        blockers += buying.refusals(situation)
        blockers += holding.refusals(rolled, situation)
    return blockers


def _plan(situation: Situation, stretches: tuple[Stretch, ...], skipped: dict[WorkerId, str], headroom: dict[WorkerId, Headroom]) -> Plan:
    playbook, strategy, limits = situation.playbook, situation.playbook.strategy, capacity.limits_of(situation.playbook)
    phases = _forward(situation, stretches) if stretches else ()
    migrates = any(step.id == MIGRATE_STEP for step in steps_of(phases))
    used = {gate for step in steps_of(phases) for gate in step.gates}
    gates = {name: gate for name, gate in situation.gates.items() if name in used}
    roles = {worker.id: worker.role for worker in situation.workers}
    gates = spent(gates, [step for step in steps_of(phases) if step.verb is Verb.SOAK], roles, playbook.false_alarms)
    from_releases = {worker: standing.release for worker, standing in situation.standings.items() if standing.release is not None}
    plan = Plan(
        digest="",
        homeserver=situation.inventory.homeserver,
        playbook_digest=digest_of_playbook(playbook),
        observation_digest=digest_of_observation(situation.observation),
        workers=situation.workers,
        from_releases=from_releases,
        to_release=situation.to,
        releases={release: situation.releases[release] for release in (*from_releases.values(), situation.to.id)},
        phases=phases,
        rollback=_back(situation, stretches),
        point_of_no_return=MIGRATE_STEP if migrates and plan_checks.way_back(situation) is False else None,
        gates=gates,
        guards=tuple(Guard(entry.guard, entry.max, entry.deadline_s) for entry in playbook.guards),
        ramp=Ramp(strategy.ramp.weights, strategy.ramp.step_s, strategy.ramp.down, strategy.ramp.utilisation_max),
        hold=HoldBound(strategy.hold.hold_s, strategy.hold.hold_max),
        warm=warming.budget(situation),
        recovery=resolved_recovery(playbook),
        watch=Watch(playbook.watch.watch_s, playbook.watch.window_s),
        rollback_scope=playbook.rollback.scope,
        max_unavailable=dict(situation.max_unavailable),
        foreign_drains=tuple(worker.id for worker in situation.workers if worker.id in situation.foreign),
        skipped=skipped,
        baseline_s=playbook.baseline.baseline_s,
        sample_s=playbook.baseline.sample_s,
        progress_deadline_s=strategy.progress_deadline_s,
        forecast=Forecast(0.0, {}, ""),
        notes=(*notes.of(situation, stretches, skipped, migrates=migrates), *capacity.notes(headroom, limits)),
        windows=_windows(playbook.windows),
        capacity=limits,
        headroom=headroom,
        routing=capacity.routings(situation),
        basis=basis_of(situation),
        buying=buying.resolved(situation) if phases else None,
        profile=playbook.profile or "",
    )
    seen = situation.observation
    return replace(plan, digest=digest_of_plan(plan), forecast=forecast(plan, sessions_of(seen), traffic=traffic_of(seen.loads)))


def _windows(written: WrittenWindows | None) -> Windows | None:
    if written is None:
        return None
    not_after = written.not_after or ""
    return Windows(written.first_start, written.last_start or not_after, not_after, written.days, written.timezone)


def _forward(situation: Situation, stretches: tuple[Stretch, ...]) -> tuple[Phase, ...]:
    phases = [Phase(step.verb.value, step.why, (Wave((), (step,)),)) for step in _homeserver_steps(situation)]
    needs: tuple[StepId, ...] = (phases[-1].waves[0].steps[0].id,)
    earlier: list[Worker] = []
    for stretch in stretches:
        waves = []
        for row in stretch.rows:
            turns = [_turn(worker, situation, reasons.of_turn(worker, stretch, earlier, situation)) for worker in row]
            waves.append(_wave(turns, needs, situation))
            needs = tuple(step.id for step in waves[-1].steps)
            earlier += row
        phases.append(Phase(stretch.name, stretch.why, tuple(waves)))
    watch_s = situation.playbook.watch.watch_s
    if watch_s > 0:
        watch = _step(WATCH_STEP, Verb.WATCH, situation.to.id, watch_s + WATCH_MARGIN_S, 1, reasons.of_watch(watch_s))
        phases.append(Phase(watch.verb.value, watch.why, (Wave((), (replace(watch, needs=needs),)),)))
    return tuple(phases)


def _back(situation: Situation, stretches: tuple[Stretch, ...]) -> tuple[Phase, ...]:
    """Plan the way back for everybody, the newest first, with the same care as the way there."""
    phases = []
    needs: tuple[StepId, ...] = ()
    for stretch in reversed(stretches):
        waves = []
        for row in reversed(stretch.rows):
            turns = [_turn(worker, situation, f"{worker.id} back: the newest first", back=True) for worker in reversed(row)]
            waves.append(_wave(turns, needs, situation))
            needs = tuple(step.id for step in waves[-1].steps)
        phases.append(Phase(stretch.name, f"the way back of {stretch.name}", tuple(waves)))
    return tuple(phases)


def _turn(worker: Worker, situation: Situation, why: str, *, back: bool = False) -> Turn:
    standing = situation.standings[worker.id]
    old = situation.releases[standing.release] if standing.release is not None else situation.to
    if back and standing.release == standing.condemned:
        # What it was being taken back from is nobody's way back: it stays on what it goes to.
        old = situation.to
    here, there = (situation.to, old) if back else (old, situation.to)
    return Turn(
        worker=worker,
        way=_way(worker, situation),
        release=there.id,
        change=reasons.of_change(here, there),
        gates=gates_of(worker.role, situation.playbook, proxied=worker.pool is not None),
        why=why,
        prefix="rollback/" if back else "",
        inheritors=warming.inheritors(worker, situation),
        warmed=warming.is_warmed(worker, situation),
        recovery=resolved_recovery(situation.playbook) if worker.duty is Duty.REPLACEABLE else None,
        condemns=situation.to.id if back and here.id != there.id else None,
    )


def _way(worker: Worker, situation: Situation) -> Way:
    if holding.is_held(worker, situation):
        return Way.HELD
    if worker.duty is Duty.REPLACEABLE or situation.standings[worker.id].ours:
        return Way.DRAINED
    return Way.AS_IT_STANDS


def _wave(turns: list[Turn], needs: tuple[StepId, ...], situation: Situation) -> Wave:
    steps = tuple(step for turn in turns for step in worker_steps(turn, needs, situation.playbook.strategy, situation.gates))
    return Wave(tuple(turn.worker.id for turn in turns), steps)


def _homeserver_steps(situation: Situation) -> tuple[Step, ...]:
    """List the steps that come before any worker goes out, each needing the one before."""
    strategy, to, baseline_s = situation.playbook.strategy, situation.to, situation.playbook.baseline.baseline_s
    steps = [_step(PREPARE_STEP, Verb.PREPARE, to.id, strategy.prepare_timeout_s, PREPARE_ATTEMPTS_MAX, reasons.of_prepare(to))]
    if any(release.version != to.version for release in situation.running()):
        steps.append(_step(MIGRATE_STEP, Verb.MIGRATE, to.id, strategy.migrate_page_after_s, 1, reasons.of_migrate(to)))
    if baseline_s > 0:
        steps.append(_step(SURVEY_STEP, Verb.SURVEY, to.id, baseline_s + SURVEY_MARGIN_S, 1, reasons.of_survey(baseline_s)))
    return (steps[0], *(replace(step, needs=(before.id,)) for before, step in pairwise(steps)))


def _step(step_id: StepId, verb: Verb, release: ReleaseId, deadline_s: float, attempts_max: int, why: str) -> Step:
    return Step(
        id=step_id,
        verb=verb,
        worker=None,
        release=release,
        needs=(),
        deadline_s=deadline_s,
        attempts_max=attempts_max,
        undo=None,
        gates=(),
        why=why,
    )
