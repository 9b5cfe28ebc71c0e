"""A lease that is kept nowhere, on the world's clock: it can be out of reach for a while, be taken by somebody else, or be forgotten."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rollout.model.errors import TakenOverError, TransientDriverError
from rollout.model.ids import DeployId
from rollout.ports.lease import Claim, Lease, described, loss, refusal

WHERE = "the simulated lease"


@dataclass(slots=True)
class LeasePlace:
    """
    Where the lease of a world is kept; it outlives the tool.

    *away_until_s*: nobody reaches it before. *holder_died*: the process that holds it is gone, and that can be seen. *take_over* is what
    somebody else does who doesn't ask; *forget* what a failover does that goes back to before anybody held it.
    """

    ttl_s: float = 30.0
    lease: Lease | None = None
    away_until_s: float = float("-inf")
    holder_died: bool = False

    def take_over(self, now_s: float, holder: str = "somebody@elsewhere", why: str = "resume") -> None:
        """Let somebody else have it, whoever holds it."""
        before = self.lease
        token = 1 if before is None else before.token + 1
        self.put(Claim(holder, why, DeployId("theirs")), now_s, token=token, taken_from="" if before is None else described(before))

    def forget(self) -> None:
        """Know of no lease any more."""
        self.lease = None

    def put(self, claim: Claim, now_s: float, *, token: int, taken_from: str) -> Lease:
        """Write it down."""
        self.holder_died = False
        self.lease = Lease(
            homeserver="simulated.localhost",
            holder=claim.holder,
            host="nowhere",
            pid=token,
            why=claim.why,
            deploy_id=claim.deploy_id,
            token=token,
            ttl_s=self.ttl_s,
            since_s=now_s,
            renewed_at_s=now_s,
            expires_at_s=now_s + self.ttl_s,
            held=True,
            free=False,
            taken_from=taken_from,
        )
        return self.lease


class SimulatedLease:
    """See ports.lease."""

    def __init__(self, place: LeasePlace, now_s: Callable[[], float]) -> None:
        self._place = place
        self._now_s = now_s
        self._mine: Lease | None = None

    @property
    def ttl_s(self) -> float:
        """See ports.lease."""
        return self._place.ttl_s

    def acquire(self, claim: Claim, timeout_s: float, *, above: int, take_over: bool) -> Lease:
        """See ports.lease."""
        found = self.read(timeout_s)
        if found is not None and not found.free and not take_over:
            raise refusal(found, WHERE)
        token = max(above, 0 if found is None else found.token) + 1
        taken_from = described(found) if found is not None and found.held else ""
        self._mine = self._place.put(claim, self._now_s(), token=token, taken_from=taken_from)
        return self._mine

    def renew(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        mine = self._mine
        if mine is None or mine.token != token:
            msg = f"lease {token} was never acquired here"
            raise ValueError(msg)
        found = self.read(timeout_s)
        if found is not None and found.token > token:
            raise TakenOverError("the lease is lost", where=WHERE, why=loss(found))
        now_s = self._now_s()
        self._mine = self._place.lease = replace(mine, renewed_at_s=now_s, expires_at_s=now_s + self._place.ttl_s)

    def release(self, token: int, timeout_s: float) -> None:
        """See ports.lease."""
        found = self.read(timeout_s)
        if found is not None and found.token == token:
            self._place.lease = replace(found, held=False)

    def read(self, timeout_s: float) -> Lease | None:
        """See ports.lease."""
        del timeout_s
        now_s, found = self._now_s(), self._place.lease
        if now_s < self._place.away_until_s:
            raise TransientDriverError("the place that keeps the lease can't be reached", where=WHERE)
        if found is None:
            return None
        return replace(found, free=not found.held or now_s >= found.expires_at_s or self._place.holder_died)
