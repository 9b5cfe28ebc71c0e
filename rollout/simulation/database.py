"""The port `database` without one: what goes on in it is what a test says."""

from dataclasses import dataclass, field, replace

from rollout.model.conditions import Connections, DatabaseConditions, IndexBuild, LockWait, Transaction
from rollout.model.errors import TransientDriverError
from rollout.model.gate import GuardReading
from rollout.model.sighting import SchemaSighting
from rollout.ports.clock import Clock
from rollout.ports.database import LISTED_MAX


@dataclass(slots=True)
class SimulatedDatabase:
    """
    See ports.database.

    *transactions* and *waits* grow older with the clock: the ages that they are put in with are those at *since_s*. With *silent* it
    answers nothing.
    """

    clock: Clock
    since_s: float = 0.0
    seen_schema: SchemaSighting = field(default_factory=lambda: SchemaSighting(94, 84, ()))
    users: tuple[str, ...] = ()
    connections: Connections = field(default_factory=lambda: Connections(used=20, max=100, reserved=3))
    transactions: list[Transaction] = field(default_factory=list)
    waits: list[LockWait] = field(default_factory=list)
    builds: list[IndexBuild] = field(default_factory=list)
    invalid_indexes: list[str] = field(default_factory=list)
    background_updates: list[str] = field(default_factory=list)
    server_version: int = 180006
    silent: bool = False

    def __post_init__(self) -> None:
        """Begin now."""
        self.since_s = self.clock.now_s()

    def schema(self, timeout_s: float) -> SchemaSighting:
        """See ports.database."""
        del timeout_s
        self._answer()
        return self.seen_schema

    def active_users(self, limit: int, timeout_s: float) -> tuple[str, ...]:
        """See ports.database."""
        del timeout_s
        self._answer()
        return self.users[:limit]

    def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
        """See ports.database."""
        del timeout_s
        oldest_s = max((self._aged(one.age_s) for one in self.transactions), default=0.0)
        values = {
            "lock_queue": float(len(self.waits)),
            "long_transaction_s": oldest_s,
            "connections_used": self.connections.used / self.connections.max,
        }
        return tuple(
            GuardReading(name, None if self.silent else value, "no answer" if self.silent else "") for name, value in values.items()
        )

    def conditions(self, older_than_s: float, timeout_s: float) -> DatabaseConditions:
        """See ports.database."""
        del timeout_s
        if self.silent:
            parts = ("connections", "transactions", "waits", "builds", "invalid_indexes", "background_updates", "server_version")
            return DatabaseConditions(unread=dict.fromkeys(parts, "no answer"))
        transactions = sorted((replace(one, age_s=self._aged(one.age_s)) for one in self.transactions), key=lambda one: -one.age_s)
        waits = (replace(one, age_s=None if one.age_s is None else self._aged(one.age_s)) for one in self.waits)
        return DatabaseConditions(
            server_version=self.server_version,
            connections=self.connections,
            transactions=tuple(one for one in transactions if one.age_s >= older_than_s)[:LISTED_MAX],
            waits=tuple(one for one in waits if one.age_s is None or one.age_s >= older_than_s)[:LISTED_MAX],
            builds=tuple(self.builds),
            invalid_indexes=tuple(self.invalid_indexes),
            background_updates=tuple(self.background_updates),
        )

    def _aged(self, age_s: float) -> float:
        return age_s + self.clock.now_s() - self.since_s

    def _answer(self) -> None:
        if self.silent:
            raise TransientDriverError("no answer", where="database")
