"""
One rehearsal: the rollout with all that goes wrong in it, and what has become of the homeserver once everything late has landed.

Whoever finds the tool dead takes the rollout up again; where the journal is gone with it, a new plan is made from what is seen. Nobody else
helps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rollout.deciding.state import DeployState
from rollout.engine.run import Listener
from rollout.engine.survey import Surveyor
from rollout.model.effect import Effect
from rollout.model.errors import RefusedError
from rollout.model.event import RESUMABLE, DeployFinished, Event, Outcome
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.plan import Plan
from rollout.planning.planner import make_plan
from rollout.rehearsal.scenario import Scenario, set_up
from rollout.simulation.faults import Struck
from rollout.simulation.faulty_drivers import with_faults
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.looking import Sight
from rollout.simulation.parts import Happening
from rollout.simulation.rehearse import EndlessError, Script, Stage, let_nobody_be_there, live
from rollout.simulation.striking import Crash, Striker, turn_bad
from rollout.simulation.virtual_clock import ToolClock
from rollout.simulation.world import World

# Bounds of one rehearsal: what takes longer doesn't end.
LASTS_S_MAX = 6 * 3600.0
EVENTS_MAX = 20_000
# By then every late effect has landed, and every fault that ends has ended.
LANDED_AFTER_S = 600.0
# Planning anew is tried so often, this far apart: what stands still for a moment is not refused for ever.
PLANS_MAX = 20
PLAN_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Stand:
    """How one worker stands. *well_for_s*: it has answered so long; *marked*: the ledger says that we took it out."""

    runs: ReleaseId
    answers: bool
    serves: bool
    full: bool
    taken: bool
    marked: bool
    well_for_s: float


@dataclass(frozen=True, slots=True)
class Account:
    """
    All that is to be judged. *plan* is the last one, *events* those of all its journals; *end* and *later* are the workers when the rollout
    ended, at *ended_at_s* by the world's clock, and ten minutes after. *error* is what it died of, if it did.
    """

    scenario: Scenario
    plan: Plan | None
    plans: int
    outcome: Outcome | None
    why: str
    drained: tuple[WorkerId, ...]
    began_at_s: float
    ended_at_s: float
    events: tuple[Event, ...]
    history: tuple[Happening, ...]
    struck: tuple[Struck, ...]
    effects: dict[EffectNumber, Effect]
    intended_at_s: dict[EffectNumber, float]
    foreign_since_s: dict[WorkerId, float]
    end: dict[WorkerId, Stand]
    later: dict[WorkerId, Stand]
    serving_min: dict[str, int]
    late: int
    error: str = ""


@dataclass(slots=True)
class _Run:
    scenario: Scenario
    stage: Stage
    striker: Striker
    script: Script
    events: list[Event] = field(default_factory=list)
    plan: Plan | None = None
    plans: int = 0
    resumes: int = 0


def rehearse_one(scenario: Scenario, listeners: Sequence[Listener] = ()) -> Account:
    """Play it from the plan to ten minutes after its end. Never raises: what it died of is in its account."""
    stage = set_up(scenario)
    # Half of them look as often as a rollout does; the others seldom, by which more is decided on what was true a while ago.
    stage.sight = Sight.SPARING if scenario.seed % 2 else Sight.QUICK
    world = stage.world
    release = stage.drivers.releases.identify(
        None if scenario.restart_only else "2.0.0", None, stage.old.id, next_generation=scenario.restart_only
    )
    tool_clock = ToolClock(stage.clock)
    striker = Striker(scenario.strikes, world, stage.clock, tool_clock, release.id)
    stage.drivers = with_faults(stage.drivers, world, striker.during)
    began_at_s = stage.clock.now_s()
    if scenario.foreign is not None:
        striker.drained_by_somebody[scenario.foreign] = began_at_s
    if scenario.bad is not None:
        turn_bad(world, release.id, scenario.bad)
    events: list[Event] = []
    script = Script(
        listeners=(*listeners, lambda event, _state: events.append(event)),
        striker=striker,
        ends_by_s=began_at_s + LASTS_S_MAX,
        events_max=EVENTS_MAX,
    )
    run = _Run(scenario, stage, striker, script, events)
    error = ""
    state: DeployState | None = None
    refusal = ""
    try:
        state = _play(run)
    except RefusedError as refused:
        refusal = str(refused)
    except EndlessError:
        error = "it does not end"
    except Exception as bug:  # noqa: BLE001  (whatever it is, it is a finding)
        error = f"{type(bug).__name__}: {bug}"
    striker.alive = False
    striker.over = True
    ended_at_s = stage.clock.now_s()
    end = _stands(stage, began_at_s)
    let_nobody_be_there(stage, LANDED_AFTER_S)
    finish = next((event for event in reversed(events) if isinstance(event, DeployFinished)), None)
    return Account(
        scenario=scenario,
        plan=run.plan,
        plans=run.plans,
        outcome=state.outcome if state is not None else (Outcome.REFUSED if refusal else None),
        why=state.outcome_why if state is not None else refusal,
        drained=finish.drained if finish is not None else (),
        began_at_s=began_at_s,
        ended_at_s=ended_at_s,
        events=tuple(events),
        history=tuple(world.history),
        struck=tuple(striker.struck),
        effects=striker.effects,
        intended_at_s=striker.intended_at_s,
        foreign_since_s=dict(striker.drained_by_somebody),
        end=end,
        later=_stands(stage, began_at_s),
        serving_min=dict(world.serving_min),
        late=sum(hold.late for hold in world.after_holds.values()),
        error=error,
    )


def _play(run: _Run) -> DeployState:
    """Live until the end, again and again."""
    stage, striker = run.stage, run.striker
    plan = _plan(run)
    resumed = False
    while True:
        striker.alive = True
        try:
            state = live(stage, plan, run.script, resumed=resumed)
        except Crash as crash:
            striker.alive = False
            let_nobody_be_there(stage, crash.nobody_for_s or 0.0)
            resumed = not crash.journal_lost
            if crash.journal_lost:
                stage.journal = MemoryJournal(codec=False)
                plan = _plan(run)
            continue
        striker.alive = False
        if state.outcome not in RESUMABLE or run.resumes >= run.scenario.resumes:
            return state
        run.resumes += 1
        let_nobody_be_there(stage, run.scenario.resume_after_s)
        resumed = True


def _plan(run: _Run) -> Plan:
    """Plan from what is seen, as a person would who tries again for a while. Raises RefusedError."""
    stage = run.stage
    for attempt in range(PLANS_MAX):
        seen = Surveyor(stage.drivers, stage.inventory, run.striker.tool_clock).look(thorough=True)
        release = stage.drivers.releases.identify(
            None if run.scenario.restart_only else "2.0.0", None, stage.old.id, next_generation=run.scenario.restart_only
        )
        release = seen.releases.get(run.striker.release, release)
        try:
            plan = make_plan(run.scenario.playbook, stage.inventory, seen, replace(release, id=run.striker.release))
        except RefusedError:
            if attempt == PLANS_MAX - 1:
                raise
            let_nobody_be_there(stage, PLAN_AGAIN_S)
        else:
            run.plan = plan
            run.plans += 1
            run.striker.follow(plan)
            return plan
    msg = "unreachable"
    raise AssertionError(msg)


def _stands(stage: Stage, began_at_s: float) -> dict[WorkerId, Stand]:
    world: World = stage.world
    out = world.out_by_our_hand()
    marks = stage.drivers.ledger.marks()
    now_s = stage.clock.now_s()
    return {
        worker: Stand(
            runs=it.runs,
            answers=world.answers(worker),
            serves=world.serves(worker),
            full=not it.proxied or (world.serves(worker) and it.weight == 100),  # noqa: PLR2004  (percent)
            taken=worker in out,
            marked=worker in marks,
            well_for_s=now_s - max(began_at_s, (it.started_at_s or now_s) + world.boot_of(worker) + world.check_s)
            if world.answers(worker)
            else 0.0,
        )
        for worker, it in world.workers.items()
    }
