"""
A rollout while it runs: a line per event with the time, and how far it is.

In a terminal the progress is one line that changes in place; elsewhere (a pipeline's log) a line of it comes at most every ten seconds,
and only while nothing else is said. Whoever reads along must never hold the rollout up: a reader that is gone (`| head`) is no longer
written to, and the rollout goes on.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self, TextIO

from rollout.deciding.state import DeployState
from rollout.interfaces.narrate import narrate
from rollout.interfaces.report.progress import progress
from rollout.interfaces.report.words import moment
from rollout.model.codec import event_kind, to_plain
from rollout.model.event import DeployFinished, Event
from rollout.model.plan import Plan

PROGRESS_EVERY_S = 10.0


class Screen(Protocol):
    """Where lines go."""

    def say(self, line: str) -> None:
        """Print a line for good."""
        ...

    def show(self, line: str, at_s: float) -> None:
        """Show how far it is; the next one may take its place."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class PlainScreen:
    """For logs: nothing is taken back."""

    def __init__(self, stream: TextIO) -> None:
        self._write = writer(stream)
        self._shown_at_s = float("-inf")
        self._said = False

    def say(self, line: str) -> None:
        """See Screen."""
        self._write(line)
        self._said = True

    def show(self, line: str, at_s: float) -> None:
        """See Screen."""
        if self._said:
            self._shown_at_s, self._said = at_s, False
        elif at_s - self._shown_at_s >= PROGRESS_EVERY_S:
            self._write(f"{moment(at_s, '%H:%M:%S')}           … {line}")
            self._shown_at_s = at_s

    def close(self) -> None:
        """See Screen."""


class LiveScreen:
    """For a person at a terminal: the last line changes in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.text import Text

        self._text = Text
        self._console = Console(file=stream)
        self._status = self._console.status("")
        self._status.start()

    def say(self, line: str) -> None:
        """See Screen."""
        with suppress(OSError):
            self._console.print(self._text(line), soft_wrap=True)

    def show(self, line: str, at_s: float) -> None:
        """See Screen."""
        del at_s
        with suppress(OSError):
            self._status.update(self._text(line, no_wrap=True, overflow="ellipsis"))

    def close(self) -> None:
        """See Screen."""
        with suppress(OSError):
            self._status.stop()


class Reporter:
    """A listener that tells people. Use as a context manager."""

    def __init__(self, plan: Plan, screen: Screen) -> None:
        self._plan = plan
        self._screen = screen

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the terminal as it was, whatever happened."""
        self._screen.close()

    def __call__(self, event: Event, state: DeployState) -> None:
        """Tell of one event, and how far it is."""
        sentence = narrate(event, self._plan)
        if sentence is not None:
            self._screen.say(timed(sentence, event.at_s, state.began_at_s))
        if not isinstance(event, DeployFinished):
            self._screen.show(progress(self._plan, state, state.last_at_s), state.last_at_s)


def timed(sentence: str, at_s: float, began_at_s: float) -> str:
    """Put the time, and the time since the rollout began, before a sentence; its other lines stand below it."""
    minutes, seconds = divmod(max(0, round(at_s - began_at_s)), 60)
    head = f"{moment(at_s, '%H:%M:%S')} {f'+{minutes}:{seconds:02}':>8}  "
    return head + sentence.replace("\n", "\n" + " " * len(head))


def open_screen(stream: TextIO) -> Screen:
    """Choose by whether a person watches."""
    return LiveScreen(stream) if stream.isatty() else PlainScreen(stream)


def ndjson(stream: TextIO) -> Callable[[Event, DeployState], None]:
    """Return a listener that writes each event as one line of JSON: its kind, and its own fields."""
    write = writer(stream)

    def listen(event: Event, _state: DeployState) -> None:
        write(json.dumps({"kind": event_kind(event), **to_plain(event)}, ensure_ascii=False))

    return listen


def writer(stream: TextIO) -> Callable[[str], None]:
    """Return a function that writes a line at once, and none any more after the reader has gone."""
    gone = False

    def write(line: str) -> None:
        nonlocal gone
        if gone:
            return
        try:
            stream.write(f"{line}\n")
            stream.flush()
        except OSError:
            # Broken pipe, full disk: a rollout in the middle of its way is worth more than a line about it.
            gone = True
            _swallow(stream)

    return write


def _swallow(stream: TextIO) -> None:
    """Let what is still buffered go nowhere, or the interpreter would fail on it at its end and change the exit code."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
