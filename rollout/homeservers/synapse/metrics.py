"""
Synapse's metrics pages as counters, and the difference of two as a tally.

Names as on pages of 1.162.0 and 1.163.2. Synapse makes a family's line on first use, so a worker that has served nothing has no histogram
yet. Absent lines count as zero on a page that shows who wrote it (`synapse_build_info` and the process's start); without these, nothing on
it is believed. A zero from a family that a release has renamed does no harm: no traffic is never a pass. Where a page contradicts itself
(long-polls counted, but nothing that they cost), that is said instead of a number.

Requests are told apart by servlet, and syncs also by their tag (a first one costs a hundred times as much as one that waits): that users
ask for other things makes nothing slower. A page without the label tells nothing apart.

Two kinds of request are no traffic: health checks, which the proxy sends every second or so to a worker that is out as well, and our own
canaries to client workers, which for that reason go to a servlet that hardly anybody else asks.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import zip_longest

from rollout.homeservers.synapse.canaries import CLIENT_CANARY_SERVLET
from rollout.model.gate import LATENCY_EDGES_S, PUSHES_FROM_S, Stratum, Tally
from rollout.model.sample import Sample

LONG_POLLS = frozenset({"SyncRestServlet", "SlidingSyncRestServlet", "EventStreamRestServlet"})
_NO_TRAFFIC = frozenset({"HealthResource", "MetricsResource", CLIENT_CANARY_SERVLET})

# Labels {method, servlet, tag, code}; a 5xx is told by its code.
_TIME = "synapse_http_server_response_time_seconds"
# Labels {method, servlet, tag}; counted when a request completes, like the histogram.
_USER_CPU = "synapse_http_server_response_ru_utime_seconds_total"
_SYSTEM_CPU = "synapse_http_server_response_ru_stime_seconds_total"
_DB = "synapse_http_server_response_db_txn_duration_seconds_total"
_SCHEDULING = "synapse_http_server_response_db_sched_duration_seconds_total"
_COSTS = (_USER_CPU, _SYSTEM_CPU, _DB, _SCHEDULING)

# Labels {name, code}: what a worker asked of others over replication; code is the status, or ERR when there was no answer.
_REPLICATION = "synapse_outgoing_replication_requests_total"

_PERSISTED = "synapse_storage_events_persisted_events_total"
_SENT = "synapse_federation_client_sent_transactions_total"
_PUSHED = "synapse_http_httppusher_http_pushes_processed_total"
# Whatever a gateway answers but 200, and each time anew: what wasn't taken is tried again. One that turns a push's key down takes it.
_PUSHES_FAILED = "synapse_http_httppusher_http_pushes_failed_total"
# What each role does besides answering requests, one unit each. A federation sender looks through every new event, whether or not somebody
# elsewhere is to have it, and sends transactions: both are its work, or the sender of a homeserver that keeps to itself would seem dead.
_WORK = frozenset(
    {
        _PERSISTED,
        _SENT,
        "synapse_federation_client_events_processed_total",
        _PUSHED,
        "synapse_handlers_appservice_events_processed_total",
    }
)
# Nothing is told but their sums.
_TOTALS = _WORK | {_PUSHES_FAILED}
_PENDING_PDUS = "synapse_federation_transaction_queue_pending_pdus"
# A gauge that has a line only for servlets with requests under way, long-polls among them.
_IN_FLIGHT = "synapse_http_server_in_flight_requests_count"
# With these, other workers wait for an event persister.
_PERSISTING = frozenset({"ReplicationSendEventsRestServlet", "ReplicationFederationSendEventsRestServlet"})

_BUILD = "synapse_build_info"
_STARTED = "process_start_time_seconds"
_CPU = "process_cpu_seconds_total"
_OPEN_FILES = "process_open_fds"
_FILES_MAX = "process_max_fds"

# A histogram: for how long the reactor, Synapse's one thread, was busy each time before it looked for new work.
_TICK = "python_twisted_reactor_tick_time"
TICK_EDGES_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# A gauge with label stream_name: how far this process knows a stream, whoever writes it; positive for those that count down, too.
_POSITION = "synapse_storage_stream_current_position"

_PROCESS = frozenset({_STARTED, _CPU, _OPEN_FILES, _FILES_MAX})
PREFIXES: tuple[str, ...] = (
    *(_TIME, *_COSTS, *sorted(_TOTALS), _PENDING_PDUS, _IN_FLIGHT, _REPLICATION),
    *(_BUILD, *sorted(_PROCESS), f"{_TICK}_bucket", _POSITION),
)

_EDGES = (*LATENCY_EDGES_S, math.inf)
_NOTHING = (0.0,) * len(_EDGES)
# A worker is asked by some dozen servlets. More would make journals long; what is over is known by the sums alone.
STRATA_MAX = 32
# Digits after the point, of seconds: what a request costs is some hundredths of a millisecond at least.
_COST_DIGITS = 6
# Sums of the same numbers may differ in their last digits.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Counters:
    """
    What one process has done since *started_at_s* (seconds since the epoch, by the clock of its host).

    *requests*, *latency* (not cumulative; see Tally) and *request_cpu_s* are of ordinary requests; *errors* are the 5xx of these and of
    long-polls alike: an error is one however long it took. *cpu_s* is the whole process's. *pushes_taken* by their gateways are part of
    the *work*; *push_failures* are tried again. *replication_failures* are requests to other workers without a good answer. *backlog* is
    what waits to be persisted or sent now, None where nothing of the kind is done. File handles are None where the host doesn't tell.
    *in_flight* is how many ordinary requests are under way now; None where the page has no line of any, a long-poll's included, which may
    be for want of requests. *ticks* counts turns of the reactor by TICK_EDGES_S, those above the last one at the end; empty where the page
    has none. *positions* are how far it knows each stream; one that it has not heard of since it was started is left out. *strata* are all
    servlets that were asked, none where the page doesn't tell them apart.
    """

    version: str
    started_at_s: float
    requests: float = 0.0
    errors: float = 0.0
    latency: tuple[float, ...] = _NOTHING
    request_cpu_s: float = 0.0
    polls: float = 0.0
    poll_cpu_s: float = 0.0
    poll_db_s: float = 0.0
    poll_scheduling_s: float = 0.0
    work: float = 0.0
    pushes_taken: float = 0.0
    push_failures: float = 0.0
    cpu_s: float = 0.0
    replication_failures: float = 0.0
    backlog: float | None = None
    open_files: float | None = None
    files_max: float | None = None
    in_flight: float | None = None
    ticks: tuple[float, ...] = ()
    positions: Mapping[str, float] = field(default_factory=dict)
    strata: Mapping[str, Stratum] = field(default_factory=dict)


@dataclass(slots=True)
class _Kind:
    """The requests of one stratum."""

    requests: float = 0.0
    polls: float = 0.0
    reached: dict[float, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Sums:
    requests: float = 0.0
    errors: float = 0.0
    polls: float = 0.0
    reached: dict[float, float] = field(default_factory=dict)
    poll_costs: dict[str, float] = field(default_factory=dict)
    request_cpu_s: float = 0.0
    replication_failures: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)
    pending: float | None = None
    persisting: float = 0.0
    in_flight: float | None = None
    process: dict[str, float] = field(default_factory=dict)
    ticks: dict[float, float] = field(default_factory=dict)
    positions: dict[str, float] = field(default_factory=dict)
    version: str = ""
    kinds: dict[str, _Kind] = field(default_factory=dict)
    tells_apart: bool = True

    def kind(self, labels: Mapping[str, str]) -> _Kind:
        servlet = labels.get("servlet", "")
        self.tells_apart = self.tells_apart and servlet != ""
        name = f"{servlet} {labels.get('tag', '')}".rstrip() if servlet in LONG_POLLS else servlet
        return self.kinds.setdefault(name, _Kind())


def _plain(version: str) -> str:
    """Leave out the branch and commit that Synapse adds when it is installed inside a git checkout: `1.163.2 (b=main,3905dc7)`."""
    return version.partition(" ")[0]


def read_version(samples: Iterable[Sample]) -> str | None:
    """Return the version that a process reports of itself; None when the page doesn't say."""
    return next((_plain(sample.labels["version"]) for sample in samples if sample.name == _BUILD and sample.labels.get("version")), None)


def read_counters(samples: Iterable[Sample]) -> Counters | str:
    """Read a page; a sentence says why it can't be believed. Never raises."""
    sums = _Sums()
    for sample in samples:
        if problem := _add(sums, sample):
            return problem
    return _contradiction(sums) or Counters(
        version=sums.version,
        started_at_s=sums.process[_STARTED],
        requests=sums.requests,
        errors=sums.errors,
        latency=_apart(sums.reached),
        request_cpu_s=sums.request_cpu_s,
        polls=sums.polls,
        poll_cpu_s=sums.poll_costs.get(_USER_CPU, 0.0) + sums.poll_costs.get(_SYSTEM_CPU, 0.0),
        poll_db_s=sums.poll_costs.get(_DB, 0.0),
        poll_scheduling_s=sums.poll_costs.get(_SCHEDULING, 0.0),
        work=sum(sums.totals.get(name, 0.0) for name in _WORK),
        pushes_taken=sums.totals.get(_PUSHED, 0.0),
        push_failures=sums.totals.get(_PUSHES_FAILED, 0.0),
        cpu_s=sums.process.get(_CPU, 0.0),
        replication_failures=sums.replication_failures,
        backlog=_backlog(sums),
        open_files=sums.process.get(_OPEN_FILES),
        files_max=sums.process.get(_FILES_MAX),
        in_flight=sums.in_flight,
        ticks=_ticks(sums.ticks),
        positions=sums.positions,
        strata={name: _stratum(name, kind) for name, kind in sums.kinds.items()} if sums.tells_apart else {},
    )


def _stratum(name: str, kind: _Kind) -> Stratum:
    return Stratum(
        name,
        kind.requests,
        kind.polls,
        kind.costs.get(_USER_CPU, 0.0) + kind.costs.get(_SYSTEM_CPU, 0.0),
        kind.costs.get(_DB, 0.0),
        kind.costs.get(_SCHEDULING, 0.0),
        _apart(kind.reached) if kind.reached else (),
    )


def tally(earlier: Counters, later: Counters, since_s: float, until_s: float) -> Tally | str:
    """
    Return what was done between two pages of one worker, read at *since_s* and *until_s*; a sentence when that can't be known.

    After a reset (another process, or a counter that went back) everything counts that the process did, if it started in between.
    """
    if not since_s < until_s:
        return "its two metrics pages were not read one after the other"
    if later.started_at_s != earlier.started_at_s or _went_back(earlier, later):
        if not since_s <= later.started_at_s <= until_s:
            return "its counters began anew, but its process did not start between the two measurements"
        earlier = Counters(version=later.version, started_at_s=later.started_at_s)
    taken, failed = _gain(earlier.pushes_taken, later.pushes_taken), _gain(earlier.push_failures, later.push_failures)
    tells_of_pushes = since_s >= later.started_at_s + PUSHES_FROM_S
    return Tally(
        since_s=since_s,
        until_s=until_s,
        requests=_gain(earlier.requests, later.requests),
        errors=_gain(earlier.errors, later.errors),
        latency=tuple(map(_gain, earlier.latency, later.latency)),
        request_cpu_s=_gain(earlier.request_cpu_s, later.request_cpu_s),
        polls=_gain(earlier.polls, later.polls),
        poll_cpu_s=_gain(earlier.poll_cpu_s, later.poll_cpu_s),
        poll_db_s=_gain(earlier.poll_db_s, later.poll_db_s),
        poll_scheduling_s=_gain(earlier.poll_scheduling_s, later.poll_scheduling_s),
        work=_gain(earlier.work, later.work),
        cpu_s=_gain(earlier.cpu_s, later.cpu_s),
        replication_failures=_gain(earlier.replication_failures, later.replication_failures),
        backlog=later.backlog,
        pushes=taken + failed if tells_of_pushes else 0.0,
        push_failures=failed if tells_of_pushes else 0.0,
        strata=_strata_between(earlier.strata, later.strata),
    )


def _strata_between(earlier: Mapping[str, Stratum], later: Mapping[str, Stratum]) -> tuple[Stratum, ...]:
    """Return what was asked in between, of at most STRATA_MAX kinds."""
    grown = [_grown(earlier.get(name, Stratum(name)), now) for name, now in later.items() if now != earlier.get(name)]
    asked = [stratum for stratum in grown if stratum.requests or stratum.polls]
    most = sorted(asked, key=lambda stratum: stratum.requests + stratum.polls, reverse=True)[:STRATA_MAX]
    return tuple(sorted(most))


def _grown(before: Stratum, now: Stratum) -> Stratum:
    latency = [_gain(one, other) for one, other in zip_longest(before.latency, now.latency, fillvalue=0.0)]
    while latency and not latency[-1]:
        latency.pop()
    return Stratum(
        now.name,
        _gain(before.requests, now.requests),
        _gain(before.polls, now.polls),
        round(_gain(before.cpu_s, now.cpu_s), _COST_DIGITS),
        round(_gain(before.db_s, now.db_s), _COST_DIGITS),
        round(_gain(before.scheduling_s, now.scheduling_s), _COST_DIGITS),
        tuple(latency),
    )


def _add(sums: _Sums, sample: Sample) -> str:  # noqa: C901  (one row a family)
    """Take one line in; a sentence when its value can't be one."""
    name, labels, value = sample.name, sample.labels, sample.value
    servlet = labels.get("servlet", "")
    if not (math.isfinite(value) and value >= 0):
        return f"{name} is {value}"
    if name.startswith(_TIME):
        return "" if servlet in _NO_TRAFFIC else _add_time(sums, name.removeprefix(_TIME), labels.get("le", ""), sample)
    if name in _COSTS and servlet in LONG_POLLS:
        sums.poll_costs[name] = sums.poll_costs.get(name, 0.0) + value
        _add_cost(sums.kind(labels), name, value)
    elif name in {_USER_CPU, _SYSTEM_CPU} and servlet not in _NO_TRAFFIC:
        sums.request_cpu_s += value
        _add_cost(sums.kind(labels), name, value)
    elif name == _REPLICATION and not labels.get("code", "").startswith("2"):
        sums.replication_failures += value
    elif name in _TOTALS:
        sums.totals[name] = sums.totals.get(name, 0.0) + value
    elif name == _PENDING_PDUS:
        sums.pending = (sums.pending or 0.0) + value
    elif name == _IN_FLIGHT:
        _add_in_flight(sums, servlet, value)
    elif name == _BUILD:
        sums.version = _plain(labels.get("version", ""))
    elif name in _PROCESS:
        sums.process[name] = value
    elif name == f"{_TICK}_bucket":
        sums.ticks[_edge(labels.get("le", ""))] = value
    elif name == _POSITION and value > 0:
        sums.positions[labels.get("stream_name", "")] = value
    return ""


def _add_cost(kind: _Kind, name: str, value: float) -> None:
    kind.costs[name] = kind.costs.get(name, 0.0) + value


def _add_in_flight(sums: _Sums, servlet: str, value: float) -> None:
    sums.in_flight = (sums.in_flight or 0.0) + (0.0 if servlet in LONG_POLLS | _NO_TRAFFIC else value)
    if servlet in _PERSISTING:
        sums.persisting += value


def _add_time(sums: _Sums, part: str, edge: str, sample: Sample) -> str:
    poll = sample.labels.get("servlet") in LONG_POLLS
    if part == "_count":
        kind = sums.kind(sample.labels)
        if poll:
            sums.polls += sample.value
            kind.polls += sample.value
        else:
            sums.requests += sample.value
            kind.requests += sample.value
        if sample.labels.get("code", "").startswith("5"):
            sums.errors += sample.value
    elif part == "_bucket" and not poll:
        try:
            edge_s = float(edge)
        except ValueError:
            return f"{sample.name} has a bucket up to {edge!r}"
        sums.reached[edge_s] = sums.reached.get(edge_s, 0.0) + sample.value
        reached = sums.kind(sample.labels).reached
        reached[edge_s] = reached.get(edge_s, 0.0) + sample.value
    return ""


def _contradiction(sums: _Sums) -> str:
    """Say what makes a page unbelievable; nothing when it may be believed."""
    if not sums.version:
        return f"the page has no {_BUILD}"
    if _STARTED not in sums.process:
        return f"the page has no {_STARTED}"
    if sums.requests and tuple(sorted(sums.reached)) != _EDGES:
        return f"{_TIME} has other buckets than are known"
    if any(now < before - _ROUNDING for before, now in zip(_up(sums.reached), _up(sums.reached)[1:], strict=False)):
        return f"the buckets of {_TIME} don't add up"
    if sums.polls and (absent := [name for name in _COSTS if name not in sums.poll_costs]):
        return f"long-polls were served, but the page has no {absent[0]} of them"
    if _SENT in sums.totals and sums.pending is None:
        return f"transactions were sent, but the page has no {_PENDING_PDUS}"
    return ""


def _up(reached: dict[float, float]) -> list[float]:
    return [reached.get(edge, 0.0) for edge in _EDGES]


def _apart(reached: dict[float, float]) -> tuple[float, ...]:
    """Undo the histogram's adding up."""
    up = _up(reached)
    return tuple(map(_gain, [0.0, *up[:-1]], up))


def _edge(text: str) -> float:
    """Read a bucket's edge; NaN is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _ticks(reached: dict[float, float]) -> tuple[float, ...]:
    """Undo the adding up, as above; nothing where the buckets are others than are known."""
    if tuple(sorted(reached)) != (*TICK_EDGES_S, math.inf):
        return ()
    up = [reached[edge] for edge in (*TICK_EDGES_S, math.inf)]
    return tuple(map(_gain, [0.0, *up[:-1]], up))


def _backlog(sums: _Sums) -> float | None:
    if sums.pending is None and _PERSISTED not in sums.totals:
        return None
    return (sums.pending or 0.0) + sums.persisting


_COUNTED = tuple(item.name for item in fields(Counters) if isinstance(item.default, float))


def _went_back(earlier: Counters, later: Counters) -> bool:
    pairs = [(getattr(earlier, name), getattr(later, name)) for name in _COUNTED]
    return any(now < before - _ROUNDING for before, now in (*pairs, *zip(earlier.latency, later.latency, strict=True)))


def _gain(before: float, now: float) -> float:
    return max(0.0, now - before)
