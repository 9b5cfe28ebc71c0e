"""
The ledger's file: which numbers and tokens were heard, what of ours is out of traffic, and until when somebody lives.

Everything is compared and stored under one `flock`, which is held for milliseconds; the act itself runs under one of its worker, so that
a worker that takes its time holds up no other. Both are waited for no longer than a given time, and whoever doesn't get one is told who
holds it. A ledger that can't be read is an error: an empty one would say that nothing is ours.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from rollout.agent.fault import LENT, PERMANENT, STALE, TAKEN_OVER, TRANSIENT, Fault

# Whoever holds the ledger itself only reads and writes a small file.
LEDGER_WAIT_S = 5.0
RETRY_S = 0.01
# What a number that the ledger gives itself adds. A rollout may have numbered acts that never came here (they froze on their way, or warmed
# somebody, which nobody compares): each of them has to come too late afterwards.
LEAP = 1000

Mark = dict[str, Any]


@dataclass(slots=True)
class Content:
    """
    The file. *numbers*, *tokens* and *owners* are those of the last act on each worker; *token* is the highest that anybody has shown,
    *taken_by* whose it is. Somebody lives until *alive_until_s* (seconds since the epoch). A mark holds number, release, why, at_s,
    condemned, and maybe `back` (how to undo it) and `paged`. *lent* are the workers that are acted on elsewhere (see lending.py), *runs* is
    what each was last restarted to run, once that is known to have been done.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    token: int = 0
    taken_by: str = ""
    alive_until_s: float = 0.0
    lent: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """
    What an act says of itself before it is done. Without a *number* it gets the next one, and the ledger's own token.

    *mark* is set before the act; *condemned* is added to the one that is there; *clears*: there is none any more once it is done. *runs* is
    the release that the worker runs then. *what* is for whoever has to wait for it.

    The dead-man acts only if the mark is still the one with number *of_mark*, and if nobody lives at *silent_at_s*. What is done for a
    worker that was lent has to begin by *begin_by_s*. Whoever has made sure that nothing comes of a lend any more names it as *settled*.
    """

    worker: str
    number: int | None
    token: int = 0
    owner: str = ""
    mark: Mark | None = None
    condemned: str | None = None
    clears: bool = False
    what: str = ""
    of_mark: int | None = None
    silent_at_s: float | None = None
    runs: str | None = None
    begin_by_s: float | None = None
    settled: int | None = None


def compare(content: Content, claim: Claim) -> tuple[int, int]:
    """Return the token and the number under which *claim* may act. Raises Fault (STALE, TAKEN_OVER) when it comes too late."""
    worker = claim.worker
    if claim.of_mark is not None and content.marks.get(worker, {}).get("number") != claim.of_mark:
        raise Fault(STALE, "somebody has acted on it meanwhile", where=worker)
    if claim.silent_at_s is not None and claim.silent_at_s <= content.alive_until_s:
        raise Fault(STALE, "somebody lives again", where=worker)
    if claim.number is None:
        # Whoever acts on it a second time in a row has leapt already.
        leap = 1 if content.owners.get(worker) == claim.owner else LEAP
        return content.token, max(content.numbers.values(), default=0) + leap
    check_token(content, claim.token, f"effect {claim.number}", worker)
    seen = content.tokens.get(worker, 0), content.numbers.get(worker, 0)
    owner = content.owners.get(worker, "")
    if (claim.token, claim.number) < seen or ((claim.token, claim.number) == seen and claim.owner != owner):
        by = f" by {owner}" if owner not in {"", claim.owner} else ""
        what = f"effect {claim.number} comes too late: {seen[1]} was done already{by}"
        raise Fault(STALE, what, where=worker, number=max(content.numbers.values()))
    return claim.token, claim.number


def begun(content: Content, claim: Claim) -> tuple[int, int]:
    """Write down that *claim* acts now; return its token and number. Raises Fault when it may not: nothing was written down then."""
    worker, now_s = claim.worker, time.time()
    if claim.begin_by_s is not None and now_s > claim.begin_by_s:
        what = f"effect {claim.number} comes {now_s - claim.begin_by_s:.0f} s too late to be begun"
        raise Fault(TRANSIENT, what, where=worker, remedy="again, if it is still wanted")
    token, number = compare(content, claim)
    lend = content.lent.get(worker)
    if lend is not None and claim.settled != lend["number"] and now_s < lend["until_s"]:
        until = time.strftime("%H:%M:%S", time.localtime(lend["until_s"]))
        raise Fault(LENT, f"effect {lend['number']} may be under way until {until}", where=worker, why=lend["what"], number=lend["number"])
    content.lent.pop(worker, None)
    content.token, content.taken_by = max((content.token, content.taken_by), (token, claim.owner), key=lambda pair: pair[0])
    content.tokens[worker], content.numbers[worker], content.owners[worker] = token, number, claim.owner
    if claim.mark is not None:
        content.marks[worker] = {**claim.mark, "number": number, "at_s": now_s}
    elif claim.condemned is not None and worker in content.marks:
        content.marks[worker] = {**content.marks[worker], "condemned": claim.condemned}
    if claim.runs is not None:
        # Until it is done nobody knows.
        content.runs.pop(worker, None)
    return token, number


def ended(content: Content, claim: Claim, token: int, number: int) -> None:
    """Write down that what *claim* began is done, if nobody has acted on the worker since."""
    worker = claim.worker
    if (content.tokens.get(worker), content.numbers.get(worker)) != (token, number):
        return
    if claim.clears:
        content.marks.pop(worker, None)
    if claim.runs is not None:
        content.runs[worker] = claim.runs


def check_token(content: Content, token: int, who: str, where: str) -> None:
    """Raise Fault (TAKEN_OVER) when a higher token than *token* has been shown."""
    if token < content.token:
        by = content.taken_by or "somebody else"
        what = f"{who} comes too late: {by} has taken over"
        raise Fault(TAKEN_OVER, what, where=where, why=f"its token is {token}, and the ledger's is {content.token}")


class Book:
    """The ledger at *path*; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def acting(self, claim: Claim, wait_s: float) -> Iterator[int]:
        """
        Compare and store, and hold the worker while the act inside runs; gives its number. Raises Fault before anything was done.

        The mark is cleared, if *claim* clears it, once the act inside has ended without an exception.
        """
        with self.of_worker(claim, wait_s):
            with self.changing() as content:
                token, number = begun(content, claim)
            yield number
            if claim.clears or claim.runs is not None:
                with self.changing() as content:
                    ended(content, claim, token, number)

    @contextmanager
    def of_worker(self, claim: Claim, wait_s: float) -> Iterator[None]:
        """Hold the worker. Raises Fault (TRANSIENT), naming who does, when it isn't free within *wait_s*."""
        lock = self.path.with_name(f"{self.path.stem}.{claim.worker.replace('/', '%2F')}.lock")
        with locked(lock, wait_s, claim.what or "acts", where=claim.worker):
            yield

    def take(self, token: int, owner: str) -> None:
        """Let nobody with a lower token act any more. Raises Fault (TAKEN_OVER) when somebody has a higher one."""
        with self.changing() as content:
            check_token(content, token, f"token {token}", str(self.path))
            if token > content.token or owner:
                content.token, content.taken_by = token, owner

    def beat(self, token: int, alive_until_s: float) -> None:
        """Say that somebody lives. Raises Fault (TAKEN_OVER) when somebody has a higher token."""
        with self.changing() as content:
            check_token(content, token, f"the holder of token {token}", str(self.path))
            content.token, content.alive_until_s = token, alive_until_s

    def writable(self) -> None:
        """Raise Fault when it can't be read or written."""
        with self.changing():
            pass

    def note_page(self, worker: str, number: int, state: str) -> None:
        """Write down that somebody was told of a worker's *state*, if its mark is still the one with *number*."""
        with self.changing() as content:
            if content.marks.get(worker, {}).get("number") == number:
                content.marks[worker]["paged"] = state

    @contextmanager
    def changing(self) -> Iterator[Content]:
        """Hold the ledger, and write it when the block ends without an exception."""
        with locked(self.path.with_suffix(".lock"), LEDGER_WAIT_S, "writes the ledger", where=str(self.path)):
            content = self.read()
            yield content
            self._write(content)

    def read(self) -> Content:
        """Read it. A file that isn't there is an empty ledger."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return Content()
        except OSError as error:
            raise Fault(PERMANENT, "the ledger can't be read", where=str(self.path), why=str(error)) from error
        try:
            return understood(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Fault(
                PERMANENT,
                "the ledger is not one",
                where=str(self.path),
                why=f"{len(text)} bytes that make no sense ({type(error).__name__})",
                remedy="look at the proxy which servers are drained and admit what is yours by hand, then remove the file",
            ) from error

    def _write(self, content: Content) -> None:
        half = self.path.with_suffix(".half")
        try:
            with half.open("w") as file:
                json.dump({name: getattr(content, name) for name in Content.__slots__}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            half.rename(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise Fault(TRANSIENT, "the ledger can't be written", where=str(self.path), why=str(error)) from error


def understood(data: Any) -> Content:  # noqa: ANN401  (whatever was in the file)
    """Check every part; one of an older rollout knows no tokens. Raises ValueError, TypeError, KeyError or AttributeError."""
    marks = {str(worker): _mark(mark) for worker, mark in data["marks"].items()}
    return Content(
        numbers=_each(data["numbers"], int),
        marks=marks,
        tokens=_each(data.get("tokens", {}), int),
        owners=_each(data.get("owners", {}), str),
        token=_is(data.get("token", 0), int),
        taken_by=_is(data.get("taken_by", ""), str),
        alive_until_s=float(_is(data.get("alive_until_s", 0.0), int | float)),
        lent={str(worker): _lend(lend) for worker, lend in data.get("lent", {}).items()},
        runs=_each(data.get("runs", {}), str),
    )


def _lend(lend: Any) -> dict[str, Any]:  # noqa: ANN401  (as above)
    _is(lend["number"], int), _is(lend["token"], int), _is(lend["until_s"], int | float), _is(lend["what"], str)
    _each(dict(enumerate(_is(lend["hosts"], list))), str)
    return dict(lend)


def _mark(mark: Any) -> Mark:  # noqa: ANN401  (as above)
    _is(mark["number"], int), _is(mark["release"], str), _is(mark["why"], str), _is(mark["at_s"], int | float)
    _is(mark.get("condemned"), str | None), _is(mark.get("paged"), str | None)
    if (back := mark.get("back")) is not None:
        _is(back["acts"], list), _is(back["health"], str), _is(back["link"], str | None), _is(back["after_s"], int | float)
    return dict(mark)


def _each(values: Any, kind: Any) -> dict[str, Any]:  # noqa: ANN401  (as above)
    return {str(name): _is(value, kind) for name, value in values.items()}


def _is(value: Any, kind: Any) -> Any:  # noqa: ANN401  (as above)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(type(value).__name__)
    return value


@contextmanager
def locked(place: Path, wait_s: float, what: str, *, where: str) -> Iterator[None]:
    """Hold *place* by `flock`, and write down who does. Raises Fault (TRANSIENT), naming the holder, when it isn't free within *wait_s*."""
    with open_lock(place) as file:
        end_s = time.monotonic() + wait_s
        while not try_lock(file):
            if time.monotonic() >= end_s:
                file.seek(0)
                who = file.read().strip() or "its holder has not said who it is"
                raise Fault(TRANSIENT, f"it was busy for {wait_s:.0f} s", where=where, why=who, remedy="again, once that has ended")
            time.sleep(RETRY_S)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}: {what}\n")
            file.flush()
        except OSError as error:
            raise Fault(TRANSIENT, "the ledger's lock can't be written", where=str(place), why=str(error)) from error
        yield


def open_lock(place: Path) -> IO[str]:
    """Open a file that is there to be locked, and make it if need be."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return place.open("a+")
    except OSError as error:
        raise Fault(PERMANENT, "the ledger's directory can't be used", where=str(place.parent), why=str(error)) from error


def try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
