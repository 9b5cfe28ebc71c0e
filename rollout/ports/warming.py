"""Warming a worker's caches with requests of our own, as users who are active."""

from collections.abc import Sequence
from typing import Protocol

from rollout.model.ids import WorkerId
from rollout.model.warming import WarmBudget, Warmed


class Warming(Protocol):
    """
    Ask as an application service that is registered already. Never sends `since` or a device id: a /sync with both deletes that device's
    to-device messages. Never changes presence.
    """

    def unavailable(self, timeout_s: float) -> str:
        """Return "" when it can be done, otherwise one sentence that says why not and what to do about it. Never raises."""
        ...

    def warm(self, worker: WorkerId, users: Sequence[str], budget: WarmBudget) -> Warmed:
        """
        Ask as *users* (full user ids, those first who matter most), within *budget*; ends within *budget.seconds* and one request's time.

        TransientDriverError when the worker answers none of them.
        """
        ...
