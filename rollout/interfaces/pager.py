"""
Sending pages, beside the rollout and never in its way.

The rollout only leaves a page here; a thread of its own sends them in order, and between them says every half minute that the rollout
lives. It says so only while the rollout shows life: one whose loop hangs falls silent, and its silence is what wakes somebody. When nobody
can be reached the rollout goes on, and the terminal says in the end what was not told.
"""

import threading
from collections import deque
from types import TracebackType
from typing import Self

from rollout.deciding.state import DeployState
from rollout.interfaces.paging import Pages
from rollout.model.errors import DriverError
from rollout.model.event import Event
from rollout.ports.clock import Clock
from rollout.ports.notifier import Notifier, Page, Severity

BEAT_EVERY_S = 30.0
# Events come every two seconds; a loop that has said nothing for so long does not live.
SILENT_S = 60.0
TIMEOUT_S = 5.0
ATTEMPTS_MAX = 2
# At the end, so that "finished" arrives, or doesn't.
FLUSH_S = 5.0
PAGES_MAX = 100


class Pager:
    """A listener of the loop. Use as a context manager: leaving sends what is left, for FLUSH_S at most."""

    def __init__(self, notifier: Notifier, pages: Pages, clock: Clock) -> None:
        self._notifier = notifier
        self._pages = pages
        self._clock = clock
        self._waiting: deque[Page] = deque()
        self._changed = threading.Condition()
        self._heard_at_s = clock.now_s()
        self._ended = False
        self._untold: list[str] = []
        self._thread = threading.Thread(target=self._send_again_and_again, daemon=True)

    def __enter__(self) -> Self:
        """Begin to beat."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let it send what is left."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(FLUSH_S)

    def __call__(self, event: Event, state: DeployState) -> None:
        """Leave what an event is worth; nothing here takes time."""
        page = self._pages.of(event, state)
        with self._changed:
            self._heard_at_s = self._clock.now_s()
        if page is not None:
            self._leave(page)

    def lost(self, why: str) -> None:
        """Tell that the rollout has ended without a word in its journal."""
        self._leave(self._pages.lost(why, self._clock.now_s()))

    def untold(self) -> tuple[str, ...]:
        """Say what nobody was told, and why not; what is still under way counts as untold."""
        with self._changed:
            return (*self._untold, *(f"{page.kind}: not sent in time" for page in self._waiting))

    def _leave(self, page: Page) -> None:
        with self._changed:
            self._waiting.append(page)
            if len(self._waiting) > PAGES_MAX:
                self._drop_one()
            self._changed.notify()

    def _drop_one(self) -> None:
        """Of what waits, the oldest that wakes nobody goes first."""
        least = next((page for page in self._waiting if page.severity is Severity.INFO), self._waiting[0])
        self._waiting.remove(least)
        self._untold.append(f"{least.kind}: too many before it")

    def _send_again_and_again(self) -> None:
        beat_at_s = self._clock.now_s()
        while True:
            with self._changed:
                if not self._waiting and not self._ended:
                    self._changed.wait(max(0.05, min(1.0, beat_at_s - self._clock.now_s())))
                page = self._waiting[0] if self._waiting else None
                if page is None and self._ended:
                    return
                lives = self._clock.now_s() - self._heard_at_s < SILENT_S
            if page is not None:
                self._tell(page)
            if self._clock.now_s() >= beat_at_s:
                beat_at_s = self._clock.now_s() + BEAT_EVERY_S
                if lives:
                    self._beat()

    def _tell(self, page: Page) -> None:
        why = ""
        for _ in range(ATTEMPTS_MAX):
            try:
                self._notifier.tell(page, TIMEOUT_S)
            except DriverError as error:
                why = error.what
            except Exception as error:  # noqa: BLE001  (a driver's bug must not end the thread that sends the rest)
                why = type(error).__name__
            else:
                why = ""
                break
        with self._changed:
            if page in self._waiting:
                self._waiting.remove(page)
            if why:
                self._untold.append(f"{page.kind}: {why}")

    def _beat(self) -> None:
        try:
            self._notifier.beat(TIMEOUT_S)
        except Exception as error:  # noqa: BLE001  (as above; a beat that failed is a beat that is missed)
            with self._changed:
                if not any(line.startswith("heartbeat") for line in self._untold):
                    self._untold.append(f"heartbeat: {error.what if isinstance(error, DriverError) else type(error).__name__}")
