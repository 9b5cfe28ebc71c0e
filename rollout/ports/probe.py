"""Requests of our own, straight to a worker's port."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from rollout.model.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: *ok* for status 200, *seconds* until the last byte; *why* says what went wrong otherwise."""

    ok: bool
    seconds: float
    why: str = ""


class Probe(Protocol):
    """Ask workers themselves, past the proxy. Never raises: what fails is an Answer that isn't ok."""

    def health(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, Answer]:
        """Ask /health: liveness, no more."""
        ...

    def unavailable(self, timeout_s: float) -> str:
        """Return "" when the homeserver knows our credentials, otherwise one sentence: why not, and what to do about it. Never raises."""
        ...

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        """GET a path (with its query) on each worker with our own credentials. An empty result means that there are none to use."""
        ...
