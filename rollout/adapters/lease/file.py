"""
The lease as a file at the target, beside the ledger.

It is compared and set under `flock` and replaced in one go, so that it is always a whole one. Who holds it is asked for on this machine:
the lease of a process that was killed is free at once, as a lock would be.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rollout.adapters.lease import processes
from rollout.adapters.settings import FilePath, Settings, check
from rollout.model.errors import PermanentDriverError, TakenOverError, TransientDriverError
from rollout.model.ids import DeployId
from rollout.model.inventory import Inventory
from rollout.ports.lease import Claim, Lease, described, loss, refusal

# Whoever compares and sets takes a few milliseconds.
_AGAIN_AFTER_S = 0.02


class FileLeaseSettings(Settings):
    """*path*: the lease, beside the ledger; *ttl_s*: how long it is valid without being renewed, in seconds."""

    path: FilePath
    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "FileLease":
    """Open the driver; nothing is read yet."""
    checked = check(FileLeaseSettings, settings, "lease_driver")
    return FileLease(checked.path, inventory.homeserver, checked.ttl_s)


@dataclass(frozen=True)
class _Content:
    """The file."""

    homeserver: str
    holder: str
    host: str
    pid: int
    process: str
    why: str
    deploy_id: DeployId
    token: int
    ttl_s: float
    since_s: float
    renewed_at_s: float
    expires_at_s: float
    held: bool
    taken_from: str


_CONTENT = TypeAdapter(_Content)


class FileLease:
    """See ports.lease."""

    def __init__(self, path: Path, homeserver: str, ttl_s: float) -> None:
        self._path = path
        self._homeserver = homeserver
        self._ttl_s = ttl_s
        self._mine: _Content | None = None

    @property
    def ttl_s(self) -> float:
        """See ports.lease."""
        return self._ttl_s

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """See ports.lease."""
        with self._alone(timeout_s):
            before = self._read()
            now_s = _now_s()
            found = None if before is None else _lease(before, now_s)
            if found is not None and not found.free and not take_over:
                raise refusal(found, str(self._path))
            mine = _Content(
                homeserver=self._homeserver,
                holder=claim.holder,
                host=socket.gethostname(),
                pid=os.getpid(),
                process=processes.me(),
                why=claim.why,
                deploy_id=claim.deploy_id,
                token=max(above, 0 if found is None else found.token) + 1,
                ttl_s=self._ttl_s,
                since_s=now_s,
                renewed_at_s=now_s,
                expires_at_s=now_s + self._ttl_s,
                held=True,
                taken_from=described(found) if found is not None and found.held else "",
            )
            self._write(mine)
        self._mine = mine
        return _lease(mine, now_s)

    def renew(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        mine = self._mine
        if mine is None or mine.token != token:
            msg = f"lease {token} was never acquired here"
            raise ValueError(msg)
        with self._alone(timeout_s):
            found, now_s = self._read(), _now_s()
            if found is not None and found.token > token:
                raise TakenOverError("the lease is lost", where=str(self._path), why=loss(_lease(found, now_s)))
            self._mine = replace(mine, renewed_at_s=now_s, expires_at_s=now_s + self._ttl_s)
            self._write(self._mine)

    def release(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        with self._alone(timeout_s):
            found = self._read()
            if found is not None and found.token == token:
                self._write(replace(found, held=False))

    def read(self, timeout_s: float) -> Lease | None:
        """See ports.lease."""
        del timeout_s
        found = self._read()
        return None if found is None else _lease(found, _now_s())

    @contextmanager
    def _alone(self, timeout_s: float) -> Iterator[None]:
        """Be the only one who compares and sets; one who was stopped within it is not waited for longer than that."""
        place = self._path.with_suffix(".lock")
        pause = Event()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            file = place.open("a")
        except OSError as error:
            raise PermanentDriverError("the lease's directory can't be used", where=str(place.parent), why=str(error)) from error
        with file:
            for _ in range(1 + round(timeout_s / _AGAIN_AFTER_S)):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pause.wait(_AGAIN_AFTER_S)
                else:
                    yield
                    return
        raise TransientDriverError(f"somebody has kept the lease's file to themselves for {timeout_s:g} s", where=str(place))

    def _read(self) -> _Content | None:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TransientDriverError("the lease can't be read", where=str(self._path), why=str(error)) from error
        try:
            return _CONTENT.validate_json(text)
        except ValidationError as error:
            raise PermanentDriverError(
                "the lease's file is no lease",
                where=str(self._path),
                why=f"{error.error_count()} problems in {len(text)} bytes",
                remedy="see to it that nobody is rolling this homeserver, then remove the file: the ledger knows the last token too",
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
            raise TransientDriverError("the lease can't be written", where=str(self._path), why=str(error)) from error


def _lease(content: _Content, now_s: float) -> Lease:
    return Lease(
        homeserver=content.homeserver,
        holder=content.holder,
        host=content.host,
        pid=content.pid,
        why=content.why,
        deploy_id=content.deploy_id,
        token=content.token,
        ttl_s=content.ttl_s,
        since_s=content.since_s,
        renewed_at_s=content.renewed_at_s,
        expires_at_s=content.expires_at_s,
        held=content.held,
        free=not content.held or now_s >= content.expires_at_s or processes.is_gone(content.pid, content.process),
        taken_from=content.taken_from,
    )


def _now_s() -> float:
    return time.time()  # noqa: TID251  (the target's own clock)
