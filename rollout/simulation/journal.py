"""
A journal in memory. What is kept goes through the codec, so that only what could be read back is remembered; unless it is only one of
thousands, and nobody will read most of it.
"""

from collections.abc import Collection, Sequence

from rollout.model.codec import dump_json, event_kind, event_version, load_event
from rollout.model.errors import JournalTakenError, PermanentDriverError
from rollout.model.event import DeployFinished, Event
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.journal import Baseline, DeployLine, Keeping, Request


class MemoryJournal:
    """See ports.journal."""

    def __init__(self, *, codec: bool = True) -> None:
        self._codec = codec
        self._plans: dict[DeployId, Plan] = {}
        self._lines: dict[DeployId, list[tuple[str, str, int] | Event]] = {}
        self._requests: dict[DeployId, list[Request]] = {}
        self._baselines: list[Baseline] = []

    def begin(self, deploy_id: DeployId, plan: Plan, began: Event) -> None:
        """See ports.journal."""
        if deploy_id in self._plans:
            raise PermanentDriverError(f"rollout {deploy_id} has begun already")
        self._plans[deploy_id] = plan
        self._lines[deploy_id] = []
        self.append(deploy_id, (began,))

    def append(self, deploy_id: DeployId, events: Sequence[Event], *, after: int | None = None) -> None:
        """See ports.journal."""
        self.plan(deploy_id)
        if after is not None and len(self._lines[deploy_id]) != after:
            raise JournalTakenError(f"somebody else runs rollout {deploy_id} now")
        self._lines[deploy_id].extend(
            (event_kind(event), dump_json(event), event_version(event)) if self._codec else event for event in events
        )

    def plan(self, deploy_id: DeployId) -> Plan:
        """See ports.journal."""
        if deploy_id not in self._plans:
            raise PermanentDriverError(f"there is no rollout {deploy_id}")
        return self._plans[deploy_id]

    def events(self, deploy_id: DeployId, after: int = 0) -> list[tuple[int, Event]]:
        """See ports.journal."""
        lines = self._lines.get(deploy_id, [])[after:]
        return [(number, load_event(*line) if isinstance(line, tuple) else line) for number, line in enumerate(lines, start=after + 1)]

    def deploys(self, homeserver: str, limit: int) -> list[DeployLine]:
        """See ports.journal."""
        found: list[DeployLine] = []
        for deploy_id, plan in reversed(self._plans.items()):
            if plan.homeserver == homeserver:
                events = [event for _, event in self.events(deploy_id)]
                end = events[-1] if isinstance(events[-1], DeployFinished) else None
                versions = tuple(sorted({plan.releases[release].version for release in plan.from_releases.values()}))
                finished_at_s, outcome = (None, None) if end is None else (end.at_s, end.outcome)
                found.append(DeployLine(deploy_id, homeserver, versions, plan.to_release.version, events[0].at_s, finished_at_s, outcome))
        return found[:limit]

    def keep_baseline(self, kept: Baseline) -> None:
        """See ports.journal."""
        self._baselines.append(kept)

    def baselines(self, homeserver: str, since_s: float) -> list[Baseline]:
        """See ports.journal."""
        found = [kept for kept in self._baselines if kept.homeserver == homeserver and kept.at_s >= since_s]
        return sorted(found, key=lambda kept: kept.at_s)

    def ask(self, deploy_id: DeployId, request: Request) -> None:
        """See ports.journal."""
        self._requests.setdefault(deploy_id, []).append(request)

    def take_requests(self, deploy_id: DeployId) -> list[Request]:
        """See ports.journal."""
        return self._requests.pop(deploy_id, [])

    def prove(self) -> None:
        """See ports.journal."""

    def keeping(self) -> Keeping:
        """See ports.journal."""
        return Keeping(None, "memory", sum(len(line[1]) for lines in self._lines.values() for line in lines if isinstance(line, tuple)))

    def forget(self, homeserver: str, rollouts: Collection[DeployId], baselines_before_s: float) -> int:
        """See ports.journal."""
        for deploy_id in rollouts:
            if deploy_id in self._plans and self._plans[deploy_id].homeserver == homeserver:
                del self._plans[deploy_id], self._lines[deploy_id]
                self._requests.pop(deploy_id, None)
        newest = max((kept.at_s for kept in self._baselines if kept.homeserver == homeserver), default=0.0)
        left = [kept for kept in self._baselines if kept.homeserver != homeserver or kept.at_s >= min(baselines_before_s, newest)]
        count, self._baselines = len(self._baselines) - len(left), left
        return count
