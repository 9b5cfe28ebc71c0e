"""What tests can do to the stand-in API server."""

from typing import Protocol


class Faults(Protocol):
    """Each is done when its method returns, unless it says otherwise."""

    def away(self, for_s: float) -> None:
        """Refuse connections, and end those that are open, for *for_s* seconds; returns at once. Controllers stand still meanwhile."""

    def restart(self) -> None:
        """End all connections and begin anew, with all data and their resource versions."""

    def throttle(self, requests: int, retry_after_s: int) -> None:
        """Answer the next *requests* requests that are not the node's or a controller's with 429 and Retry-After."""

    def drop_watches(self) -> None:
        """End all watches as a server does whose time for them is over."""

    def compact(self) -> None:
        """Forget all history: a watch from an earlier resource version, and the rest of a list that was begun, are answered with 410."""

    def requests(self) -> list[tuple[str, str]]:
        """Return method and path (with its query) of all requests until now that are not the node's or a controller's."""
