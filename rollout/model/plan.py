"""The plan: phases, waves and steps, each with its reason, deadline and undo. Data only; it can be printed, saved and compared."""

from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import JsonValue

from rollout.model.buying import Buying
from rollout.model.gate import Gate, Recovery
from rollout.model.ids import GateId, PoolId, ReleaseId, Role, StepId, WorkerId
from rollout.model.load import CapacityLimits, Headroom, Routing, Traffic
from rollout.model.release import Release
from rollout.model.warming import WarmBudget


class Verb(StrEnum):
    """
    What a step does. PREPARE, MIGRATE, SURVEY and WATCH concern the whole homeserver, the others one worker.

    HOLD and LET_GO are for one without a sibling what DRAIN and ADMIT are for the others: its requests wait in the proxy meanwhile.
    """

    PREPARE = "prepare"
    MIGRATE = "migrate"
    SURVEY = "survey"
    WARM = "warm"
    DRAIN = "drain"
    HOLD = "hold"
    RESTART = "restart"
    AWAIT_HEALTHY = "await_healthy"
    ADMIT = "admit"
    LET_GO = "let_go"
    SOAK = "soak"
    WATCH = "watch"


class Duty(StrEnum):
    """What happens to a worker's work while it is out."""

    REPLACEABLE = "replaceable"  # a sibling takes over
    SHARDED = "sharded"  # its share pauses
    SINGLETON = "singleton"  # all of its work pauses


@dataclass(frozen=True, slots=True)
class Worker:
    """One process, as the planner sees it: the inventory's entry with its duty."""

    id: WorkerId
    role: Role
    duty: Duty
    pool: PoolId | None
    host: str
    depends_on: tuple[WorkerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """
    One act, or one thing to wait for.

    *needs* are steps that must be done first. *release* is what the worker shall run after it (RESTART). After *deadline_s* without being
    done, the step has failed (MIGRATE: somebody is told, it goes on). *gates* are those that SOAK must pass; empty for a role that is
    watched for liveness only. *warms* are the workers that WARM warms: this one before it is admitted, or those that inherit its users
    before it is drained. *condemns*, on the way back, is the release that the worker is taken back from.
    """

    id: StepId
    verb: Verb
    worker: WorkerId | None
    release: ReleaseId
    needs: tuple[StepId, ...]
    deadline_s: float
    attempts_max: int
    undo: Verb | None
    gates: tuple[GateId, ...]
    why: str
    warms: tuple[WorkerId, ...] = ()
    condemns: ReleaseId | None = None


@dataclass(frozen=True, slots=True)
class Wave:
    """Workers that may be out together."""

    workers: tuple[WorkerId, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """A named stretch of the rollout, such as PREPARE, the canary, or a role."""

    name: str
    why: str
    waves: tuple[Wave, ...]


@dataclass(frozen=True, slots=True)
class Ramp:
    """
    Weights in percent, each held for *step_s* seconds; the last is 100.

    With *utilisation_max* (CPU seconds per second, of one core) the weights between the first and the last are found on the way, by how
    busy the worker would be (deciding/admission.py). *down* are the weights that a worker has, *step_s* each, before it is drained.
    """

    weights: tuple[int, ...]
    step_s: float
    down: tuple[int, ...] = ()
    utilisation_max: float | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """
    Who has passed its gates is watched on: they go on ruling, on windows of *window_s* (longer where a gate's samples take longer), until
    *watch_s* after the last worker passed its own.
    """

    watch_s: float
    window_s: float


@dataclass(frozen=True, slots=True)
class HoldBound:
    """
    What the proxy keeps to by itself, whether or not we live: it lets go after *hold_s* seconds, and beyond *hold_max* waiting requests it
    answers 503 with Retry-After.
    """

    hold_s: float
    hold_max: int


@dataclass(frozen=True, slots=True)
class Guard:
    """Must hold (`value <= max`) before a worker is taken out; unmet for *deadline_s*, the rollout pauses."""

    guard: str
    max: float
    deadline_s: float


@dataclass(frozen=True, slots=True)
class StepForecast:
    """
    Seconds that a step takes, from the end of those that it needs: *fixed_s* of them are the playbook's own, such as a soak's least time.

    *mean_s* is what to add up, *median_s* as often more as less, and nine of ten take no more than *p90_s*; all three hold *fixed_s*.
    """

    fixed_s: float
    mean_s: float
    median_s: float
    p90_s: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """
    Seconds. *duration_s* is as often too short as too long, nine of ten rollouts take no more than *p90_s* (None: not known), and *fixed_s*
    of them are the playbook's own times. *basis* says what it rests on, and *bases* for each kind of step; *evidence_s* is the minimum that
    gates ask for (soaks and ramps), per worker. *steps* are those of the way there. *traffic* is what each worker was asked, as far as that
    was measured.
    """

    duration_s: float
    evidence_s: dict[WorkerId, float]
    basis: str
    p90_s: float | None = None
    fixed_s: float = 0.0
    bases: tuple[str, ...] = ()
    steps: dict[StepId, StepForecast] = field(default_factory=dict)
    traffic: dict[WorkerId, Traffic] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Windows:
    """When a rollout may begin and must have ended, as the playbook says: times of day ("HH:MM") in *timezone*, "" where there is none."""

    first_start: str
    last_start: str
    not_after: str
    days: tuple[str, ...]
    timezone: str


@dataclass(frozen=True, slots=True)
class Basis:
    """
    What a plan was made from, so that it can be said later what has changed since (planning/drift.py).

    *made_at_s* is when the homeserver was looked at. *playbook* is the whole file; *inventory* its workers and pools, with digests in place
    of addresses, and *inventory_digest* covers all of it. *schema* is the database's version, compatibility floor and a digest of its
    deltas, None where it wasn't seen. *ours* were out since an earlier rollout of ours.
    """

    made_at_s: float = 0.0
    playbook: dict[str, JsonValue] = field(default_factory=dict)
    inventory: dict[str, JsonValue] = field(default_factory=dict)
    inventory_digest: str = ""
    schema: tuple[int, int, str] | None = None
    ours: tuple[WorkerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Everything `decide` needs, and nothing that changes while it runs.

    *from_releases* names what each worker ran when the plan was made. *rollback* holds the way back for every worker of the plan; only
    those that were touched are taken, or, by *rollback_scope* "blamed", those that failed. *point_of_no_return* is the step after which no
    way back exists, None if there is always one. *headroom* is what the siblings of each worker that is taken out come to meanwhile,
    *capacity* what they may come to, and *routing* how each pool's requests find their worker. *digest* covers everything but itself, what
    was measured (forecast, headroom, time) and the notes; *observation_digest* covers what was seen without volatile facts. *windows* are
    None where it may run at any time. *buying* is None where no evidence is bought with requests of our own; *profile* is the playbook's.
    """

    digest: str
    homeserver: str
    playbook_digest: str
    observation_digest: str
    workers: tuple[Worker, ...]
    from_releases: dict[WorkerId, ReleaseId]
    to_release: Release
    releases: dict[ReleaseId, Release]
    phases: tuple[Phase, ...]
    rollback: tuple[Phase, ...]
    point_of_no_return: StepId | None
    gates: dict[GateId, Gate]
    guards: tuple[Guard, ...]
    ramp: Ramp
    hold: HoldBound
    warm: WarmBudget | None
    recovery: Recovery | None
    watch: Watch
    rollback_scope: str
    max_unavailable: dict[PoolId, int]
    foreign_drains: tuple[WorkerId, ...]
    skipped: dict[WorkerId, str]
    baseline_s: float
    sample_s: float
    progress_deadline_s: float
    forecast: Forecast
    notes: tuple[str, ...] = field(default=())
    windows: Windows | None = None
    capacity: CapacityLimits = field(default_factory=CapacityLimits)
    headroom: dict[WorkerId, Headroom] = field(default_factory=dict)
    routing: dict[PoolId, Routing] = field(default_factory=dict)
    basis: Basis = field(default_factory=Basis)
    buying: Buying | None = None
    profile: str = ""


def steps_of(phases: tuple[Phase, ...]) -> tuple[Step, ...]:
    """All steps in the order in which they stand."""
    return tuple(step for phase in phases for wave in phase.waves for step in wave.steps)


def goes_back_to(plan: Plan, worker: WorkerId) -> ReleaseId:
    """Name the release that a worker is on after the way back: what it ran before, unless an earlier rollout had condemned that."""
    restarts = (step.release for step in steps_of(plan.rollback) if step.worker == worker and step.verb is Verb.RESTART)
    return next(restarts, plan.from_releases[worker])
