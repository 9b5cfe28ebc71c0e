"""
Synapse's metrics pages as counters, and the difference of two as a tally.

Names as on 1.162.0 and 1.163.2. Families that Synapse makes on first use (a worker that has served nothing has no histogram yet) count as
zero only on a page that shows who wrote it: without `synapse_build_info` and the process's start time, nothing on it is believed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollout.model.gate import LATENCY_EDGES_S, Tally
from rollout.model.sample import Sample

LONG_POLLS = frozenset({"SyncRestServlet", "SlidingSyncRestServlet", "EventStreamRestServlet"})

_TIME = "synapse_http_server_response_time_seconds"
_CPU = ("synapse_http_server_response_ru_utime_seconds", "synapse_http_server_response_ru_stime_seconds")
_DB = "synapse_http_server_response_db_txn_duration_seconds"
_SCHEDULING = "synapse_http_server_response_db_sched_duration_seconds"
# What each role does besides answering requests; a worker that doesn't do it has no such family.
_WORK = frozenset(
    {
        "synapse_storage_events_persisted_events_total",
        "synapse_federation_client_sent_transactions_total",
        "synapse_http_httppusher_http_pushes_processed_total",
        "synapse_handlers_appservice_events_processed_total",
    }
)
_BACKLOG = frozenset({"synapse_federation_transaction_queue_pending_pdus"})
_IDENTITY = ("synapse_build_info", "process_start_time_seconds", "process_open_fds", "process_max_fds")

PREFIXES: tuple[str, ...] = (_TIME, *_CPU, _DB, _SCHEDULING, *sorted(_WORK), *sorted(_BACKLOG), *_IDENTITY)

_BUCKETS = len(LATENCY_EDGES_S) + 1
_NOTHING = (0.0,) * _BUCKETS


@dataclass(frozen=True, slots=True)
class Counters:
    """
    What one process has done since *started_at_s*. *latency* is not cumulative over its edges; long-polls are left out of *requests* and
    *latency*.

    *errors* are 5xx of ordinary requests and of long-polls alike: an error is one however long it took. *backlog* is None for roles
    without a queue.
    """

    version: str
    started_at_s: float
    requests: float = 0.0
    errors: float = 0.0
    latency: tuple[float, ...] = _NOTHING
    polls: float = 0.0
    poll_cpu_s: float = 0.0
    poll_db_s: float = 0.0
    poll_scheduling_s: float = 0.0
    work: float = 0.0
    backlog: float | None = None
    open_files: float = 0.0
    files_max: float = 0.0


@dataclass(slots=True)
class _Sums:
    requests: float = 0.0
    errors: float = 0.0
    polls: float = 0.0
    cumulative: dict[float, float] = field(default_factory=dict)
    cpu_s: float = 0.0
    db_s: float = 0.0
    scheduling_s: float = 0.0
    work: float = 0.0
    backlog: float | None = None
    named: dict[str, float] = field(default_factory=dict)
    version: str = ""


def read_version(samples: Iterable[Sample]) -> str | None:
    """Return the version that a process reports of itself; None when the page doesn't say."""
    return next(
        (sample.labels["version"] for sample in samples if sample.name == "synapse_build_info" and "version" in sample.labels), None
    )


def read_counters(samples: Iterable[Sample]) -> Counters | str:
    """Read a page; a sentence says why it can't be believed."""
    sums = _Sums()
    for sample in samples:
        if math.isnan(sample.value) or sample.value < 0:
            return f"{sample.name} is {sample.value}"
        _add(sums, sample)
    if not sums.version:
        return "the page has no synapse_build_info"
    if "process_start_time_seconds" not in sums.named:
        return "the page has no process_start_time_seconds"
    return Counters(
        version=sums.version,
        started_at_s=sums.named["process_start_time_seconds"],
        requests=sums.requests,
        errors=sums.errors,
        latency=_apart(sums.cumulative),
        polls=sums.polls,
        poll_cpu_s=sums.cpu_s,
        poll_db_s=sums.db_s,
        poll_scheduling_s=sums.scheduling_s,
        work=sums.work,
        backlog=sums.backlog,
        open_files=sums.named.get("process_open_fds", 0.0),
        files_max=sums.named.get("process_max_fds", 0.0),
    )


def _add(sums: _Sums, sample: Sample) -> None:
    name, labels, value = sample.name, sample.labels, sample.value
    if name.startswith("synapse_http_server_response_"):
        _add_response(sums, sample)
    elif name in _WORK:
        sums.work += value
    elif name in _BACKLOG:
        sums.backlog = (sums.backlog or 0.0) + value
    elif name == "synapse_build_info":
        sums.version = labels.get("version", "")
    elif name in _IDENTITY:
        sums.named[name] = value


def _add_response(sums: _Sums, sample: Sample) -> None:
    name, labels, value = sample.name.removesuffix("_total"), sample.labels, sample.value
    poll = labels.get("servlet") in LONG_POLLS
    if name == f"{_TIME}_count":
        sums.errors += value if labels.get("code", "").startswith("5") else 0.0
        sums.polls += value if poll else 0.0
        sums.requests += 0.0 if poll else value
    elif name == f"{_TIME}_bucket" and not poll:
        edge = float(labels["le"])
        sums.cumulative[edge] = sums.cumulative.get(edge, 0.0) + value
    elif poll and name in _CPU:
        sums.cpu_s += value
    elif poll and name == _DB:
        sums.db_s += value
    elif poll and name == _SCHEDULING:
        sums.scheduling_s += value


def _apart(cumulative: dict[float, float]) -> tuple[float, ...]:
    if not cumulative:
        return _NOTHING
    edges = (*LATENCY_EDGES_S, math.inf)
    reached = [cumulative.get(edge, 0.0) for edge in edges]
    return tuple(max(0.0, now - before) for before, now in zip([0.0, *reached[:-1]], reached, strict=True))


def tally(earlier: Counters, later: Counters, since_s: float, until_s: float) -> Tally | str:
    """
    Return what was done between two pages of one worker, read at *since_s* and *until_s*.

    Another process in between began at zero, so all that it did counts. A counter that went back without a restart is a sentence.
    """
    if later.started_at_s != earlier.started_at_s:
        earlier = Counters(version=later.version, started_at_s=later.started_at_s)
    pairs = (
        ("requests", earlier.requests, later.requests),
        ("errors", earlier.errors, later.errors),
        ("polls", earlier.polls, later.polls),
        ("work", earlier.work, later.work),
        *(("latency", before, now) for before, now in zip(earlier.latency, later.latency, strict=True)),
    )
    for name, before, now in pairs:
        if now < before:
            return f"its counter of {name} went back from {before:.0f} to {now:.0f} without a restart"
    return Tally(
        since_s=since_s,
        until_s=until_s,
        requests=later.requests - earlier.requests,
        errors=later.errors - earlier.errors,
        latency=tuple(now - before for before, now in zip(earlier.latency, later.latency, strict=True)),
        polls=later.polls - earlier.polls,
        poll_cpu_s=max(0.0, later.poll_cpu_s - earlier.poll_cpu_s),
        poll_db_s=max(0.0, later.poll_db_s - earlier.poll_db_s),
        poll_scheduling_s=max(0.0, later.poll_scheduling_s - earlier.poll_scheduling_s),
        work=later.work - earlier.work,
        backlog=later.backlog,
    )
