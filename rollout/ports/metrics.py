"""Where measurements come from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from rollout.model.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a metrics page."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of one worker that were asked for; *at_s* is when they were read."""

    at_s: float
    samples: tuple[Sample, ...]


class Metrics(Protocol):
    """Read metrics pages. What can't be read is a sentence, not an exception and not zero."""

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        """Read the samples whose names begin with one of *prefixes*, of all *workers* side by side; a string says why a page could not be read."""
        ...
