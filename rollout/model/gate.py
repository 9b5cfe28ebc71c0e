"""What a gate looks at and what it can rule: tallies, rulings, verdicts."""

import operator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest
from typing import NamedTuple

from rollout.model.ids import GateId, WorkerId

# The bucket edges of synapse_http_server_response_time_seconds (measured on 1.163.2); the last bucket is everything above.
LATENCY_EDGES_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_NONE = (0.0,) * (len(LATENCY_EDGES_S) + 1)
# A pusher forgets with its process for how long it was to leave a gateway alone that is away: an old one tries it every hour, a new one
# after 1, 3, 7 ... 255, 511, 1023 s (httppusher.py of 1.163.2 doubles each wait), and all that are away fail at about the same moments.
# That says nothing about the release, so pushes count after the ninth of these.
PUSHES_FROM_S = 600.0


class Metric(StrEnum):
    """Evidence that a gate can test. Units: see each."""

    LATENCY_P95 = "latency_p95_s"  # seconds; ordinary servlets only, long-polls left out
    ERRORS = "error_ratio"  # fraction of completed ordinary requests that ended in 5xx
    REQUEST_CPU = "request_cpu_s"  # CPU seconds per completed ordinary request
    POLL_CPU = "poll_cpu_s"  # CPU seconds per completed long-poll request
    POLL_DB = "poll_db_s"  # database seconds per completed long-poll request
    POLL_SCHEDULING = "poll_scheduling_s"  # seconds waiting for a database connection, per completed long-poll request
    CANARY_P95 = "canary_p95_s"  # seconds; our own requests straight to the worker's port
    CANARY_FAILURES = "canary_failure_ratio"  # fraction of our own requests that did not end in 200
    PROXY_FAILURES = "proxy_failure_ratio"  # fraction of the requests that the proxy gave it and that it answered with 5xx or not at all
    PUSH_FAILURES = "push_failure_ratio"  # fraction of the pushes that a gateway didn't take, from PUSHES_FROM_S after its process's start
    WORK = "work_per_s"  # units of the role's own work done per second (events persisted, transactions sent, pushes)
    BACKLOG = "backlog"  # what is waiting to be done by this role, in its own unit


class Ruling(StrEnum):
    """What a gate says. Only PASS lets the rollout go on; only FAIL takes it back."""

    PASS = "pass"  # noqa: S105  (a ruling, not a password)
    FAIL = "fail"
    PENDING = "pending"
    INCONCLUSIVE = "inconclusive"
    UNMEASURABLE = "unmeasurable"


class Stratum(NamedTuple):
    """
    The requests of one kind: ordinary ones (*requests*, with *latency* as in Tally, cut off after the last bucket that holds one), or
    long-polls (*polls*), and the seconds of CPU, of the database and of waiting for a connection to it that they took together.

    The *name* is the homeserver's own, such as a servlet's: what is compared has the same name.
    """

    name: str
    requests: float = 0.0
    polls: float = 0.0
    cpu_s: float = 0.0
    db_s: float = 0.0
    scheduling_s: float = 0.0
    latency: tuple[float, ...] = ()


@dataclass(frozen=True)  # without slots, for quick copies: every sweep adds to some of each worker
class Tally:
    """
    What one worker did between *since_s* and *until_s*: sums, so that two tallies that touch can be added.

    *latency* has one count per edge of LATENCY_EDGES_S and one for everything above, not cumulative, of ordinary servlets. *backlog* is a
    level, not a sum: the last one seen (None where the role has none). *cpu_s* is the whole process's; *replication_failures* are requests
    to other workers that failed (Synapse tries most of them again). *proxied* requests were given to it by the proxy, by that one's own
    count, and *proxy_failures* of them had no good answer; both are 0 where the proxy doesn't count, or couldn't be seen.
    *push_failures* of the *pushes* were not taken by their gateways; both are 0 in the first PUSHES_FROM_S of a process.
    *bought* of the *canaries* were sent for evidence (model/buying.py), and count among *requests* or *polls* like
    anybody's.

    *strata* tell the requests apart by kind, sorted by name: those that most are of, so that they add up to no more than the other fields.
    None where some are not told apart at all.
    """

    since_s: float
    until_s: float
    requests: float = 0.0
    errors: float = 0.0
    latency: tuple[float, ...] = _NONE
    request_cpu_s: float = 0.0
    polls: float = 0.0
    poll_cpu_s: float = 0.0
    poll_db_s: float = 0.0
    poll_scheduling_s: float = 0.0
    canaries: int = 0
    canary_failures: int = 0
    canary_latency: tuple[float, ...] = _NONE
    work: float = 0.0
    cpu_s: float = 0.0
    replication_failures: float = 0.0
    backlog: float | None = None
    proxied: float = 0.0
    proxy_failures: float = 0.0
    pushes: float = 0.0
    push_failures: float = 0.0
    bought: int = 0
    strata: tuple[Stratum, ...] = ()

    def __add__(self, later: "Tally") -> "Tally":
        """Join with a *later* tally of the same worker."""
        joined = object.__new__(Tally)
        # As in changed.py: this is what most of a simulated rollout's time would go into.
        fields = {
            "since_s": min(self.since_s, later.since_s),
            "until_s": max(later.until_s, self.until_s),
            "requests": self.requests + later.requests,
            "errors": self.errors + later.errors,
            "latency": _add(self.latency, later.latency),
            "request_cpu_s": self.request_cpu_s + later.request_cpu_s,
            "polls": self.polls + later.polls,
            "poll_cpu_s": self.poll_cpu_s + later.poll_cpu_s,
            "poll_db_s": self.poll_db_s + later.poll_db_s,
            "poll_scheduling_s": self.poll_scheduling_s + later.poll_scheduling_s,
            "canaries": self.canaries + later.canaries,
            "canary_failures": self.canary_failures + later.canary_failures,
            "canary_latency": _add(self.canary_latency, later.canary_latency),
            "work": self.work + later.work,
            "cpu_s": self.cpu_s + later.cpu_s,
            "replication_failures": self.replication_failures + later.replication_failures,
            "backlog": self.backlog if later.backlog is None else later.backlog,
            "proxied": self.proxied + later.proxied,
            "proxy_failures": self.proxy_failures + later.proxy_failures,
            "pushes": self.pushes + later.pushes,
            "push_failures": self.push_failures + later.push_failures,
            "bought": self.bought + later.bought,
            "strata": _together(self, later) if self.strata or later.strata else (),
        }
        object.__setattr__(joined, "__dict__", fields)
        return joined


def _add(left: tuple[float, ...], right: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(operator.add, left, right)) if right != _NONE else left


def _together(one: Tally, other: Tally) -> tuple[Stratum, ...]:
    """Add strata up; none are left where requests of one of the two are not told apart."""
    if not (is_told_apart(one) and is_told_apart(other)):
        return ()
    left, right = one.strata, other.strata
    if [stratum.name for stratum in left] == [stratum.name for stratum in right]:
        return tuple(map(_joined, left, right))
    named = {stratum.name: stratum for stratum in left}
    for stratum in right:
        named[stratum.name] = _joined(named[stratum.name], stratum) if stratum.name in named else stratum
    return tuple(sorted(named.values()))


def is_told_apart(tally: Tally) -> bool:
    """Tell whether the strata of a tally say of what kind its requests are; of none there is nothing to tell."""
    return bool(tally.strata) or not (tally.requests or tally.polls)


def _joined(one: Stratum, other: Stratum) -> Stratum:
    latency = tuple([mine + its for mine, its in zip_longest(one.latency, other.latency, fillvalue=0.0)])
    return Stratum(
        one.name,
        one.requests + other.requests,
        one.polls + other.polls,
        one.cpu_s + other.cpu_s,
        one.db_s + other.db_s,
        one.scheduling_s + other.scheduling_s,
        latency,
    )


# Odds are asked for that would do for a quarter of the budget: what is weighed are hypotheses of a model, and luck has ways that it lacks.
MODEL_MARGIN = 4.0


@dataclass(frozen=True, slots=True)
class Gate:
    """
    One test of one metric on one worker, with its thresholds resolved from the playbook. Same units as GateEntry.

    *odds* makes it sequential (gating/sequential.py): FAIL is said when they are reached. None: a threshold (gating/threshold.py).
    One that doesn't act rules, and nobody heeds it.
    """

    id: GateId
    metric: Metric
    ratio_max: float | None
    slack: float
    max: float | None
    samples_min: int
    soak_s: float
    fresh_s: float
    deadline_s: float
    on_inconclusive: str
    on_unmeasurable: str
    odds: float | None = None
    acts: bool = True


@dataclass(frozen=True, slots=True)
class Recovery:
    """
    When a restarted worker carries its load again. Same units as RecoveryEntry.

    Looked at is one window of *window_s* after the other: *share_min* of its pool's median rate of completed requests, and CPU seconds per
    completed request of at most *level_ratio_max* times its own before.
    """

    share_min: float
    level_ratio_max: float
    recovery_s: float
    deadline_s: float
    window_s: float
    samples_min: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    The numbers behind a ruling: *samples* counted, *observed* against *threshold*, and what it was compared with (all in the metric's
    unit; a sequential gate's are ratios to the worker's own past, or shares). *curve* names the recovery that fitted best, if any was
    looked for (gating/curves.py).
    """

    samples: float
    observed: float | None
    baseline: float | None
    threshold: float | None
    compared_with: str = ""
    curve: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ruling with its reason (one sentence without the worker's name) and its evidence."""

    gate: GateId
    ruling: Ruling
    because: str
    evidence: Evidence


# Guards that the workers' metrics pages tell, so that they need no database.
GUARDS_OF_PAGES = frozenset(
    {"files_used", "files_projected", "reactor_tick_s", "replication_lag_s", "in_flight", Metric.LATENCY_P95.value, Metric.ERRORS.value}
)


@dataclass(frozen=True, slots=True)
class GuardReading:
    """
    One look at a guard: *value* in the guard's own unit, None when it could not be measured (and *detail* says why).

    *short* tells that nothing is wrong with that but that it was measured too shortly so far: measuring on will tell.
    """

    guard: str
    value: float | None
    detail: str = ""
    short: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What the metrics of one sweep said: a tally per worker, and why there is none for the others."""

    tallies: dict[WorkerId, Tally] = field(default_factory=dict)
    unmeasured: dict[WorkerId, str] = field(default_factory=dict)
