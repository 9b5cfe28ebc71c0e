"""One simulated rollout from plan to end, with the real planner, loop, journal codec and drivers' port; crashes included."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rollout.deciding.fold import start
from rollout.deciding.state import DECISION_VERSION, DeployState
from rollout.engine import baseline
from rollout.engine.deploy import replay
from rollout.engine.drivers import Drivers
from rollout.engine.leasing import Tenure, acquire
from rollout.engine.run import HEED_EVERY_S, Listener, Loop
from rollout.engine.survey import Surveyor
from rollout.model.event import Command, DeployBegan, DeployResumed, EffectInDoubt, Event, OperatorSpoke
from rollout.model.ids import DeployId, EffectNumber, ReleaseId, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.plan import Plan
from rollout.model.playbook import Playbook
from rollout.model.release import Release, make_release
from rollout.planning.planner import make_plan
from rollout.ports.lease import Claim
from rollout.simulation.drivers import (
    SimulatedLedger,
    SimulatedMetrics,
    SimulatedProbe,
    SimulatedReleases,
    SimulatedTraffic,
    SimulatedWorkers,
)
from rollout.simulation.faults import Fault, NoHooks
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.lease import SimulatedLease
from rollout.simulation.looking import Sight, open_eyes
from rollout.simulation.parts import SimulatedWorker
from rollout.simulation.performer import Durations, VirtualPerformer
from rollout.simulation.striking import Crash, Striker
from rollout.simulation.virtual_clock import VirtualClock
from rollout.simulation.world import World

DEPLOY = DeployId("rehearsal")
# No rollout of a dozen workers needs as many events; a loop that never ends is cut off here.
EVENTS_MAX = 20_000
SWEEP_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Script:
    """
    What happens to one rollout from outside. Faults and words come by the number of an effect or an event, or from a *striker*.

    *ends_by_s* is when it must have ended, by the tool's clock; *events_max* after how many events.
    """

    faults: Mapping[EffectNumber, Fault] = field(default_factory=dict)
    crashes: Sequence[int] = ()
    speak: Mapping[int, Command | tuple[Command, WorkerId]] = field(default_factory=dict)
    listeners: Sequence[Listener] = ()
    durations: Durations | None = None
    striker: Striker | None = None
    ends_by_s: float = float("inf")
    events_max: int = EVENTS_MAX


class EndlessError(AssertionError):
    """The rollout does not end."""


@dataclass(slots=True)
class Stage:
    """
    A simulated homeserver with everything that is needed to roll it. *clock* is the world's, *deploy_id* is what the next rollout is
    called, *end_by_s* when its window ends, *durations* how long effects take where a script doesn't say it.

    *sight* is how it is looked at meanwhile; with Sight.SCRIPTED a worker in *bad_after_s* is bad so many seconds after it was started on
    the new release.
    """

    inventory: Inventory
    world: World
    clock: VirtualClock
    drivers: Drivers
    old: Release
    ledger: SimulatedLedger
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    deploy_id: DeployId = DEPLOY
    end_by_s: float | None = None
    sight: Sight = Sight.REAL
    durations: Durations = Durations()
    bad_after_s: Mapping[WorkerId, float] = field(default_factory=dict)

    def plan(self, playbook: Playbook, version: str | None = "2.0.0", *, next_generation: bool = False, until: str | None = None) -> Plan:
        """Look, identify the release, and plan."""
        seen = Surveyor(self.drivers, self.inventory, self.clock).look(thorough=True)
        release = self.drivers.releases.identify(version, None, self.old.id, next_generation=next_generation)
        return make_plan(playbook, self.inventory, seen, release, until=until)


def set_stage(roles: Mapping[str, tuple[str, str | None]], held: str | None = None) -> Stage:
    """Build a homeserver from worker -> (role, pool); every worker runs release 1.0.0. Pool *held* can be held."""
    nowhere = DriverSettings(driver="simulated")
    inventory = Inventory.model_validate(
        {
            "homeserver": "simulated.localhost",
            "workers": {
                name: WorkerEntry.model_validate({"role": role, "pool": pool, "url": "http://sim", "metrics": "http://sim"})
                for name, (role, pool) in roles.items()
            },
            "pools": {pool: PoolEntry(backend=pool, hold=pool == held) for _, pool in roles.values() if pool is not None},
            "workers_driver": nowhere,
            "releases_driver": nowhere,
            "traffic_driver": nowhere,
            "ledger_driver": nowhere,
        }
    )
    return stage_of(inventory)


def stage_of(inventory: Inventory) -> Stage:
    """Build the homeserver that an inventory describes; every worker runs release 1.0.0, and nothing that it names is connected to."""
    # The simulated proxy names its servers as the workers are.
    inventory = inventory.model_copy(
        update={"workers": {name: it.model_copy(update={"server": None}) for name, it in inventory.workers.items()}}
    )
    clock = VirtualClock()
    old = replace(make_release("1.0.0", "lock-of-1.0.0", "digest-of-config"), schema_version=94, schema_compat_version=84)
    workers = {
        name: SimulatedWorker(
            activated=old.id,
            activated_at_s=clock.now_s() - 1000,
            started_at_s=clock.now_s() - 900,
            runs=old.id,
            backend=None if entry.pool is None else inventory.pools[entry.pool].backend,
        )
        for name, entry in inventory.workers.items()
    }
    can_hold = {pool.backend for pool in inventory.pools.values() if pool.hold}
    world = World(clock=clock, workers=workers, releases={ReleaseId(old.id): old}, can_hold=can_hold)
    ledger = SimulatedLedger(world)
    drivers = Drivers(
        workers=SimulatedWorkers(world),
        releases=SimulatedReleases(world, versions=("2.0.0",)),
        traffic=SimulatedTraffic(world),
        metrics=SimulatedMetrics(world),
        probe=SimulatedProbe(world),
        ledger=ledger,
        lease=SimulatedLease(world.lease, lambda: world.clock.now_s()),  # noqa: PLW0108  (a test may give the world another clock)
        database=None,
    )
    return Stage(inventory, world, clock, drivers, old, ledger)


def rehearse(
    stage: Stage,
    plan: Plan,
    *,
    faults: Mapping[EffectNumber, Fault] | None = None,
    crash_after: Sequence[int] = (),
    nobody_for_s: float = 0.0,
    speak: Mapping[int, Command | tuple[Command, WorkerId]] | None = None,
    listeners: Sequence[Listener] = (),
    durations: Durations | None = None,
) -> DeployState:
    """
    Roll *plan* out. *crash_after* are numbers of events after which the process dies and is resumed, *nobody_for_s* later; *speak* says
    what a person asks after how many events, and of which worker if of one.

    Raises AssertionError when it doesn't end.
    """
    crashes = sorted(crash_after)
    resumed = False
    while True:
        try:
            return live(stage, plan, Script(faults or {}, crashes, speak or {}, listeners, durations), resumed=resumed)
        except Crash:
            crashes.pop(0)
            let_nobody_be_there(stage, nobody_for_s)
            resumed = True


def take_up(stage: Stage, plan: Plan, listeners: Sequence[Listener] = ()) -> DeployState:
    """Take up what was left of a rollout that stopped, or that somebody else took over."""
    return _live(stage, plan, Script({}, [], {}, listeners), resumed=True)


def let_nobody_be_there(stage: Stage, seconds: float) -> None:
    """Let time pass without the tool; the dead-man at the target goes on sweeping."""
    until_s = stage.clock.now_s() + seconds
    while stage.clock.now_s() < until_s:
        stage.clock.advance_to(min(until_s, stage.clock.now_s() + SWEEP_EVERY_S))
        stage.ledger.sweep(stage.clock.now_s())


def live(stage: Stage, plan: Plan, script: Script, *, resumed: bool) -> DeployState:
    """Return the state at the end of one life of the tool. Raises Crash when that came too soon, EndlessError when it didn't come."""
    try:
        return _live(stage, plan, script, resumed=resumed)
    except BaseException:
        # However it ends: its process is gone, which can be seen.
        stage.world.lease.holder_died = True
        raise


def _live(stage: Stage, plan: Plan, script: Script, *, resumed: bool) -> DeployState:
    striker = script.striker
    clock = stage.clock if striker is None else striker.tool_clock
    spoken = dict(script.speak)
    count = len(stage.journal.events(stage.deploy_id)) if resumed else 0

    def listen(_event: Event, _state: DeployState) -> None:
        nonlocal count
        count += 1
        if script.crashes and count >= script.crashes[0]:
            raise Crash
        if count > script.events_max or clock.now_s() > script.ends_by_s:
            msg = "the rollout does not end"
            raise EndlessError(msg)

    def heed() -> Sequence[OperatorSpoke]:
        words = striker.take_words() if striker is not None else []
        if not spoken and not words:
            return ()
        due = [spoken.pop(after) for after in sorted(spoken) if count >= after]
        asked: list[tuple[Command, WorkerId | None]] = [said if isinstance(said, tuple) else (said, None) for said in due]
        asked += words
        return [OperatorSpoke(clock.now_s(), command, "rehearsal", "", worker) for command, worker in asked]

    listeners = (*script.listeners, listen, *(() if striker is None else (striker.listen,)))
    tenure = _tenure(stage, resumed=resumed)
    last, by = stage.drivers.ledger.last_number(), (tenure.lease.token, tenure.lease.taken_from)
    now_s = clock.now_s()
    if not resumed:
        loop = Loop(stage.deploy_id, plan, start(plan), stage.journal, clock, listeners)
        began = DeployBegan(now_s, stage.deploy_id, plan.digest, DECISION_VERSION, "rehearsal", last, *by, end_by_s=stage.end_by_s)
        stage.journal.begin(stage.deploy_id, plan, began)
        loop.admit((began,))
        found = baseline.find(stage.drivers, stage.journal, plan, now_s)
        loop.record(() if found is None else (found,))
    else:
        state = replay(stage.journal, plan, stage.deploy_id)
        loop = Loop(stage.deploy_id, plan, state, stage.journal, clock, listeners)
        now_s = max(now_s, state.last_at_s)
        loop.record((DeployResumed(now_s, DECISION_VERSION, "rehearsal", last, None, *by, end_by_s=stage.end_by_s),))
        loop.record([EffectInDoubt(loop.state.last_at_s, number, "the process died") for number in tuple(loop.state.in_flight)])
    eyes = open_eyes(stage.sight, stage.world, stage.drivers, stage.inventory, clock, (stage.old.id, stage.bad_after_s))
    hooks = NoHooks(script.faults) if striker is None else striker
    durations = stage.durations if script.durations is None else script.durations
    performer = VirtualPerformer(plan, stage.drivers, stage.inventory, clock, durations, eyes, hooks, tenure=tenure)
    # What is asked here is asked after an event, never by the time.
    state = loop.run(performer, heed, heed_every_s=HEED_EVERY_S if stage.sight in {Sight.REAL, Sight.QUICK} else math.inf)
    tenure.release()
    return state


def _tenure(stage: Stage, *, resumed: bool) -> Tenure:
    """Take the lease as soon as it can be reached; who resumes insists."""
    stage.clock.advance_to(stage.world.lease.away_until_s)
    claim = Claim("rehearsal", "resume" if resumed else "deploy", stage.deploy_id)
    return acquire(stage.drivers.lease, stage.drivers.ledger, stage.clock, claim, take_over=resumed)
