"""
Who may roll a homeserver now.

The lease lives with the homeserver, not with the tool: two people at two laptops must exclude each other. It is valid for a while and
renewed by who holds it; whoever is refused can read by whom, why and until when. Its *token* rises with every holder, for ever, so that
what an earlier one still does can be told from what the present one does (ports/ledger.py): a lease alone can't stop a process that was
asleep when it ran out.
"""

from dataclasses import dataclass
from time import localtime, strftime
from typing import Protocol

from rollout.model.errors import LeaseHeldError
from rollout.model.ids import DeployId


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants the lease: *holder* is a person, *deploy_id* the rollout that it is for."""

    holder: str
    why: str
    deploy_id: DeployId


@dataclass(frozen=True, slots=True)
class Lease:
    """
    What is written down. Times are seconds since the epoch, by the clock of where it is kept.

    *free*: anybody may take it, because it was given back (*held* is False), has run out, or its holder's process is seen to be gone.
    *taken_from* says from whom it was taken, if it wasn't given back.
    """

    homeserver: str
    holder: str
    host: str
    pid: int
    why: str
    deploy_id: DeployId
    token: int
    ttl_s: float
    since_s: float
    renewed_at_s: float
    expires_at_s: float
    held: bool
    free: bool
    taken_from: str = ""


class LeaseKeeper(Protocol):
    """
    The place where one homeserver's lease is kept. Whether it has run out is decided there, by its own clock.

    A place that can't be reached is a TransientDriverError; one that can't be used (torn, no right to write) a PermanentDriverError.
    """

    @property
    def ttl_s(self) -> float:
        """How long a lease is valid after it was last renewed."""
        ...

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """
        Take the lease if it is free, or, with *take_over*, from whoever holds it. Its token is higher than any before, and than *above*.

        Raises LeaseHeldError, which names the holder, when it is not free.
        """
        ...

    def renew(self, token: int, timeout_s: float) -> None:
        """
        Make the lease that this object acquired valid for another *ttl_s*. A place that has forgotten it is told again.

        Raises TakenOverError when a higher token is there.
        """
        ...

    def release(self, token: int, timeout_s: float) -> None:
        """Give the lease back, if it still has this token; otherwise do nothing."""
        ...

    def read(self, timeout_s: float) -> Lease | None:
        """Return what is written down; None when nothing ever was."""
        ...


def described(lease: Lease) -> str:
    """Say who holds it, since when, and what for."""
    since = strftime("%Y-%m-%d %H:%M:%S", localtime(lease.since_s))
    return f"{lease.holder} on {lease.host} (process {lease.pid}) since {since}: {lease.why}"


def refusal(lease: Lease, where: str) -> LeaseHeldError:
    """Tell somebody that another holds it."""
    until = strftime("%H:%M:%S", localtime(lease.expires_at_s))
    return LeaseHeldError(
        "another rollout of this homeserver is under way",
        where=where,
        why=f"{described(lease)}\nit holds the lease until {until}, and renews it while it lives",
        remedy=f"`rollout status` shows it, `rollout abort` asks it to stop; if it is gone: again after {until}, or --take-over",
    )


def loss(lease: Lease) -> str:
    """Say who has taken it from us."""
    at = strftime("%H:%M:%S", localtime(lease.since_s))
    return f"{lease.holder} on {lease.host} (process {lease.pid}) took it over at {at}: {lease.why}"
