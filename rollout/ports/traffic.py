"""The proxy in front of the homeserver."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from rollout.model.ids import WorkerId
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting, ProxyLimits, ProxySighting

__all__ = ["HoldBound", "Server", "Traffic"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where a worker stands at the proxy."""

    backend: str
    name: str


class Traffic(Protocol):
    """
    Take servers out of traffic and back. `drain` lets open sessions end; nothing is cut. `hold` is for a server without a sibling: what
    comes in meanwhile waits in the proxy, within a bound that the proxy itself keeps. Repeating a call does nothing new.

    A server or backend that the proxy doesn't have is a PermanentDriverError; a proxy that doesn't answer in time an OutcomeUnknownError
    for `drain` and `admit` and a TransientDriverError for `look`.
    """

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See all of them in one round trip. Those that the proxy doesn't know are left out."""
        ...

    def known(self, timeout_s: float) -> frozenset[Server]:
        """Name every server that the proxy has, to say what may have been meant by one that it hasn't. Raises as `look` does."""
        ...

    def drain(self, server: Server, timeout_s: float) -> None:
        """Give it no new sessions."""
        ...

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """Let it take new sessions, at *weight* percent (1–100) of its full weight."""
        ...

    def hold(self, server: Server, bound: HoldBound, timeout_s: float) -> None:
        """
        Let new requests for the server's backend wait in the proxy; those under way go on. Holding again renews nothing.

        PermanentDriverError when the proxy has no hold for that backend; OutcomeUnknownError as for `drain`.
        """
        ...

    def let_go(self, server: Server, timeout_s: float) -> None:
        """Let the waiting requests, and all new ones, through. One that isn't held is no error."""
        ...

    def pools(self, backends: Collection[str], timeout_s: float) -> dict[str, PoolSighting]:
        """See backends. Those that the proxy doesn't have are left out."""
        ...

    def limits(self, timeout_s: float) -> ProxyLimits:
        """See how much the proxy itself can take."""
        ...
