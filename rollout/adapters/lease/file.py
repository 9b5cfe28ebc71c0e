"""
The lease as a file at the target, beside the ledger.

It is compared and set by the agent's code (rollout.agent.lease), in this process. Who holds it is asked for on this machine: the lease of
a process that was killed is free at once, as a lock would be.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from rollout.adapters.faults import translated
from rollout.adapters.lease.contents import acquired, lease_in, renewed, wanted
from rollout.adapters.settings import FilePath, Settings, check
from rollout.agent import lease
from rollout.model.inventory import Inventory
from rollout.ports.lease import Claim, Lease


class FileLeaseSettings(Settings):
    """*path*: the lease, beside the ledger; *ttl_s*: how long it is valid without being renewed, in seconds."""

    path: FilePath
    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "FileLease":
    """Open the driver; nothing is read yet."""
    checked = check(FileLeaseSettings, settings, "lease_driver")
    return FileLease(checked.path, inventory.homeserver, checked.ttl_s)


class FileLease:
    """See ports.lease."""

    def __init__(self, path: Path, homeserver: str, ttl_s: float) -> None:
        self._path = path
        self._homeserver = homeserver
        self._ttl_s = ttl_s
        self._mine: dict[str, Any] | None = None

    @property
    def ttl_s(self) -> float:
        """See ports.lease."""
        return self._ttl_s

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """See ports.lease."""
        asked = wanted(self._homeserver, claim, self._ttl_s)
        with translated():
            answer = lease.acquire(self._path, asked, above=above, take_over=take_over, wait_s=timeout_s)
        taken = acquired(answer, str(self._path))
        self._mine = answer["lease"]
        return taken

    def renew(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        mine = self._mine
        if mine is None or mine["token"] != token:
            msg = f"lease {token} was never acquired here"
            raise ValueError(msg)
        with translated():
            answer = lease.renew(self._path, mine, timeout_s)
        self._mine = renewed(answer, str(self._path))

    def release(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        with translated():
            lease.release(self._path, token, timeout_s)

    def read(self, timeout_s: float) -> Lease | None:
        """See ports.lease."""
        del timeout_s
        with translated():
            return lease_in(lease.look(self._path))
