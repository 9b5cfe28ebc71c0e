"""
What is remembered of a rollout: everything is derived from the journal by `fold`.

State is kept per worker and per step, with a map of the effects in flight, so that steps of different pools may overlap. Tallies are
sums, not samples, so that the state of a long rollout stays small.

What is copied with every event has no slots: that makes a copy thirty times as cheap (model/changed.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from rollout.gating.windows import Window
from rollout.model.effect import Effect
from rollout.model.event import (
    Command,
    EffectFailed,
    EffectInDoubt,
    EffectIntended,
    EffectObserved,
    EffectSucceeded,
    Outcome,
    StepBegan,
    StepFailed,
    StepFinished,
)
from rollout.model.gate import GuardReading, Metric, Tally, Verdict
from rollout.model.ids import EffectNumber, GateId, PoolId, ReleaseId, Role, StepId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import HoldSighting, PoolSighting, ProxyLimits, SchemaSighting, Sighting
from rollout.model.warming import Warmed

# Raised when the same journal could lead to another decision: resuming under another version is refused unless it is accepted by name.
DECISION_VERSION = 12


class StepStatus(StrEnum):
    """Where a step is."""

    PENDING = "pending"
    ACTIVE = "active"  # begun; no effect of it is under way
    INTENDED = "intended"  # an effect of it is under way
    DOUBTFUL = "doubtful"  # its effect may or may not have happened
    APPLIED = "applied"  # its effect happened; the world has yet to show what it is for
    DONE = "done"
    FAILED = "failed"


class Direction(StrEnum):
    """Which of the plan's two lists of phases is followed."""

    FORWARD = "forward"
    BACK = "back"


# The only moves that a step can make. EffectObserved appears twice: what was in doubt did happen (True) or did not (False).
TRANSITIONS: dict[tuple[StepStatus, type[object], bool], StepStatus] = {
    (StepStatus.PENDING, StepBegan, True): StepStatus.ACTIVE,
    (StepStatus.ACTIVE, EffectIntended, True): StepStatus.INTENDED,
    # The next weight of a ramp.
    (StepStatus.APPLIED, EffectIntended, True): StepStatus.INTENDED,
    # The proxy forgot a drain (a reload): it is drained again.
    (StepStatus.DONE, EffectIntended, True): StepStatus.INTENDED,
    (StepStatus.INTENDED, EffectSucceeded, True): StepStatus.APPLIED,
    (StepStatus.INTENDED, EffectFailed, True): StepStatus.ACTIVE,
    (StepStatus.INTENDED, EffectInDoubt, True): StepStatus.DOUBTFUL,
    (StepStatus.DOUBTFUL, EffectObserved, True): StepStatus.APPLIED,
    (StepStatus.DOUBTFUL, EffectObserved, False): StepStatus.ACTIVE,
    (StepStatus.ACTIVE, StepFinished, True): StepStatus.DONE,
    (StepStatus.APPLIED, StepFinished, True): StepStatus.DONE,
    (StepStatus.ACTIVE, StepFailed, True): StepStatus.FAILED,
    (StepStatus.APPLIED, StepFailed, True): StepStatus.FAILED,
}


@dataclass(frozen=True)
class StepState:
    """
    One step. *began_at_s* and *applied_at_s* are seconds since the epoch; *attempts* counts effects that failed; *weights_applied* counts
    the ramp's weights, and *weight* is the last of them.

    *permanent* is set when the driver said that trying again would fail again; *log* are the worker's last lines then.
    """

    status: StepStatus = StepStatus.PENDING
    began_at_s: float | None = None
    intended_at_s: float | None = None
    applied_at_s: float | None = None
    finished_at_s: float | None = None
    attempts: int = 0
    weights_applied: int = 0
    weight: int | None = None
    permanent: bool = False
    why: str = ""


@dataclass(frozen=True)
class WorkerState:
    """
    One worker.

    *sighting* was true when it was last seen, by the last look (*seen_at_s* while it is missing: see seeing.last_seen_s); it says nothing
    about now unless that is later than *acted_at_s*, when an effect on it last came to an end; *missing* says why nothing was seen since.
    *drained_by_us* from the intent of a drain to the success of full re-admission;
    *touched* once a restart was intended. *baseline* is its tally before; *after* since *admitted_at_s*, and *controls* that of those of
    its pool since then who were not restarted (noticing.py). *unmeasured* says why the last sweep had no tally for it.
    *unhealthy_since_s* is None while it is seen well, *well_since_s* while it isn't.
    *restarts_to_safety* counts the attempts of winding down. *ramp* is its tally since its weight last changed, while it is ramped up, and
    *windows* are the last stretches since it was admitted, for the load-recovery gate if there is one, and *watched* those for each gate
    that it is watched by, which last until they hold the gate's samples. *users_moved* counts the sessions that were open when it was
    drained, and *warmed* what warming did for it last. *canary_answered_at_s* is when a canary request was last answered, and
    *failed_at_s* when a gate last began to say FAIL.
    *hold* is what was last seen of holding it; *shed* requests were refused meanwhile, and *let_go_late* let go by the proxy's own bound.
    *recent* are its last tallies, for how busy it is (sparing.py). *blocks* are all stretches since it was admitted, for sequential gates
    (weighing.py). *bought* counts the canary requests for evidence that it was sent in the whole rollout (buying.py).
    """

    sighting: Sighting | None = None
    seen_at_s: float = float("-inf")
    acted_at_s: float = float("-inf")
    missing: str = ""
    unhealthy_since_s: float | None = None
    well_since_s: float | None = None
    drained_by_us: bool = False
    touched: bool = False
    baseline: Tally | None = None
    after: Tally | None = None
    controls: Tally | None = None
    admitted_at_s: float | None = None
    unmeasured: str | None = None
    verdicts: dict[GateId, Verdict] = field(default_factory=dict)
    restarts_to_safety: int = 0
    ramp: Tally | None = None
    ramp_since_s: float | None = None
    windows: tuple[Window, ...] = ()
    watched: dict[GateId, tuple[Window, ...]] = field(default_factory=dict)
    users_moved: int = 0
    canary_answered_at_s: float | None = None
    failed_at_s: float | None = None
    warmed: Warmed | None = None
    hold: HoldSighting | None = None
    shed: int = 0
    let_go_late: int = 0
    recent: tuple[Tally, ...] = ()
    blocks: tuple[Window, ...] = ()
    bought: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why nothing is being done: a word for the accounts and a sentence, said at *at_s*."""

    cause: str
    why: str
    at_s: float = 0.0


# Those in the name of a worker or a metric are none.
_FIGURES = re.compile(r"(?<![\w.-])\d+(?:[.,]\d+)*")


def without_figures(why: str) -> str:
    """Return what a reason says without its figures: as long as that is the same, so is the reason."""
    return _FIGURES.sub("", why)


def skips_text(skipped: Mapping[WorkerId, str]) -> str:
    """Say who was skipped and why, as what is added to a sentence; "" when nobody was."""
    return "".join(f"; {worker} was skipped ({why})" for worker, why in skipped.items())


@dataclass(frozen=True)
class DeployState:
    """
    The whole rollout, after so many *lines* of its journal.

    *winding_down* is the outcome to end with once what is out is back. *asked* is what a person asked for and has not been begun yet.
    *fresh_after_s*: only what was seen later counts (a resumed rollout knows nothing until it has looked). *progress_at_s* is when a step
    last finished. With the last thorough look, *guards* were read at *guards_seen_at_s*, and *pools* and *proxy* seen at *proxy_seen_at_s*;
    *no_database* is why the homeserver's database could not be asked then.
    *skipped* are workers that a person has left as they are, and why; *blamed* those that alone are taken back, if any. *end_by_s* is when
    the playbook's window ends, if it does. *token* is that of the lease; *lease_lost* says why the lease isn't held any more, empty while
    it is, and *taken_over* whether that is because somebody else has it. *recoveries* name the curves of each role's earlier
    restarts, by metric.
    """

    direction: Direction = Direction.FORWARD
    winding_down: Outcome | None = None
    wind_down_why: str = ""
    wind_down_at_s: float = 0.0
    outcome: Outcome | None = None
    outcome_why: str = ""
    token: int = 0
    lease_lost: str = ""
    taken_over: bool = False
    began: bool = False
    began_at_s: float = 0.0
    last_at_s: float = 0.0
    lines: int = 0
    progress_at_s: float = 0.0
    fresh_after_s: float = float("-inf")
    workers: dict[WorkerId, WorkerState] = field(default_factory=dict)
    steps: dict[StepId, StepState] = field(default_factory=dict)
    in_flight: dict[EffectNumber, Effect] = field(default_factory=dict)
    in_doubt: dict[EffectNumber, Effect] = field(default_factory=dict)
    last_number: EffectNumber = EffectNumber(0)
    prepared: Release | None = None
    baseline_found: frozenset[WorkerId] = frozenset()
    baseline_partly: frozenset[WorkerId] = frozenset()
    baseline_source: str = ""
    releases_seen: frozenset[ReleaseId] = frozenset()
    schema: SchemaSighting | None = None
    guards: tuple[GuardReading, ...] = ()
    no_database: str = ""
    guards_seen_at_s: float = float("-inf")
    guard_broken_since_s: float | None = None
    observed_at_s: float = float("-inf")
    pools: dict[PoolId, PoolSighting] = field(default_factory=dict)
    proxy: ProxyLimits | None = None
    proxy_seen_at_s: float = float("-inf")
    waiting: Waiting | None = None
    asked: Command | None = None
    skipped: dict[WorkerId, str] = field(default_factory=dict)
    blamed: frozenset[WorkerId] = frozenset()
    rollback_why: str = ""
    rollback_requested: bool = False
    rollback_failures: tuple[str, ...] = ()
    end_by_s: float | None = None
    recoveries: dict[Role, dict[Metric, tuple[str, ...]]] = field(default_factory=dict)


def is_taken_back(state: DeployState, worker: WorkerId) -> bool:
    """Tell whether a worker is on its way back: the release that it was restarted on must not be admitted again."""
    return state.direction is Direction.BACK and state.workers[worker].touched and (not state.blamed or worker in state.blamed)
