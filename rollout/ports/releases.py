"""Releases at the target: prepared beside the running one, checked, and switched to worker by worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.model.conditions import Room
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release


@dataclass(frozen=True, slots=True)
class Activation:
    """Which release a worker's link names, since when (seconds since the epoch)."""

    release: ReleaseId | None
    at_s: float | None


class Releases(Protocol):
    """
    What can be run, and what each worker is told to run. `prepare`, `check` and `activate` may be repeated: the second time does nothing
    new.

    The configuration that a release carries is a snapshot taken when it is identified.
    """

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """
        Say which release would result, touching nothing at the target that a worker uses.

        *version* None keeps that of *base*; *config_from* (a directory) None keeps its configuration; *next_generation* makes it a
        restart. PermanentDriverError when the version has no recorded lock or the configuration can't be read.
        """
        ...

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """
        Install it beside what runs, prove that it imports and prints its version, let Synapse itself check the configuration of every
        worker, and return it with the schema facts of the artefact. PermanentDriverError with the installer's or Synapse's own words when
        it can't be done; a half-made release is never left where it could be used. OutcomeUnknownError when *timeout_s* passes.
        """
        ...

    def prepared(self) -> dict[ReleaseId, Release]:
        """List the releases that are completely there."""
        ...

    def migrate(self, release: ReleaseId) -> None:
        """
        Bring the database to the release's schema, from the release's own code, while the old cluster runs. Never interrupted by us and
        without a timeout.

        PermanentDriverError with the migration's last lines when it fails.
        """
        ...

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """Make *release* what the worker runs from its next start on; atomic. PermanentDriverError when it isn't prepared."""
        ...

    def activations(self, workers: Sequence[WorkerId]) -> dict[WorkerId, Activation]:
        """Tell what each worker is told to run."""
        ...

    def room(self, release: Release) -> Room:
        """Say how much room preparing it takes at the target, and how much there is. TransientDriverError when that can't be told."""
        ...

    def connections(self, release: Release, workers: Sequence[WorkerId]) -> dict[WorkerId, int]:
        """
        Tell how many database connections each worker's pool may open by the configuration that the release carries; those whose
        configuration can't be read, or whose database isn't PostgreSQL, are left out.
        """
        ...
