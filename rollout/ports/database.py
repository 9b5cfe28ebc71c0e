"""The homeserver's database, read only."""

from typing import Protocol

from rollout.model.conditions import DatabaseConditions
from rollout.model.gate import GuardReading
from rollout.model.sighting import SchemaSighting

# Of a queue of thousands the first few say what it is; `guards` counts them all.
LISTED_MAX = 50


class Database(Protocol):
    """Look at the schema and at what would make a restart worse. Read-only, with a short statement timeout."""

    def schema(self, timeout_s: float) -> SchemaSighting:
        """Read version, compatibility floor and applied deltas. Raises TransientDriverError when it can't be read."""
        ...

    def active_users(self, limit: int, timeout_s: float) -> tuple[str, ...]:
        """
        List full user ids, those first who were seen last; no guests, nobody who is deactivated or belongs to an application service.

        Raises TransientDriverError when they can't be read.
        """
        ...

    def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
        """
        Read lock_queue (waiting requests), long_transaction_s (the oldest), connections_used (a fraction). Unreadable ones have the value
        None; never raises.
        """
        ...

    def conditions(self, older_than_s: float, timeout_s: float) -> DatabaseConditions:
        """
        Say what goes on: connections, transactions and waiting requests that are older than *older_than_s* (at most LISTED_MAX of each),
        index builds, and background updates that have not ended.

        No values of anybody's query are repeated. What can't be read is None, and *unread* says why; never raises.
        """
        ...
