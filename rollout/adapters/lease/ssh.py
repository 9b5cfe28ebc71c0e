"""
The lease as a file on one of the homeserver's hosts, over SSH: two people at two laptops exclude each other.

It is compared and set there by the agent (rollout.agent.lease), by that host's clock. Whether a holder on another machine is gone can't be
seen from there, so its lease has to run out.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from rollout.adapters.agent_on_hosts import Agents
from rollout.adapters.agent_settings import AgentSettings, with_hosts
from rollout.adapters.faults import error_in
from rollout.adapters.lease.asking import AgentLease
from rollout.agent.lease import Answer
from rollout.model.inventory import Inventory

WHERE = "lease_driver"


class SshLeaseSettings(AgentSettings):
    """
    *host*: where it is kept, by its name in *hosts* or among the hosts of another driver. *path*: the lease there; its directory holds the
    agent, too. *ttl_s*: how long it is valid without being renewed, in seconds. *python*: the one that runs the agent.
    """

    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "SshLease":
    """Open the driver; nothing is connected yet."""
    return SshLease(with_hosts(SshLeaseSettings, settings, inventory, WHERE), inventory.homeserver)


class SshLease(AgentLease):
    """See ports.lease. An answer that is lost is no answer: whoever asked again would find their own lease there."""

    def __init__(self, settings: SshLeaseSettings, homeserver: str) -> None:
        super().__init__(homeserver, settings.ttl_s)
        self._host = settings.host
        self._path = settings.path
        self._agents = Agents(settings)

    @property
    def where(self) -> str:
        """See AgentLease."""
        return f"{self._path} on {self._agents.where(self._host)}"

    def ask(self, order: Mapping[str, Any], timeout_s: float) -> Answer:
        """See AgentLease. TransientDriverError when no answer comes in time: it may be asked again, a lease that was got runs out."""
        whole = json.dumps({**order, "wait_s": timeout_s / 2})
        said = self._agents.ask(self._host, ("lease", self._path, whole), timeout_s, changes=False)
        if said["outcome"] != "done":
            raise error_in(said)
        return said

    def close(self) -> None:
        """End the connections that no other driver uses."""
        self._agents.close()
