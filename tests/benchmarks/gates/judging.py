"""What a contender is, whoever wrote it."""

from typing import Protocol

from rollout.model.gate import Ruling
from tests.benchmarks.gates.traces import Restart, Scrape


class Judge(Protocol):
    """Watches one restart."""

    def see(self, scrape: Scrape) -> Ruling:
        """Rule on what has been seen so far. Called once for each scrape, in order; nothing is asked after a FAIL."""
        ...


class Contender(Protocol):
    """A gate with its settings."""

    @property
    def name(self) -> str: ...

    def judge(self, restart: Restart, level: float) -> Judge:
        """Begin to watch. Of *restart* only what was known at admission may be read: its rate and its baselines."""
        ...
