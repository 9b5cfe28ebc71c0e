"""
The ledger as a file at the target.

What is written there, how it is compared and how long anybody waits is rollout.agent.book's: the same code runs here, for an act of this
process, and in the agent.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rollout.adapters.faults import error_of, translated
from rollout.adapters.settings import FilePath, SecretReference, Settings, check
from rollout.agent import agent
from rollout.agent.acts import takes_s
from rollout.agent.book import LEDGER_WAIT_S, Book, Claim
from rollout.agent.fault import Fault
from rollout.model.effect import NEXT, Effect
from rollout.model.errors import OutcomeUnknownError, TransientDriverError
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Verb
from rollout.model.sighting import DrainMark
from rollout.ports.acts import WayBack, Work
from rollout.ports.ledger import brings_back

# An act on the same worker, of somebody else, is waited for no longer; a restart that takes longer is not for two to do.
WORKER_WAIT_S = 10.0
# For a busy machine to start a process and end it.
MARGIN_S = 20.0
LOG_CHARACTERS = 2_000


class LedgerSettings(Settings):
    """
    *path*: the ledger, beside the proxy. *readmit_after_s*: a worker of ours that has been out for so long is admitted again when nobody
    lives who would do it. *page*: a reference to the address of a webhook, which is told of that, and of whom it could not admit.
    """

    path: FilePath
    readmit_after_s: Annotated[float, Field(ge=1)] = 120.0
    page: SecretReference | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "FileLedger":
    """Open the driver; nothing is read yet."""
    del inventory
    checked = check(LedgerSettings, settings, "ledger_driver")
    return FileLedger(checked.path, checked.readmit_after_s, checked.page)


class FileLedger:
    """See ports.ledger."""

    def __init__(self, path: Path, readmit_after_s: float = 120.0, page: str | None = None) -> None:
        self._path = path
        self._book = Book(path)
        self._readmit_after_s = readmit_after_s
        self._page = page

    def perform(self, effect: Effect, work: Work) -> None:
        """See ports.ledger. An agent that doesn't end in the time of its acts is killed, so that it can't act later still."""
        if work.acts is None:
            with self.fence(effect):
                work.here()
            return
        order = {**asdict(claim_of(effect, work.way_back)), "acts": work.acts, "wait_s": WORKER_WAIT_S}
        said = self._ask("act", (), order, WORKER_WAIT_S + 2 * LEDGER_WAIT_S + takes_s(work.acts) + MARGIN_S)
        if said["outcome"] != "done":
            raise error_of(Fault(**{**{name: said[name] for name in Fault.__annotations__ if name in said}, "kind": said["outcome"]}))

    def guard(self, homeserver: str) -> None:
        """See ports.ledger."""
        said = self._ask("guard", (f"{self._readmit_after_s:g}", homeserver, *((self._page,) if self._page else ())), None, MARGIN_S)
        if said["outcome"] != "done":
            raise TransientDriverError("the dead-man could not be started", where=str(self._path), why=str(said))

    def _ask(self, command: str, arguments: Sequence[str], order: object, timeout_s: float) -> dict[str, Any]:
        """Run the agent, in a session of its own: what ends this process doesn't end what it has begun."""
        argv = [sys.executable, "-I", "-S", agent.__file__, command, str(self._path.absolute()), *arguments]
        try:
            process = subprocess.Popen(  # noqa: S603  (a list, written above)
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        except OSError as error:
            raise TransientDriverError("the agent can't be started", where=argv[0], why=str(error)) from error
        with process:
            try:
                said, log = process.communicate(json.dumps(order), timeout_s)
            except subprocess.TimeoutExpired as error:
                raise OutcomeUnknownError(f"the agent took longer than {timeout_s:.0f} s", where=str(self._path)) from error
            finally:
                if process.returncode is None:
                    process.kill()
        try:
            return dict(json.loads(said))
        except ValueError as error:
            why = f"it ended with status {process.returncode}: {log[-LOG_CHARACTERS:]}"
            raise OutcomeUnknownError("the agent did not say what it did", where=str(self._path), why=why) from error

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


def claim_of(effect: Effect, way_back: WayBack | None = None) -> Claim:
    """Say what an effect asks of the ledger. Raises ValueError for one that is not on a worker."""
    if effect.worker is None:
        msg = "only effects on a worker are fenced"
        raise ValueError(msg)
    # One that is taken back keeps its mark, which then names what is condemned.
    takes_out = effect.verb in {Verb.DRAIN, Verb.HOLD}
    mark: dict[str, Any] = {"release": effect.release, "why": effect.why, "condemned": effect.condemned}
    if way_back is not None:
        mark["back"] = asdict(way_back)
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
