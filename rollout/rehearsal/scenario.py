"""
From a seed to a rehearsal: a small homeserver (or one that is given), a playbook, and what goes wrong.

Pure, given the seed: this is the one place with randomness. The strikes are aimed: a campaign of consecutive seeds visits every cell of the
coverage table equally often, whatever its size.
"""

import functools
import random
from collections import Counter
from dataclasses import dataclass, replace

from rollout.model.gate import Metric
from rollout.model.ids import Role, WorkerId
from rollout.model.inventory import DriverSettings, Inventory
from rollout.model.plan import Verb
from rollout.model.playbook import Baseline, Capacity, GateEntry, GuardEntry, Hold, Playbook, Ramp, Rollback, Strategy, Warm, Watch
from rollout.rehearsal.coverage import CELLS, Cell
from rollout.simulation.database import SimulatedDatabase
from rollout.simulation.faults import Fault, Moment, Strike
from rollout.simulation.faulty_drivers import SimulatedWarming
from rollout.simulation.fitting import Fitted, choose, settle_in
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.looking import Sight
from rollout.simulation.rehearse import Stage, set_stage, stage_of

# Prime to any number of cells that there may be, so that consecutive seeds aim far apart; and another each time round, so that no cell
# always strikes after the same other one.
_STRIDES = (10007, 11519, 13033, 14533, 16033, 17539, 19051, 20551)
# What comes so late in a rollout that a strike before it often forestalls it.
_LATE = frozenset({Verb.HOLD, Verb.LET_GO, Verb.WATCH})
# How many strikes of each kind, before and late, consecutive seeds have: at most three, since more hide one another. In one of twenty
# nothing strikes: those must end as they should.
_TEN = ((3, 0), (0, 2), (3, 0), (3, 0), (1, 2), (3, 0), (3, 0), (0, 2), (3, 0))
_STRIKES = (*_TEN, (0, 0), *_TEN, (0, 2))
# How often a cell is aimed at, compared with others of its kind, so that all are struck alike: by campaigns that aimed at all alike.
_AIMS = {
    Verb.PREPARE: 4,
    Verb.MIGRATE: 4,
    Verb.SURVEY: 4,
    Verb.AWAIT_HEALTHY: 6,
    Verb.ADMIT: 6,
    Verb.WARM: 7,
    Verb.SOAK: 7,
    Verb.WATCH: 8,
}
_AIMS_OTHERS = 5
_BAD = (Fault.RELEASE_EXITS, Fault.RELEASE_HANGS, Fault.RELEASE_ERRS, Fault.RELEASE_SLOW)
BOOT_TIMEOUT_S = 30.0
# How many workers there must be before somebody drains one beforehand, and in a pool before two of it may be out.
ENOUGH = 4
ENOUGH_FOR_TWO = 3

# What a rollout does once, and what only to those that are drained.
_ONCE = frozenset({Verb.PREPARE, Verb.MIGRATE, Verb.SURVEY, *_LATE})
_OF_THE_DRAINED = frozenset({Verb.DRAIN, Verb.WARM, Verb.ADMIT})

# What a strike lasts, or measures, in seconds: from, to, and how often it is for ever.
_LASTS: dict[Fault, tuple[float, float, float]] = {
    Fault.LATE: (0.5, 60, 0),
    Fault.DUPLICATED: (0.5, 60, 0),
    Fault.WORKER_DIES: (2, 30, 0.5),
    Fault.WORKER_HANGS: (2, 40, 0.5),
    Fault.BOOTS_SLOWLY: (4, 0.7 * BOOT_TIMEOUT_S, 0),
    Fault.BOOTS_TOO_SLOWLY: (1.2 * BOOT_TIMEOUT_S, 3 * BOOT_TIMEOUT_S, 0),
    Fault.RECOVERS_SLOWLY: (5, 40, 0),
    Fault.METRICS_OF_ONE: (3, 60, 0.3),
    Fault.METRICS_OF_ALL: (3, 60, 0.3),
    Fault.PROXY_AWAY: (1, 60, 0),
    Fault.MANAGER_AWAY: (1, 60, 0),
    Fault.DATABASE_AWAY: (1, 60, 0.3),
    Fault.LEASE_LOST: (5, 120, 0.3),
    Fault.CLOCK_FORWARD: (1, 600, 0),
    Fault.CLOCK_BACK: (1, 60, 0),
    Fault.TOOL_STALLS: (0.5, 60, 0),
    Fault.TOOL_DIES: (0, 300, 0),
    Fault.JOURNAL_LOST: (0, 120, 0),
}
# How long after it began something may strike that is waited for.
_DELAYS_S: dict[Verb, float] = {
    Verb.SURVEY: 8,
    Verb.DRAIN: 15,
    Verb.RESTART: 3,
    Verb.AWAIT_HEALTHY: 3,
    Verb.SOAK: 8,
    Verb.WATCH: 15,
}


@dataclass(frozen=True, slots=True)
class Given:
    """A homeserver and a playbook to rehearse instead of drawn ones, and its figures if they are not the lab's."""

    inventory: Inventory
    playbook: Playbook
    fitted: Fitted | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One rehearsal.

    *bad* is what the release is like from the start; None: it works. *foreign* was drained by somebody before it was planned. Whoever finds
    the rollout paused takes it up again, *resumes* times, *resume_after_s* later.
    """

    seed: int
    inventory: Inventory
    playbook: Playbook
    strikes: tuple[Strike, ...]
    bad: Fault | None = None
    restart_only: bool = False
    foreign: WorkerId | None = None
    resumes: int = 0
    resume_after_s: float = 60.0
    fitted: Fitted | None = None


# Who is warmed for.
USERS = ("@alice:simulated.localhost", "@bob:simulated.localhost")


def draw(seed: int, given: Given | None = None, cells: tuple[Cell, ...] = CELLS) -> Scenario:
    """Draw the rehearsal of a seed."""
    rng = random.Random(seed)  # noqa: S311  (to be played again, not to be secret)
    aims = aimed_at(seed, cells) if given is None else _fitting(seed, cells, given)
    verbs = {cell.verb for cell in aims}
    if given is None:
        inventory = _homeserver(rng, verbs)
        playbook = _playbook(rng, verbs, inventory)
    else:
        inventory, playbook = given.inventory, given.playbook
    replaceable = [worker for worker, entry in inventory.workers.items() if entry.role in {"client", "sync", "media", "federation_reader"}]
    return Scenario(
        seed=seed,
        inventory=inventory,
        playbook=playbook,
        strikes=tuple(_strike(rng, cell, inventory) for cell in aims),
        bad=rng.choice(_BAD) if not verbs & _LATE and _by(rng, 0.2) else None,
        restart_only=Verb.MIGRATE not in verbs and _by(rng, 0.1),
        foreign=rng.choice(replaceable) if len(replaceable) >= ENOUGH and _by(rng, 0.05) else None,
        resumes=rng.choice((0, 1, 2)),
        resume_after_s=round(rng.uniform(1, 120), 1),
        fitted=given.fitted if given is not None and given.fitted is not None else _lab(),
    )


def aimed_at(seed: int, cells: tuple[Cell, ...] = CELLS) -> tuple[Cell, ...]:
    """Choose the cells that a seed strikes: consecutive seeds go through all of them again and again."""
    rounds, place = divmod(seed, len(_STRIKES))
    aims: list[Cell] = []
    for kind, candidates in enumerate(_candidates(cells)):
        before = rounds * sum(one[kind] for one in _STRIKES) + sum(one[kind] for one in _STRIKES[:place])
        aims += [_nth(candidates, before + offset) for offset in range(_STRIKES[place][kind])]
    return tuple(aims)


def _nth(candidates: tuple[Cell, ...], number: int) -> Cell:
    turn, place = divmod(number, len(candidates))
    return candidates[place * _STRIDES[turn % len(_STRIDES)] % len(candidates)]


@functools.cache
def _candidates(cells: tuple[Cell, ...]) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
    """Return what strikes before, and late, each cell as often as it is to be aimed at."""
    often = [cell for cell in cells for _ in range(_AIMS.get(cell.verb, _AIMS_OTHERS))]
    return tuple(cell for cell in often if cell.verb not in _LATE), tuple(cell for cell in often if cell.verb in _LATE)


def _fitting(seed: int, cells: tuple[Cell, ...], given: Given) -> tuple[Cell, ...]:
    """Leave out verbs that a given homeserver's rollout doesn't have."""
    held = any(pool.hold for pool in given.inventory.pools.values())
    without = set() if held else {Verb.HOLD, Verb.LET_GO}
    without |= set() if given.playbook.strategy.warm is not None else {Verb.WARM}
    return aimed_at(seed, tuple(cell for cell in cells if cell.verb not in without))


@functools.cache
def _lab() -> Fitted:
    """What the lab's rollouts took: read once a process."""
    return choose(None, "")


def set_up(scenario: Scenario) -> Stage:
    """Build the homeserver of a rehearsal, with every port that there is."""
    stage = stage_of(scenario.inventory)
    # The same journals as by the longer way, in half the time; and most are read by nobody.
    stage.sight, stage.journal = Sight.QUICK, MemoryJournal(codec=False)
    stage.drivers = replace(stage.drivers, database=SimulatedDatabase(stage.clock, users=USERS), warming=SimulatedWarming(stage.world))
    simulated = DriverSettings(driver="simulated")
    stage.inventory = stage.inventory.model_copy(update={"warming_driver": simulated, "database_driver": simulated})
    if scenario.fitted is not None:
        stage.durations = settle_in(stage.world, stage.inventory, scenario.fitted, scenario.seed)
    if scenario.foreign is not None:
        stage.world.drain(scenario.foreign)
    return stage


def _homeserver(rng: random.Random, verbs: set[Verb]) -> Inventory:
    held = "main" if verbs & {Verb.HOLD, Verb.LET_GO} or _by(rng, 0.4) else None
    roles: dict[str, tuple[str, str | None]] = {}
    for role in rng.sample(("client", "sync", "media"), rng.choice((1, 1, 2)) if verbs - _LATE or not verbs else 1):
        for number in range(1, rng.choice((2, 2, 3)) + 1):
            roles[f"{role}{number}"] = (role, role)
    if _by(rng, 0.3):
        roles["event_persister1"] = ("event_persister", None)
    if _by(rng, 0.3):
        roles["fedsender1"] = ("federation_sender", None)
    if held or _by(rng, 0.6):
        roles["main"] = ("main", "main")
    names = list(roles)
    rng.shuffle(names)
    return set_stage({name: roles[name] for name in names}, held).inventory


def _playbook(rng: random.Random, verbs: set[Verb], inventory: Inventory) -> Playbook:
    sizes = Counter(entry.pool for entry in inventory.workers.values() if entry.pool is not None)
    policy = {"on_inconclusive": rng.choice(("pause", "rollback")), "on_unmeasurable": rng.choice(("pause", "rollback"))}
    gate = {"samples_min": 50, "soak_s": 6.0, "deadline_s": 60.0, "fresh_s": 10.0, **policy}
    return Playbook(
        name="rehearsed",
        strategy=Strategy(
            role_order=rng.choice(((), (Role("sync"), Role("client")), ((Role("client"), Role("sync")),))),
            max_unavailable={pool: 2 for pool, size in sizes.items() if size >= ENOUGH_FOR_TWO and _by(rng, 0.5)},
            drain_timeout_s=40.0,
            boot_timeout_s=BOOT_TIMEOUT_S,
            progress_deadline_s=200.0,
            prepare_timeout_s=60.0,
            migrate_page_after_s=60.0,
            ramp=Ramp(
                weights=rng.choice(((100,), (50, 100), (25, 50, 100))),
                step_s=rng.choice((1.0, 3.0)),
                down=rng.choice(((), (), (50,))),
                utilisation_max=rng.choice((None, None, None, 0.7)),
            ),
            hold=Hold(hold_s=20.0, hold_max=6000),
            warm=Warm(users_max=2, seconds=4.0, inheritors=_by(rng, 0.5)) if Verb.WARM in verbs or _by(rng, 0.2) else None,
        ),
        baseline=Baseline(baseline_s=10.0, sample_s=2.0),
        gates=(
            GateEntry.model_validate({"id": "errors", "metric": Metric.ERRORS, "max": 0.02, **gate}),
            GateEntry.model_validate({"id": "latency", "metric": Metric.LATENCY_P95, "ratio_max": 1.5, "slack": 0.05, **gate}),
        ),
        guards=(GuardEntry(guard="lock_queue", max=5, deadline_s=30.0),) if _by(rng, 0.5) else (),
        liveness_only=(Role("event_persister"), Role("federation_sender"), Role("sync")),
        watch=Watch(watch_s=16.0, window_s=6.0),
        rollback=Rollback(scope=rng.choice(("all_touched", "all_touched", "blamed"))),
        # A homeserver that is too busy waits, as it should, and then nothing else would be rehearsed on it.
        capacity=Capacity(utilisation_max=9.0, p95_ratio_max=None),
    )


def _strike(rng: random.Random, cell: Cell, inventory: Inventory) -> Strike:
    workers = inventory.workers.values()
    lasts_from, lasts_to, for_ever = _LASTS.get(cell.fault, (0.0, 0.0, 1.0))
    drained = sum(entry.pool is not None and entry.role != "main" for entry in workers)
    turns = 1 if cell.verb in _ONCE else drained if cell.verb in _OF_THE_DRAINED else len(workers)
    waits_s = _DELAYS_S.get(cell.verb, 0.0) if cell.moment is Moment.WAITING else 0.0
    return Strike(
        fault=cell.fault,
        verb=cell.verb,
        moment=cell.moment,
        nth=min(max(1, turns), rng.choice((1, 1, 1, 2, 3))),
        for_s=None if _by(rng, for_ever) else round(rng.uniform(lasts_from, lasts_to), 1),
        delay_s=round(rng.uniform(0, waits_s), 1),
        aside=cell.fault is Fault.SOMEBODY_DRAINS or _by(rng, 0.25),
        whom=rng.randrange(len(workers)),
    )


def _by(rng: random.Random, share: float) -> bool:
    """Tell whether something happens that happens in so many cases."""
    return rng.random() < share
