"""The process manager that runs a homeserver's workers."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from rollout.model.ids import WorkerId


class ProcessState(Protocol):
    """
    What is known of one process; *started_at_s* is seconds since the epoch, to 0.05 s or better, None if it doesn't run.

    A manager that knows whole seconds only tells the latest moment that it may have been; with it comes a driver of `releases` that doesn't
    go by that (ports.releases.Activation), because two times of one second can't be compared.
    """

    @property
    def running(self) -> bool: ...
    @property
    def started_at_s(self) -> float | None: ...


class Workers(Protocol):
    """Start, stop and look. A worker that the process manager doesn't know is a PermanentDriverError."""

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> Mapping[WorkerId, ProcessState]:
        """Look at several workers in one round trip. Those that are unknown to the process manager are left out."""
        ...

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """Stop it and wait until it is gone; one that doesn't run is no error. OutcomeUnknownError when it is not gone in time."""
        ...

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """
        Start it and return once the process runs; it need not answer requests yet. One that runs already is no error.

        PermanentDriverError when it exits at once (its last log lines are had from `last_lines`).
        """
        ...

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """Return the last lines that the worker wrote, oldest first; empty when there are none or they cannot be read."""
        ...


@runtime_checkable
class Replaces(Protocol):
    """A process manager that starts the next process whenever the last one is gone: what shall run is told to it before."""

    def replace(self, worker: WorkerId, timeout_s: float) -> None:
        """
        End the worker's process, and return once another one runs; it need not answer requests yet.

        TransientDriverError when it isn't allowed to end in time, PermanentDriverError when the next one exits at once or can't be had,
        OutcomeUnknownError when it doesn't run in time.
        """
        ...
