"""Where measurements come from."""

from collections.abc import Collection
from typing import Protocol

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
