"""
`--watch detached`: a small process of its own goes on with the last watch, and the command that began the rollout ends.

It is the same code in another process: it takes the lease over and the rollout up, as anybody would who resumes one, so there is no
moment in which nobody holds the lease, and nothing that it would have to be told. Until it has done so the command goes on itself; if it
can't begin, the command watches to the end. Forking was rejected: threads, connections and locks of drivers don't survive that.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rollout.adapters.journal.places import default_place
from rollout.deciding.agenda import agenda_of
from rollout.deciding.state import DeployState, skips_text
from rollout.engine.run import Listener
from rollout.interfaces.report.lease import WATCHES_ON
from rollout.interfaces.report.words import moment
from rollout.model.errors import DriverError, RefusedError
from rollout.model.event import RESUMABLE, DeployFinished, Event, LeaseLost
from rollout.model.ids import DeployId
from rollout.model.plan import Plan
from rollout.ports.journal import Journal
from rollout.ports.lease import LeaseKeeper

# Everybody has passed, and "deployed" is yet to be said (docs/exit-codes.md).
WATCHED_ON = 8
DETACHED = "detached"
# This one, whatever is on the path.
PROGRAM = (sys.executable, "-m", "rollout")
ASK_TIMEOUT_S = 5.0
END_TIMEOUT_S = 10.0
# It writes its first line a second after it has the lease; on a busy machine within a minute.
LOOK_EVERY_S = 0.25
TAKES_UP_LOOKS = 240
# Nobody else begins one meanwhile.
LINES_MAX = 1


@dataclass(frozen=True, slots=True)
class Again:
    """How another process opens what this one has opened: the arguments of `rollout resume`, and its environment."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


def again(inventory_path: Path, journal_place: str | None, deploy_id: DeployId) -> Again:
    """
    Say how another process opens the same. Raises RefusedError where it can't.

    The journal's place goes by the environment, which nobody else can list: it may hold a password.
    """
    if not inventory_path.is_file():
        raise RefusedError(
            "the process that watches on can't read the inventory again",
            where=str(inventory_path),
            why="it is a pipe, and what was in it is gone",
            remedy="--inventory FILE, or without --watch detached",
        )
    environment = {**os.environ, "ROLLOUT_INVENTORY": str(inventory_path.resolve())}
    if journal_place is not None:
        environment["ROLLOUT_JOURNAL"] = journal_place
    log = default_place().with_name(f"{deploy_id}.watch.log")
    return Again(("resume", deploy_id, "--watch-on", str(os.getpid())), environment, log)


class Handover:
    """A listener that begins the other process once all have passed. Use as a context manager: leaving ends one that hasn't taken over."""

    def __init__(self, how: Again, plan: Plan, lease: LeaseKeeper, say: Callable[[str], None]) -> None:
        self._how = how
        self._plan = plan
        self._lease = lease
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._taken_over = False
        self._until_s = 0.0
        self._skips = ""

    def __enter__(self) -> Self:
        """Begin to listen."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End what has not taken over: the rollout has ended, or somebody has stopped it."""
        process = self._process
        if process is None or self._taken_over:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)

    def __call__(self, event: Event, state: DeployState) -> None:
        """Begin the other process at the first event of the last watch; say so if it ends before it has taken over."""
        self._taken_over = state.taken_over
        if self._process is None:
            if agenda_of(self._plan, state).watching and state.asked is None and state.winding_down is None and state.outcome is None:
                self._until_s = event.at_s + self._plan.watch.watch_s
                self._skips = skips_text(state.skipped)
                self._begin()
        elif not self._given_up and not state.taken_over and self._process.poll() is not None:
            self._given_up = True
            self._say(f"the process that should watch on has ended (see {self._how.log}): this command goes on watching")

    def quiet(self, listener: Listener) -> Listener:
        """Leave out what is no news to people: that the process which was begun for it has taken over."""

        def listen(event: Event, state: DeployState) -> None:
            if self._process is not None and state.taken_over and isinstance(event, LeaseLost | DeployFinished) and self.is_done():
                return
            listener(event, state)

        return listen

    def is_done(self) -> bool:
        """Tell whether the other process lives and holds the lease."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        try:
            lease = self._lease.read(ASK_TIMEOUT_S)
        except DriverError:
            return False
        return lease is not None and lease.held and (lease.pid, lease.host) == (process.pid, socket.gethostname())

    def has_taken_up(self, journal: Journal, deploy_id: DeployId) -> bool:
        """
        Wait until the other process has taken the rollout up, which it does a moment after it has the lease.

        False when it ends before that, or the rollout has ended.
        """
        pause = threading.Event()
        for _ in range(TAKES_UP_LOOKS):
            if not self.is_done():
                return False
            line = next((one for one in journal.deploys(self._plan.homeserver, LINES_MAX) if one.deploy_id == deploy_id), None)
            if line is not None and line.outcome is None:
                return True
            # Who was taken over from may have written that it stops; any other end is one, though its process may live for a moment.
            if line is not None and line.outcome not in RESUMABLE:
                return False
            pause.wait(LOOK_EVERY_S)
        return False

    def said(self, deploy_id: DeployId) -> str:
        """Say what has been reached, and what has not."""
        pid, until = 0 if self._process is None else self._process.pid, moment(self._until_s, "%H:%M:%S")
        return (
            f"every worker has passed its gates{self._skips}; that it is deployed is not said yet: "
            f"process {pid} on {socket.gethostname()} watches on until {until} at the least\n"
            f"  what it says: {self._how.log}\n"
            "  rollout status shows it, rollout history how it ended; rollout abort, pause and rollback reach it\n"
            f"  if it dies: rollout resume {deploy_id}"
        )

    def _begin(self) -> None:
        command = [*PROGRAM, *self._how.arguments]
        try:
            self._how.log.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._how.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "wb") as log:
                # A session of its own: the end of the terminal, or of the job of CI, is none of its business.
                self._process = subprocess.Popen(  # noqa: S603  (ourselves)
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(self._how.environment), start_new_session=True
                )
        except OSError as error:
            self._given_up = True
            self._say(f"no process can be begun that watches on ({error.strerror}): this command goes on watching")


def why_of(deploy_id: DeployId) -> str:
    """Say, for whoever is refused the lease, what it is held for."""
    return f"{WATCHES_ON} rollout {deploy_id}, in which every worker that was rolled has passed"
