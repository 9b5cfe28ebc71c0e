"""Warming a worker's caches with requests of our own, as users who are active."""

from typing import Protocol

from rollout.model.ids import WorkerId
from rollout.model.warming import WarmBudget, Warmed

__all__ = ["WarmBudget", "Warmed", "Warming"]


class Warming(Protocol):
    """
    Ask as an application service that is registered already. Never sends `since` or a device id: a /sync with both deletes that device's
    to-device messages. Never changes presence.
    """

    def unavailable(self, timeout_s: float) -> str:
        """Return "" when it can be done, otherwise one sentence that says why not and what to do about it. Never raises."""
        ...

    def warm(self, worker: WorkerId, budget: WarmBudget) -> Warmed:
        """
        Ask as the most recently active users, within *budget*; it ends within *budget.seconds* and the time of one request.

        TransientDriverError when the worker doesn't answer at all, or when the users can't be known.
        """
        ...
