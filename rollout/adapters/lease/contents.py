"""What is written into a lease's file, in our words. The agent compares and sets it (rollout.agent.lease)."""

import os
import socket
from collections.abc import Mapping
from typing import Any

from rollout.agent import holders
from rollout.agent.lease import Answer
from rollout.model.errors import TakenOverError
from rollout.ports.lease import Claim, Lease, loss, refusal


def wanted(homeserver: str, claim: Claim, ttl_s: float) -> dict[str, Any]:
    """Say who wants it."""
    return {
        "homeserver": homeserver,
        "holder": claim.holder,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": holders.me(),
        "why": claim.why,
        "deploy_id": claim.deploy_id,
        "ttl_s": ttl_s,
    }


def lease_in(answer: Answer) -> Lease | None:
    """Return what is written down by an answer."""
    return None if answer["lease"] is None else _lease(answer["lease"], free=answer["free"])


def acquired(answer: Answer, where: str) -> Lease:
    """Return the lease that was taken. Raises LeaseHeldError."""
    lease = _lease(answer["lease"], free=answer["free"])
    if answer["refused"]:
        raise refusal(lease, where)
    return lease


def renewed(answer: Answer, where: str) -> dict[str, Any]:
    """Return what is written down. Raises TakenOverError."""
    if answer["refused"]:
        raise TakenOverError("the lease is lost", where=where, why=loss(_lease(answer["lease"], free=False)))
    return dict(answer["lease"])


def _lease(content: Mapping[str, Any], *, free: bool) -> Lease:
    return Lease(**{name: value for name, value in content.items() if name != "process"}, free=free)
