"""Where measurements come from."""

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from rollout.model.ids import WorkerId
from rollout.model.sample import Page


class Metrics(Protocol):
    """Read metrics pages. What can't be read is a sentence, not an exception and not zero."""

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        """
        Read the samples whose names begin with one of *prefixes*, of all *workers* side by side; a string says why a page could not be
        read.
        """
        ...


@runtime_checkable
class Scraped(Protocol):
    """Metrics that somebody else has read, every so often: what comes is as old as that."""

    def intervals(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, float | str]:
        """Say how many seconds lie between two readings of each worker's page; a string says why that isn't known."""
        ...
