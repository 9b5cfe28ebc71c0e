"""What a restart or a migration would make worse: what goes on in the database, and how much room is left on disk and in processes."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Transaction:
    """
    One that is open: whose (*pid*, and *application* as it calls itself), for how long, and the first words of what it did last.

    *query* holds words alone, no values: those may be anybody's secrets.
    """

    pid: int
    application: str
    state: str
    age_s: float
    query: str


@dataclass(frozen=True, slots=True)
class LockWait:
    """
    A request that waits for a lock on *relation* ("" where that can't be told), behind the processes *blocked_by*.

    *age_s* is how long its query has run; None where the role that looks may not see it.
    """

    pid: int
    application: str
    relation: str
    mode: str
    blocked_by: tuple[int, ...]
    age_s: float | None


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """An index that is being built on *relation*."""

    pid: int
    relation: str
    index: str
    phase: str


@dataclass(frozen=True, slots=True)
class Connections:
    """How many clients are connected, how many may be, and how many of these places are kept for others than the homeserver."""

    used: int
    max: int
    reserved: int

    @property
    def free(self) -> int:
        """Return how many more the homeserver may open."""
        return self.max - self.reserved - self.used


@dataclass(frozen=True, slots=True)
class DatabaseConditions:
    """
    What goes on in the database. Each part is None when it could not be read; *unread* says why, by the part's name.

    *server_version* is as PostgreSQL counts (180006 is 18.6). *transactions* are those that are older than was asked for, the oldest first;
    *waits* likewise. *invalid_indexes* are not being built any more. *background_updates* are those that have not ended, in their order.
    """

    server_version: int | None = None
    connections: Connections | None = None
    transactions: tuple[Transaction, ...] | None = None
    waits: tuple[LockWait, ...] | None = None
    builds: tuple[IndexBuild, ...] | None = None
    invalid_indexes: tuple[str, ...] | None = None
    background_updates: tuple[str, ...] | None = None
    unread: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes are free where a release would be installed, how many it needs there, and how that is known."""

    free_bytes: int
    needed_bytes: int
    basis: str


@dataclass(frozen=True, slots=True)
class FilesUsed:
    """
    The file handles of one process: how many are open, how many may be, and by how many a second they have grown over *measured_s*.

    *growth_per_s* is None where the process was not measured for long enough to say.
    """

    open: float
    max: float
    measured_s: float = 0.0
    growth_per_s: float | None = None

    def share_in(self, seconds: float) -> float | None:
        """Return the share of them that will be open in so many *seconds* if they go on growing; None where that isn't known."""
        return None if self.growth_per_s is None else (self.open + max(0.0, self.growth_per_s) * seconds) / self.max
