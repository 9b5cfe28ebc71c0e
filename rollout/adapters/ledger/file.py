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

from rollout.adapters.faults import error_in, translated
from rollout.adapters.ledger.claims import claim_of, mark_of
from rollout.adapters.settings import FilePath, SecretReference, Settings, check
from rollout.agent import agent
from rollout.agent.acts import takes_s
from rollout.agent.book import LEDGER_WAIT_S, Book
from rollout.model.effect import Effect
from rollout.model.errors import OutcomeUnknownError, TransientDriverError
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sighting import DrainMark
from rollout.ports.acts import Work

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
        if work.acts is None or any("host" in act for act in work.acts):
            # What is done on another host can't be handed to an agent here.
            with self.fence(effect):
                work.here()
            return
        order = {**asdict(claim_of(effect, work.way_back)), "acts": work.acts, "wait_s": WORKER_WAIT_S}
        said = self._ask("act", (), order, WORKER_WAIT_S + 2 * LEDGER_WAIT_S + takes_s(work.acts) + MARGIN_S)
        if said["outcome"] != "done":
            raise error_in(said)

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
        return {WorkerId(worker): mark_of(mark) for worker, mark in marks.items()}

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
