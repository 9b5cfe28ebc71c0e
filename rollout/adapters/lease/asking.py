"""The lease as the agent compares and sets it (rollout.agent.lease), in our words. Whether here or on a host is left to the drivers."""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from rollout.agent import holders
from rollout.agent.lease import Answer
from rollout.model.errors import TakenOverError
from rollout.ports.lease import Claim, Lease, loss, refusal


class AgentLease(ABC):
    """See ports.lease. *where* is how errors call the file."""

    def __init__(self, homeserver: str, ttl_s: float) -> None:
        self._homeserver = homeserver
        self._ttl_s = ttl_s
        self._mine: dict[str, Any] | None = None

    @abstractmethod
    def ask(self, order: Mapping[str, Any], timeout_s: float) -> Answer:
        """Have the agent do *order*, and return what it says. Raises DriverError."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Say where the file is."""

    @property
    def ttl_s(self) -> float:
        """See ports.lease."""
        return self._ttl_s

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """See ports.lease."""
        order = {"do": "acquire", "wanted": self._wanted(claim), "above": above, "take_over": take_over}
        answer = self.ask(order, timeout_s)
        lease = _lease(answer["lease"], free=answer["free"])
        if answer["refused"]:
            raise refusal(lease, self.where)
        self._mine = answer["lease"]
        return lease

    def renew(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        mine = self._mine
        if mine is None or mine["token"] != token:
            msg = f"lease {token} was never acquired here"
            raise ValueError(msg)
        answer = self.ask({"do": "renew", "mine": mine}, timeout_s)
        if answer["refused"]:
            raise TakenOverError("the lease is lost", where=self.where, why=loss(_lease(answer["lease"], free=False)))
        self._mine = answer["lease"]

    def release(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        self.ask({"do": "release", "token": token}, timeout_s)

    def read(self, timeout_s: float) -> Lease | None:
        """See ports.lease."""
        answer = self.ask({"do": "look"}, timeout_s)
        return None if answer["lease"] is None else _lease(answer["lease"], free=answer["free"])

    def _wanted(self, claim: Claim) -> dict[str, Any]:
        return {
            "homeserver": self._homeserver,
            "holder": claim.holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": holders.me(),
            "why": claim.why,
            "deploy_id": claim.deploy_id,
            "ttl_s": self._ttl_s,
        }


def _lease(content: Mapping[str, Any], *, free: bool) -> Lease:
    return Lease(**{name: value for name, value in content.items() if name != "process"}, free=free)
