"""The proxy in front of the homeserver."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rollout.model.ids import WorkerId
from rollout.model.sighting import ProxySighting


@dataclass(frozen=True, slots=True)
class Server:
    """Where a worker stands at the proxy."""

    backend: str
    name: str


class Traffic(Protocol):
    """
    Take servers out of traffic and back. `drain` lets open sessions end; nothing is cut. Repeating a call does nothing new.

    A server or backend that the proxy doesn't have is a PermanentDriverError; a proxy that doesn't answer in time an OutcomeUnknownError
    for `drain` and `admit` and a TransientDriverError for `look`.
    """

    def look(self, servers: Mapping[WorkerId, Server], timeout_s: float) -> dict[WorkerId, ProxySighting]:
        """See all of them in one round trip. Those that the proxy doesn't know are left out."""
        ...

    def drain(self, server: Server, timeout_s: float) -> None:
        """Give it no new sessions."""
        ...

    def admit(self, server: Server, weight: int, timeout_s: float) -> None:
        """Let it take new sessions, at *weight* percent (1–100) of its full weight."""
        ...
