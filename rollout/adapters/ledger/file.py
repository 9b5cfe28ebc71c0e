"""
The ledger as a file at the target.

What is written there, how it is compared and how long anybody waits is rollout.agent.book's: the same code runs here, for an act of this
process, and in the agent.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rollout.adapters.faults import translated
from rollout.adapters.settings import FilePath, Settings, check
from rollout.agent.book import Book, Claim
from rollout.model.effect import NEXT, Effect
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Verb
from rollout.model.sighting import DrainMark
from rollout.ports.ledger import brings_back

# An act on the same worker, of somebody else, is waited for no longer; a restart that takes longer is not for two to do.
WORKER_WAIT_S = 10.0


class LedgerSettings(Settings):
    """*path*: the ledger, beside the proxy."""

    path: FilePath


def build(settings: Mapping[str, object], inventory: Inventory) -> "FileLedger":
    """Open the driver; nothing is read yet."""
    del inventory
    return FileLedger(check(LedgerSettings, settings, "ledger_driver").path)


class FileLedger:
    """See ports.ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._book = Book(path)

    @contextmanager
    def fence(self, effect: Effect) -> Iterator[None]:
        """
        See ports.ledger.

        It is weaker than an act of the agent: if this process is stopped inside, it keeps the worker, and acts when it is woken.
        """
        claim = claim_of(effect)
        with translated(), self._book.acting(claim, WORKER_WAIT_S):
            yield

    def marks(self) -> dict[WorkerId, DrainMark]:
        """See ports.ledger."""
        with translated():
            marks = self._book.read().marks
        return {WorkerId(worker): _mark(mark) for worker, mark in marks.items()}

    def last_number(self) -> EffectNumber:
        """See ports.ledger."""
        with translated():
            return EffectNumber(max(self._book.read().numbers.values(), default=0))

    def take(self, token: int, owner: str = "") -> None:
        """See ports.ledger."""
        with translated():
            self._book.take(token, owner)

    def token(self) -> int:
        """See ports.ledger."""
        with translated():
            return self._book.read().token

    def beat(self, token: int, alive_until_s: float) -> None:
        """See ports.ledger."""
        with translated():
            self._book.beat(token, alive_until_s)


def claim_of(effect: Effect) -> Claim:
    """Say what an effect asks of the ledger. Raises ValueError for one that is not on a worker."""
    if effect.worker is None:
        msg = "only effects on a worker are fenced"
        raise ValueError(msg)
    # One that is taken back keeps its mark, which then names what is condemned.
    takes_out = effect.verb in {Verb.DRAIN, Verb.HOLD}
    mark = {"release": effect.release, "why": effect.why, "condemned": effect.condemned}
    return Claim(
        worker=effect.worker,
        number=None if effect.number == NEXT else effect.number,
        token=effect.token,
        owner=effect.owner,
        mark=mark if takes_out else None,
        condemned=effect.condemned,
        clears=brings_back(effect),
        what=f"{effect.verb} of {effect.worker} by {effect.owner or 'somebody'} ({effect.why})",
    )


def _mark(mark: Mapping[str, Any]) -> DrainMark:
    return DrainMark(mark["number"], mark["release"], mark["why"], mark["at_s"], mark.get("condemned"))
