"""One simulated rollout from plan to end, with the real planner, loop, journal codec and drivers' port; crashes included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rollout.deciding.fold import start
from rollout.deciding.state import DECISION_VERSION, DeployState
from rollout.engine.deploy import replay
from rollout.engine.drivers import Drivers
from rollout.engine.leasing import Tenure, acquire
from rollout.engine.run import Listener, Loop
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
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.lease import SimulatedLease
from rollout.simulation.performer import Durations, Fault, VirtualPerformer
from rollout.simulation.virtual_clock import VirtualClock
from rollout.simulation.world import SimulatedWorker, World

DEPLOY = DeployId("rehearsal")
# No rollout of a dozen workers needs as many events; a loop that never ends is cut off here.
EVENTS_MAX = 20_000
SWEEP_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Script:
    """What happens to one rollout from outside."""

    faults: Mapping[EffectNumber, Fault]
    crashes: Sequence[int]
    speak: Mapping[int, Command | tuple[Command, WorkerId]]
    listeners: Sequence[Listener]
    durations: Durations


class Crash(Exception):  # noqa: N818  (not an error: the end of a process, on purpose)
    """The tool's process ends here, as by SIGKILL."""


@dataclass(slots=True)
class Stage:
    """A simulated homeserver with everything that is needed to roll it."""

    inventory: Inventory
    world: World
    clock: VirtualClock
    drivers: Drivers
    old: Release
    ledger: SimulatedLedger
    journal: MemoryJournal = field(default_factory=MemoryJournal)

    def plan(self, playbook: Playbook, version: str | None = "2.0.0", *, next_generation: bool = False, until: str | None = None) -> Plan:
        """Look, identify the release, and plan."""
        seen = Surveyor(self.drivers, self.inventory, self.clock).look(thorough=True)
        release = self.drivers.releases.identify(version, None, self.old.id, next_generation=next_generation)
        return make_plan(playbook, self.inventory, seen, release, until=until)


def set_stage(roles: Mapping[str, tuple[str, str | None]], held: str | None = None) -> Stage:
    """Build a homeserver from worker -> (role, pool); every worker runs release 1.0.0. Pool *held* can be held."""
    clock = VirtualClock()
    old = replace(make_release("1.0.0", "lock-of-1.0.0", "digest-of-config"), schema_version=94, schema_compat_version=84)
    workers = {
        WorkerId(name): SimulatedWorker(
            activated=old.id,
            activated_at_s=clock.now_s() - 1000,
            started_at_s=clock.now_s() - 900,
            runs=old.id,
            backend=pool,
        )
        for name, (_, pool) in roles.items()
    }
    world = World(clock=clock, workers=workers, releases={ReleaseId(old.id): old}, can_hold=set() if held is None else {held})
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
    durations: Durations = Durations(),
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
            return _live(stage, plan, Script(faults or {}, crashes, speak or {}, listeners, durations), resumed=resumed)
        except BaseException as end:
            # However it ends: its process is gone, which can be seen.
            stage.world.lease.holder_died = True
            if not isinstance(end, Crash):
                raise
            crashes.pop(0)
            _let_nobody_be_there(stage, nobody_for_s)
            resumed = True


def take_up(stage: Stage, plan: Plan, listeners: Sequence[Listener] = ()) -> DeployState:
    """Take up what was left of a rollout that stopped, or that somebody else took over."""
    return _live(stage, plan, Script({}, [], {}, listeners, Durations()), resumed=True)


def _let_nobody_be_there(stage: Stage, seconds: float) -> None:
    """Let time pass without the tool; the dead-man at the target goes on sweeping."""
    until_s = stage.clock.now_s() + seconds
    while stage.clock.now_s() < until_s:
        stage.clock.advance_to(min(until_s, stage.clock.now_s() + SWEEP_EVERY_S))
        stage.ledger.sweep(stage.clock.now_s())


def _live(stage: Stage, plan: Plan, script: Script, *, resumed: bool) -> DeployState:
    """One life of the tool."""
    spoken = dict(script.speak)
    count = len(stage.journal.events(DEPLOY)) if resumed else 0

    def listen(_event: Event, _state: DeployState) -> None:
        nonlocal count
        count += 1
        if script.crashes and count >= script.crashes[0]:
            raise Crash
        if count > EVENTS_MAX:
            msg = "the rollout does not end"
            raise AssertionError(msg)

    def heed() -> list[OperatorSpoke]:
        due = [spoken.pop(after) for after in sorted(spoken) if count >= after]
        asked = [said if isinstance(said, tuple) else (said, None) for said in due]
        return [OperatorSpoke(stage.clock.now_s(), command, "rehearsal", "", worker) for command, worker in asked]

    tenure = _tenure(stage, resumed=resumed)
    last, by = stage.drivers.ledger.last_number(), (tenure.lease.token, tenure.lease.taken_from)
    if not resumed:
        loop = Loop(DEPLOY, plan, start(plan), stage.journal, stage.clock, (*script.listeners, listen))
        began = DeployBegan(stage.clock.now_s(), DEPLOY, plan.digest, DECISION_VERSION, "rehearsal", last, *by)
        stage.journal.begin(DEPLOY, plan, began)
        loop.admit((began,))
    else:
        loop = Loop(DEPLOY, plan, replay(stage.journal, plan, DEPLOY), stage.journal, stage.clock, (*script.listeners, listen))
        loop.record(
            (
                DeployResumed(
                    max(stage.clock.now_s(), loop.state.last_at_s),
                    DECISION_VERSION,
                    "rehearsal",
                    stage.drivers.ledger.last_number(),
                    None,
                    *by,
                ),
            )
        )
        loop.record([EffectInDoubt(loop.state.last_at_s, number, "the process died") for number in tuple(loop.state.in_flight)])
    performer = VirtualPerformer(plan, stage.drivers, stage.inventory, stage.clock, script.faults, script.durations, tenure=tenure)
    state = loop.run(performer, heed)
    tenure.release()
    return state


def _tenure(stage: Stage, *, resumed: bool) -> Tenure:
    """Take the lease as soon as it can be reached; who resumes insists."""
    stage.clock.advance_to(stage.world.lease.away_until_s)
    claim = Claim("rehearsal", "resume" if resumed else "deploy", DEPLOY)
    return acquire(stage.drivers.lease, stage.drivers.ledger, stage.clock, claim, take_over=resumed)
