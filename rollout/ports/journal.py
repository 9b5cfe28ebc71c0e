"""Where events are kept, durably and in order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.model.event import RESUMABLE, Command, Event, Outcome
from rollout.model.gate import Tally
from rollout.model.ids import DeployId, ReleaseId, WorkerId
from rollout.model.plan import Plan


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked of a running rollout from another process."""

    command: Command
    operator: str
    why: str
    worker: WorkerId | None = None


@dataclass(frozen=True, slots=True)
class DeployLine:
    """One rollout in the history; *outcome* is None while it is under way (or its process died)."""

    deploy_id: DeployId
    homeserver: str
    from_versions: tuple[str, ...]
    to_version: str
    began_at_s: float
    finished_at_s: float | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What each worker did until *at_s*, and on which release (`rollout observe`)."""

    homeserver: str
    at_s: float
    tallies: dict[WorkerId, tuple[ReleaseId, Tally]]


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a journal is kept: *file* is its path on this machine, None if it is elsewhere; *where* names it without a password."""

    file: str | None
    where: str
    size_bytes: int


def has_ended(line: DeployLine) -> bool:
    """Tell whether a rollout can't be taken up again."""
    return line.outcome is not None and line.outcome not in RESUMABLE


def dispensable(lines: Sequence[DeployLine], newest_max: int | None, since_s: float | None) -> tuple[DeployLine, ...]:
    """
    Choose what history can do without, of *lines*, newest first: all but the newest *newest_max*, and what ended before *since_s*.

    Never the newest, and never one that could still be taken up again.
    """
    return tuple(
        line
        for place, line in enumerate(lines)
        if place > 0
        and has_ended(line)
        and ((newest_max is not None and place >= newest_max) or (since_s is not None and (line.finished_at_s or 0.0) < since_s))
    )


class Journal(Protocol):
    """Append-only. What `append` returned from is on disk."""

    def begin(self, deploy_id: DeployId, plan: Plan, began: Event) -> None:
        """Keep a plan and its first event."""
        ...

    def append(self, deploy_id: DeployId, events: Sequence[Event], *, after: int | None = None) -> None:
        """
        Keep events, durably, in one transaction, after all that others have appended.

        *after* is the sequence number of the last event that the caller knows of; JournalTakenError, and nothing is kept, where somebody
        else has written since.

        Raises TransientDriverError (disk full, locked, a server away for too long) or PermanentDriverError; then nothing was kept that is
        known of.
        """
        ...

    def plan(self, deploy_id: DeployId) -> Plan:
        """Return the plan of a rollout. PermanentDriverError when there is none."""
        ...

    def events(self, deploy_id: DeployId, after: int = 0) -> list[tuple[int, Event]]:
        """Return the events with their sequence numbers (from 1), beginning after *after*."""
        ...

    def deploys(self, homeserver: str, limit: int) -> list[DeployLine]:
        """List rollouts, newest first."""
        ...

    def keep_baseline(self, kept: Baseline) -> None:
        """Keep what was observed of an untouched homeserver."""
        ...

    def baselines(self, homeserver: str, since_s: float) -> list[Baseline]:
        """Return what was kept since then, oldest first."""
        ...

    def ask(self, deploy_id: DeployId, request: Request) -> None:
        """Leave a request for the process that runs a rollout. OutcomeUnknownError when nobody knows whether it was left."""
        ...

    def take_requests(self, deploy_id: DeployId) -> list[Request]:
        """Return the requests that were left, and forget them."""
        ...

    def prove(self) -> None:
        """Write something that changes nothing. Raises DriverError when that can't be."""
        ...

    def keeping(self) -> Keeping:
        """Say where all this is kept, and how much it is."""
        ...

    def forget(self, homeserver: str, rollouts: Collection[DeployId], baselines_before_s: float) -> int:
        """Delete rollouts, and baselines older than that (never the newest); return how many baselines those were."""
        ...
