"""
Which event arrived where, how often.

Every event that was sent, and whose sending was answered, must arrive exactly once at every other member of its room that listens: a user,
or the peer on behalf of all of its own.
"""

from collections import Counter
from collections.abc import Iterable, Mapping


class Deliveries:
    """Keeps what was sent and what was seen; *members* are the users of each room that listen."""

    def __init__(self, members: Mapping[str, Iterable[str]]) -> None:
        self._members = {room: frozenset(users) for room, users in members.items()}
        self._sent: dict[str, tuple[str, str]] = {}
        self._seen: Counter[tuple[str, str]] = Counter()

    def sent(self, event: str, room: str, sender: str) -> None:
        """An event was sent, and the homeserver has answered with its id. Where nobody listens it can't be missed."""
        if room in self._members:
            self._sent[event] = (room, sender)

    def seen(self, event: str, user: str) -> None:
        """An event has arrived at a user."""
        self._seen[event, user] += 1

    @property
    def sent_count(self) -> int:
        """How many events were sent."""
        return len(self._sent)

    def _expected(self) -> Iterable[tuple[str, str]]:
        for event, (room, sender) in self._sent.items():
            for user in self._members.get(room, frozenset()) - {sender}:
                yield event, user

    def missing(self) -> list[tuple[str, str]]:
        """List (event, user) that should have been seen and were not."""
        return sorted(pair for pair in self._expected() if not self._seen[pair])

    def lost(self) -> list[str]:
        """List the events that did not arrive at somebody."""
        return sorted({event for event, _ in self.missing()})

    def duplicates(self) -> list[tuple[str, str]]:
        """List (event, user) that arrived more than once."""
        return sorted(pair for pair in self._expected() if self._seen[pair] > 1)
