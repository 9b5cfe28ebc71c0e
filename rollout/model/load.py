"""How busy workers are, and what becomes of that while one of them is out."""

from dataclasses import dataclass

from rollout.model.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Load:
    """
    How busy one worker was.

    *utilisation* has one figure per window, in CPU seconds per second: Synapse runs in one thread, so 1.0 is all there is. Over all of
    them *requests* were completed, long-polls among them, for *request_cpu_s* CPU seconds each; *p95_s* is the 95th percentile of ordinary
    ones, None where there were too few. *source* says where this is from. *requests_per_s* is None where nobody knows how long that took,
    and so is *ordinary_per_s*, without the long-polls. *failed* is the share of them that ended with a 5xx; None where nobody knows.
    """

    utilisation: tuple[float, ...]
    requests: float
    request_cpu_s: float
    p95_s: float | None
    source: str
    requests_per_s: float | None = None
    ordinary_per_s: float | None = None
    failed: float | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """
    What users asked of one worker: ordinary requests and long-polls a second, and which share of them *failed* (None: nobody knows, or they
    were too few to tell).
    """

    requests_per_s: float
    polls_per_s: float
    failed: float | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """
    How a pool's requests find their worker: hashed, or to any of them. *points* are those of one server on the hash ring; HAProxy's for the
    least weight where nobody says how many there are.
    """

    hashed: bool = True
    points: int = 16


@dataclass(frozen=True, slots=True)
class Headroom:
    """
    What is left while a worker is out: the most that one of its siblings then carries.

    *sibling* uses *now* CPU seconds per second, and then *then*, at most *then_max* (the upper 95 % bound). *p95_ratio* is how many times
    as long the siblings' requests then take at most (95th percentile), None where a queue would only grow. *how* says who inherits,
    *source* where the figures are from. Where nothing can be said, *unknown* says why, and no other field means anything.
    """

    sibling: WorkerId | None = None
    now: float = 0.0
    then: float = 0.0
    then_max: float = 0.0
    p95_ratio: float | None = 1.0
    how: str = ""
    source: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class CapacityLimits:
    """
    What siblings may come to while a worker is out: *utilisation_max* CPU seconds per second (compared with the upper bound) and
    *p95_ratio_max* times as long (None: however long); above *warn_above* it is said. *require*: nobody goes out whose siblings' load isn't
    known.
    """

    utilisation_max: float = 0.85
    p95_ratio_max: float | None = 1.5
    warn_above: float = 0.70
    require: bool = False
