"""Where measurements of the past come from: somebody who has read the metrics pages all the time."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from rollout.model.ids import WorkerId
from rollout.model.sample import Page


@dataclass(frozen=True, slots=True)
class Life:
    """
    What is kept of one process of a worker within a range: its *first* page there and its *last*, read at *since_s* and *until_s* (seconds
    since the epoch). Whatever lay between, scrapes that were missed too, is in the difference of their counters.
    """

    since_s: float
    until_s: float
    first: Page
    last: Page


class History(Protocol):
    """Read metrics pages of the past. What can't be read is a sentence, not an exception and not zero."""

    def lives(
        self, workers: Collection[WorkerId], prefixes: Collection[str], since_s: float, until_s: float, now_s: float, timeout_s: float
    ) -> dict[WorkerId, tuple[Life, ...] | str]:
        """
        Return, of all *workers*, the processes of which two pages or more were kept between *since_s* and *until_s*, oldest first, with the
        samples whose names begin with one of *prefixes*; a string says why there are none.

        *now_s* is the time by our clock: whose clock is apart from it is not believed.
        """
        ...
