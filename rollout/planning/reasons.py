"""Why each step stands where it stands: one sentence each, printed with the plan and written into the ledger."""

from collections.abc import Collection

from rollout.model.plan import Duty, Worker
from rollout.model.release import Release
from rollout.planning.order import CANARY, MAIN, Stretch
from rollout.planning.situation import Situation


def of_prepare(to: Release) -> str:
    """PREPARE."""
    return f"{to.version} is installed beside what runs, and proven with its configuration, before anything is touched"


def of_migrate(to: Release) -> str:
    """MIGRATE."""
    return f"schema first, by {to.version}'s own code, while the old workers run; never interrupted"


def of_survey(baseline_s: float) -> str:
    """SURVEY."""
    return f"{baseline_s:g} s of the untouched homeserver are what the gates compare with"


def of_watch(watch_s: float) -> str:
    """WATCH."""
    return f"everybody's gates go on ruling for {watch_s:g} s: what gets worse slowly shows after a while"


def of_turn(worker: Worker, stretch: Stretch, earlier: Collection[Worker], situation: Situation) -> str:
    """Why it is this worker's turn now; *earlier* had theirs in waves before."""
    if stretch.name == CANARY:
        return f"canary: if {situation.to.version} is bad, it shows here first"
    if worker.role == MAIN:
        return f"{worker.id} last: everybody else has shown the release to work"
    if worker.duty is Duty.REPLACEABLE and worker.pool is not None:
        before = [other.id for other in earlier if other.pool == worker.pool]
        limit = (
            f"at most {situation.max_unavailable[worker.pool]} of {len(situation.members(worker.pool))} in pool {worker.pool} may be out"
        )
    else:
        before = [other.id for other in earlier if other.role == worker.role]
        limit = f"{'its share' if worker.duty is Duty.SHARDED else 'its work'} pauses meanwhile, so one {worker.role} at a time"
    return f"{worker.id} after {before[-1]}: {limit}" if before else f"{worker.id} first: {limit}"


def of_change(old: Release, new: Release) -> str:
    """What changes for one worker."""
    if old.id == new.id:
        return f"restarted on {new.id} once more: it was left out of traffic"
    if old.version != new.version:
        return f"{old.version} → {new.version}"
    changes = [
        name
        for name, changed in (
            ("another artefact", old.artefact_lock != new.artefact_lock),
            ("another configuration", old.config_digest != new.config_digest),
            ("other modules", old.modules != new.modules),
        )
        if changed
    ]
    return (
        f"{new.version} with {' and '.join(changes)}"
        if changes
        else f"{new.version} restarted (generation {old.generation} → {new.generation})"
    )
