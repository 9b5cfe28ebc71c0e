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
from rollout.adapters.lease.contents import acquired, lease_in, renewed, wanted
from rollout.agent.lease import Answer
from rollout.model.inventory import Inventory
from rollout.ports.lease import Claim, Lease

WHERE = "lease_driver"
# For a busy host to start a process and end it.
MARGIN_S = 10.0


class SshLeaseSettings(AgentSettings):
    """
    *host*: where it is kept, by its name in *hosts* or among the hosts of another driver. *path*: the lease there; its directory holds the
    agent, too. *ttl_s*: how long it is valid without being renewed, in seconds. *python*: the one that runs the agent.
    """

    ttl_s: float = Field(default=30.0, ge=1)


def build(settings: Mapping[str, object], inventory: Inventory) -> "SshLease":
    """Open the driver; nothing is connected yet."""
    return SshLease(with_hosts(SshLeaseSettings, settings, inventory, WHERE), inventory.homeserver)


class SshLease:
    """See ports.lease. An answer that is lost is no answer: whoever asked again would find their own lease there."""

    def __init__(self, settings: SshLeaseSettings, homeserver: str) -> None:
        self._host = settings.host
        self._path = settings.path
        self._homeserver = homeserver
        self._ttl_s = settings.ttl_s
        self._agents = Agents(settings)
        self._mine: dict[str, Any] | None = None

    @property
    def ttl_s(self) -> float:
        """See ports.lease."""
        return self._ttl_s

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """See ports.lease."""
        asked = {"wanted": wanted(self._homeserver, claim, self._ttl_s), "above": above, "take_over": take_over}
        answer = self._ask("acquire", asked, timeout_s)
        taken = acquired(answer, self._where)
        self._mine = answer["lease"]
        return taken

    def renew(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        mine = self._mine
        if mine is None or mine["token"] != token:
            msg = f"lease {token} was never acquired here"
            raise ValueError(msg)
        self._mine = renewed(self._ask("renew", {"mine": mine}, timeout_s), self._where)

    def release(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        self._ask("release", {"token": token}, timeout_s)

    def read(self, timeout_s: float) -> Lease | None:
        """See ports.lease."""
        return lease_in(self._ask("look", {}, timeout_s))

    def close(self) -> None:
        """End all connections."""
        self._agents.close()

    @property
    def _where(self) -> str:
        return f"{self._path} on {self._agents.where(self._host)}"

    def _ask(self, do: str, asked: Mapping[str, Any], timeout_s: float) -> Answer:
        """Raises TransientDriverError when no answer comes within *timeout_s*: it may be asked again, a lease that was got runs out."""
        wait_s = timeout_s / 2
        order = json.dumps({"do": do, "wait_s": wait_s, **asked})
        said = self._agents.ask(self._host, ("lease", self._path, order), timeout_s, changes=False)
        if said["outcome"] != "done":
            raise error_in(said)
        return said
