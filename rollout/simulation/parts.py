"""What a simulated homeserver consists of: its workers, the holds at its proxy, and what happened to them."""

from dataclasses import dataclass
from enum import StrEnum

from rollout.model.ids import EffectNumber, ReleaseId, WorkerId


@dataclass(slots=True)
class SimulatedWorker:
    """
    One process and its place at the proxy: in *backend*, if it has one.

    *slowness* multiplies every latency and *error_ratio* is the share of 5xx, both by release; a release in *never_boots* exits at start,
    one in *hangs* runs but doesn't answer. *sessions* is how many are open while it is admitted.

    *boots_in_s* is how long its boot takes, if not as long as everybody's, and *next_boot_s* its next one; *hung* is this process, whatever
    its release; it is slow until *slow_until_s* as on a slow release. *taken*: we took it out, and it has not served since.
    *session_life_s* and *request_cpu_s* are its own, if not as everybody's.
    """

    activated: ReleaseId
    activated_at_s: float
    started_at_s: float | None
    runs: ReleaseId
    backend: str | None
    admitted: bool = True
    weight: int = 100
    changed_at_s: float = float("-inf")
    sessions: int = 10
    requests_per_s: float = 20.0
    served: float = 0.0
    errors: float = 0.0
    slow: float = 0.0
    cpu_s: float = 0.0
    served_until_s: float = 0.0
    boots_in_s: float | None = None
    next_boot_s: float | None = None
    woke_at_s: float = 0.0
    hung: bool = False
    slow_until_s: float = float("-inf")
    taken: bool = False
    session_life_s: float | None = None
    request_cpu_s: float | None = None

    @property
    def proxied(self) -> bool:
        """Tell whether the proxy knows it."""
        return self.backend is not None


class Deed(StrEnum):
    """What may happen to a worker."""

    DRAINED = "drained"
    ADMITTED = "admitted"
    HELD = "held"
    LET_GO = "let go"
    STOPPED = "stopped"
    STARTED = "started"
    CUT = "cut"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Happening:
    """
    What happened at *at_s*, and by which effect of ours; *number* is None when it happened by itself or by another hand.

    *runs* is the release of its process; *down_for_s* is how long it had not answered then, 0 while it *answers*. *sessions* is how many
    were cut. *out* are those who were out by our hand then, this one included.
    """

    at_s: float
    deed: Deed
    worker: WorkerId
    number: EffectNumber | None
    runs: ReleaseId
    down_for_s: float
    answers: bool
    sessions: int = 0
    weight: int = 0
    out: frozenset[WorkerId] = frozenset()


@dataclass(slots=True)
class Hold:
    """Requests of one backend wait: since when, for how long at most, and how many at most."""

    began_at_s: float
    hold_s: float
    hold_max: int


@dataclass(slots=True)
class AfterHolds:
    """What came of a backend's holds: *waiting* requests go on since *at_s*; *shed* and *late* are counted since the proxy started."""

    at_s: float = 0.0
    waiting: int = 0
    waiting_max: int = 0
    shed: int = 0
    late: int = 0
