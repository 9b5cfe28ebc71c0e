"""
The ledger as a file at the target.

Numbers are compared and stored under `flock`, so that of two tools, or of one that was asleep, only the newest is heard. The act itself
runs outside that lock but under one of its worker, so that a worker that takes its time holds up no other. A ledger that can't be read is
an error: an empty one would say that nothing is ours.
"""

import fcntl
import json
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rollout.adapters.settings import FilePath, Settings, check
from rollout.model.effect import Effect
from rollout.model.errors import PermanentDriverError, RefusedError, StaleEffectError, TransientDriverError
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.sighting import DrainMark
from rollout.ports.ledger import brings_back, marked


class LedgerSettings(Settings):
    """*path*: the ledger, beside the proxy."""

    path: FilePath


def build(settings: Mapping[str, object], inventory: Inventory) -> "FileLedger":
    """Open the driver; nothing is read yet."""
    del inventory
    return FileLedger(check(LedgerSettings, settings, "ledger_driver").path)


@dataclass(frozen=True)
class _Content:
    """The file: the highest number of each worker, and our marks."""

    numbers: dict[WorkerId, EffectNumber]
    marks: dict[WorkerId, DrainMark]


_CONTENT = TypeAdapter(_Content)


class FileLedger:
    """See ports.ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._acts: defaultdict[WorkerId, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def fence(self, effect: Effect) -> Iterator[None]:
        """See ports.ledger."""
        worker = effect.worker
        if worker is None:
            msg = "only effects on a worker are fenced"
            raise ValueError(msg)
        with self._acts[worker]:
            with self._held() as content:
                highest = content.numbers.get(worker, 0)
                if effect.number < highest:
                    raise StaleEffectError(f"effect {effect.number} comes too late: {highest} was done already", where=worker)
                marks = marked(content.marks, effect, time.time())  # noqa: TID251  (the target's own clock)
                self._write(_Content({**content.numbers, worker: effect.number}, marks))
            yield
            if brings_back(effect):
                with self._held() as content:
                    if content.numbers.get(worker) == effect.number:
                        self._write(_Content(content.numbers, {other: mark for other, mark in content.marks.items() if other != worker}))

    def marks(self) -> dict[WorkerId, DrainMark]:
        """See ports.ledger."""
        return dict(self._read().marks)

    def last_number(self) -> EffectNumber:
        """See ports.ledger."""
        return max(self._read().numbers.values(), default=EffectNumber(0))

    @contextmanager
    def lock(self, holder: str, why: str) -> Iterator[None]:
        """See ports.ledger."""
        place = self._path.with_name("lock")
        with _open(place) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RefusedError(
                    "another rollout of this homeserver is under way",
                    where=str(place),
                    why=_holder(file),
                    remedy="`rollout status` shows it; `rollout abort` ends it",
                ) from error
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            file.truncate(0)
            file.write(json.dumps({"holder": holder, "host": socket.gethostname(), "pid": os.getpid(), "why": why, "since": now}))
            file.flush()
            yield

    @contextmanager
    def _held(self) -> Iterator[_Content]:
        with _open(self._path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._read()

    def _read(self) -> _Content:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return _Content({}, {})
        except OSError as error:
            raise PermanentDriverError("the ledger can't be read", where=str(self._path), why=str(error)) from error
        try:
            return _CONTENT.validate_json(text)
        except ValidationError as error:
            raise PermanentDriverError(
                "the ledger is not one",
                where=str(self._path),
                why=f"{error.error_count()} problems in {len(text)} bytes",
                remedy="look at the proxy which servers are drained and admit what is yours by hand, then remove the file",
            ) from error

    def _write(self, content: _Content) -> None:
        half = self._path.with_suffix(".half")
        try:
            with half.open("wb") as file:
                file.write(_CONTENT.dump_json(content, indent=1))
                file.flush()
                os.fsync(file.fileno())
            half.rename(self._path)
        except OSError as error:
            raise TransientDriverError("the ledger can't be written", where=str(self._path), why=str(error)) from error


def _open(path: Path) -> IO[str]:
    """Open a file that is there to be locked, and make it if need be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise PermanentDriverError("the ledger's directory can't be used", where=str(path.parent), why=str(error)) from error


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        held = json.loads(file.read())
    except json.JSONDecodeError:
        return "its holder has not said who it is yet"
    return f"{held['holder']} on {held['host']} (process {held['pid']}) since {held['since']}: {held['why']}"
