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
from rollout.adapters.lease.asking import AgentLease
from rollout.adapters.settings import FilePath, Settings, check
from rollout.agent import lease
from rollout.model.inventory import Inventory


class FileLeaseSettings(Settings):
    """*path*: the lease, beside the ledger; *ttl_s*: how long it is valid without being renewed, in seconds."""

    path: FilePath
    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "FileLease":
    """Open the driver; nothing is read yet."""
    checked = check(FileLeaseSettings, settings, "lease_driver")
    return FileLease(checked.path, inventory.homeserver, checked.ttl_s)


class FileLease(AgentLease):
    """See ports.lease."""

    def __init__(self, path: Path, homeserver: str, ttl_s: float) -> None:
        super().__init__(homeserver, ttl_s)
        self._path = path

    @property
    def where(self) -> str:
        """See AgentLease."""
        return str(self._path)

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> lease.Answer:
        """See AgentLease."""
        with translated():
            return lease.answer(self._path, {**order, "wait_s": timeout_s})
