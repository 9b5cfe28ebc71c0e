"""
How to roll: the playbook file, as written by a person. Times are seconds, ratios are fractions.

A playbook says nothing about one homeserver (that is the inventory) nor about one release (that is an argument of the command).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from rollout.model.gate import Metric
from rollout.model.ids import GateId, PoolId, Role, WorkerId

_STRICT = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

Policy = Literal["pause", "rollback"]


class Ramp(BaseModel):
    """
    How a worker gets its traffic back: weights in percent of its full weight, each held for *step_s*; the last one is always 100.

    With *utilisation_max* the weights between the first and the last are found on the way: as much as keeps the worker below that many CPU
    seconds per second. *down* is the way down before a drain, likewise *step_s* each: the users who move don't all move at once.
    """

    model_config = _STRICT

    weights: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(default=(25, 50, 100), min_length=1)
    step_s: float = Field(default=10.0, ge=0)
    down: tuple[Annotated[int, Field(ge=1, le=99)], ...] = ()
    utilisation_max: float | None = Field(default=None, gt=0, le=1)


class Hold(BaseModel):
    """
    The bound of a hold, kept by the proxy itself: it lets go after *hold_s*, and beyond *hold_max* waiting requests it answers 503 with
    Retry-After.
    """

    model_config = _STRICT

    hold_s: float = Field(default=30.0, gt=0, le=300)
    hold_max: int = Field(default=1000, ge=1)


class Warm(BaseModel):
    """
    Filling caches before users come, with requests as the most recently active users. At most *users_max* of them, *concurrency* at a time
    and for *seconds*, and only while the worker uses less than *cpu_max* of a core. *inheritors*: those who take a worker's users over are
    warmed before it is drained.
    """

    model_config = _STRICT

    users_max: int = Field(default=200, ge=1)
    concurrency: int = Field(default=2, ge=1, le=32)
    seconds: float = Field(default=20.0, gt=0)
    cpu_max: float = Field(default=0.8, gt=0, le=1)
    inheritors: bool = True


class CanaryRequests(BaseModel):
    """
    Buying evidence where users ask too little: *per_s* requests of our own a second, straight to the port of each worker that can be asked
    (client, sync, main), while the baseline is taken, a worker soaks or somebody is watched. One at a time, no more than *requests_max* to
    each worker in one rollout, and none while it uses more than *cpu_max* of a core. They count like any other request.
    """

    model_config = _STRICT

    per_s: float = Field(default=1.0, gt=0, le=5)
    requests_max: int = Field(default=20_000, ge=1)
    cpu_max: float = Field(default=0.5, gt=0, le=1)


class Strategy(BaseModel):
    """Order and limits. An entry of *role_order* that is a list names roles that are rolled side by side, one worker of each at a time."""

    model_config = _STRICT

    role_order: tuple[Role | tuple[Role, ...], ...] = ()
    canary: WorkerId | None = Field(default=None, description="the first worker; if absent the first replaceable one in role order")
    max_unavailable: dict[PoolId, Annotated[int, Field(ge=1)]] = Field(default={}, description="per pool; 1 where absent")
    drain_timeout_s: float = Field(default=90.0, gt=0)
    boot_timeout_s: float = Field(default=120.0, gt=0)
    progress_deadline_s: float = Field(default=1800.0, gt=0)
    prepare_timeout_s: float = Field(default=900.0, gt=0)
    migrate_page_after_s: float = Field(default=1800.0, gt=0, description="a migration is never stopped: after this long somebody is told")
    restart_attempts_max: int = Field(default=2, ge=1)
    ramp: Ramp = Ramp()
    hold: Hold = Hold()
    warm: Warm | None = Field(default=None, description="no warming if absent")


class GateEntry(BaseModel):
    """
    One test of one metric for some roles.

    *test* "sequential" adds up evidence, against the worker's own past less what its pool shows meanwhile, and is wrong about a good worker
    no oftener than *false_alarms* of the playbook allow, however often it is looked at (docs/gates.md). There *ratio_max* and *max* say
    how bad is bad, and may be left out: clearly below them nobody fails, and to pass a worker must be shown to be below. *samples_min*,
    *soak_s* and the rest are as below. It is for what varies from request to request: all metrics but work_per_s, backlog and
    push_failure_ratio.

    The other, "threshold", is one value.
    Passes when the measured value is at or below *ratio_max* times the baseline (plus *slack*, in the metric's own unit), or at or below
    *max*, as given; not before *samples_min* completed requests and *soak_s* after admission, and only on data younger than *fresh_s*.
    (For work_per_s less is worse: its value must be at or above the baseline divided by *ratio_max*, and *max* is the least.) If neither
    PASS nor FAIL has come after *deadline_s*, *on_inconclusive* decides; if nothing could be measured, *on_unmeasurable*.
    """

    model_config = _STRICT

    id: GateId
    metric: Metric
    test: Literal["threshold", "sequential"] = "threshold"
    roles: tuple[Role, ...] = Field(default=(), description="all roles that have this metric as evidence, if empty")
    ratio_max: float | None = Field(default=None, gt=0)
    slack: float = Field(default=0.0, ge=0)
    max: float | None = Field(default=None, ge=0)
    samples_min: int = Field(default=50, ge=1)
    soak_s: float = Field(default=30.0, ge=0)
    fresh_s: float = Field(default=20.0, gt=0)
    deadline_s: float | None = Field(
        default=None, gt=0, description="600 if absent, 1200 where the test is sequential, and 1000 of push_failure_ratio"
    )
    on_inconclusive: Policy = "pause"
    on_unmeasurable: Policy = "pause"
    act: bool = Field(default=True, description="false: it rules and is told of, and nothing is done about it")


class GuardEntry(BaseModel):
    """
    Something that must hold at every moment; while it doesn't, no worker is taken out. After *deadline_s* the rollout pauses.

    *latency_p95_s* and *error_ratio* are here of all workers together, and compared with nothing but *max*.
    """

    model_config = _STRICT

    guard: Literal[
        "lock_queue",
        "long_transaction_s",
        "connections_used",
        "files_used",
        "files_projected",
        "reactor_tick_s",
        "replication_lag_s",
        "in_flight",
        "latency_p95_s",
        "error_ratio",
    ]
    max: float = Field(ge=0)
    deadline_s: float = Field(default=900.0, gt=0)


class Baseline(BaseModel):
    """SURVEY watches the untouched homeserver for *baseline_s* before the first worker goes out."""

    model_config = _STRICT

    baseline_s: float = Field(default=120.0, ge=0)
    sample_s: float = Field(default=5.0, gt=0, description="time between two looks at every metrics page")


class RecoveryEntry(BaseModel):
    """
    A restarted worker must carry its load again within *recovery_s*: at least *share_min* of its pool's median rate of requests, at no more
    than *level_ratio_max* times the CPU per request that it took before. One that is late but improving is waited for until *deadline_s*.
    """

    model_config = _STRICT

    share_min: float = Field(default=0.5, gt=0, le=1)
    level_ratio_max: float = Field(default=2.0, gt=1)
    recovery_s: float = Field(default=120.0, gt=0)
    deadline_s: float = Field(default=600.0, gt=0)
    samples_min: int = Field(default=20, ge=1, description="completed requests in a window, below which it says nothing")


class Capacity(BaseModel):
    """
    What the siblings of a worker may come to while it is out. Refused when the upper 95 % bound of one's CPU seconds per second is above
    *utilisation_max*, or when its requests are predicted to take more than *p95_ratio_max* times as long; said above *warn_above*. Asked
    when it is planned and again before each drain; on the way back it is only said. *require*: refused also where the load isn't known.
    """

    model_config = _STRICT

    utilisation_max: float = Field(default=0.85, gt=0)
    p95_ratio_max: float | None = Field(default=1.5, ge=1, description="not asked if null")
    warn_above: float = Field(default=0.70, gt=0)
    require: bool = False


class Watch(BaseModel):
    """
    Who has passed its gates is watched on until *watch_s* after the last worker has: a gate that fails in two windows of *window_s*, one
    after the other, takes the rollout back. What gets worse slowly shows here. A window lasts longer where a gate's *samples_min* don't
    come within it; *watch_s* should hold two of them.
    """

    model_config = _STRICT

    watch_s: float = Field(default=900.0, ge=0)
    window_s: float = Field(default=15.0, gt=0)


class Rollback(BaseModel):
    """
    What happens on a FAIL. `all_touched` takes every worker that was touched back to what it ran before; `blamed` takes back only those
    that failed, and then pauses.
    """

    model_config = _STRICT

    scope: Literal["all_touched", "blamed"] = "all_touched"


_TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Windows(BaseModel):
    """
    When a rollout may run: it begins between *first_start* and *last_start*, and one of which nine in ten would not have ended by
    *not_after* doesn't begin. Times of day as "HH:MM", in quotes, in *timezone*; each is the first one after the one before it, so that a
    window may go over midnight. *days* are those on which it opens.
    """

    model_config = _STRICT

    first_start: _TimeOfDay = "00:00"
    last_start: _TimeOfDay | None = Field(default=None, description="not_after if absent")
    not_after: _TimeOfDay | None = Field(default=None, description="no end if absent")
    days: tuple[Day, ...] = Field(default=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), min_length=1)
    timezone: str = Field(default="UTC", min_length=1, description="such as Europe/Berlin")


class Playbook(BaseModel):
    """The whole file."""

    model_config = _STRICT

    name: str = Field(min_length=1)
    profile: Literal["small"] | None = Field(
        default=None, description="settings for all that is left out: small, for a homeserver with a request every few seconds"
    )
    strategy: Strategy = Strategy()
    baseline: Baseline = Baseline()
    gates: tuple[GateEntry, ...] = ()
    false_alarms: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="how often a good rollout may be taken back by a sequential gate, all workers and gates together",
    )
    canary_requests: CanaryRequests | None = Field(default=None, description="no evidence is bought if absent")
    guards: tuple[GuardEntry, ...] = ()
    liveness_only: tuple[Role, ...] = Field(default=(), description="roles that may pass on being alive alone; plan and verdict say so")
    accept_hazards: tuple[str, ...] = Field(default=(), description="hazards between releases that somebody has read of and accepts, by id")
    background_updates: Literal["refuse", "warn"] = Field(
        default="refuse",
        description="what Synapse's own that have not ended do to a new version, and an index that is being built to anything",
    )
    recovery: RecoveryEntry | None = Field(default=None, description="no such gate if absent")
    capacity: Capacity = Capacity()
    watch: Watch = Watch()
    rollback: Rollback = Rollback()
    windows: Windows | None = Field(default=None, description="at any time if absent")
