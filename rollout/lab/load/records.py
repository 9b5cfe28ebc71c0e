"""
One finished request, and what a stretch of time holds of them.

A request is *cut* when it was refused, reset, truncated, answered 502, 503 or 504, or not answered in time. Any other 5xx is a *release
error*, any 4xx a *client error*: neither may happen in a lab, and neither is hidden among the cuts. Nothing is ever tried again in
silence.
"""

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class Outcome(StrEnum):
    """What became of a request."""

    OK = "ok"
    CUT = "cut"
    RELEASE_ERROR = "release_error"
    CLIENT_ERROR = "client_error"
    # Still open when the load was stopped: says nothing of the homeserver.
    ENDED = "ended"


# What a proxy answers in place of a server that isn't there.
PROXY_STATUSES = frozenset({502, 503, 504})


def outcome_of(status: int) -> Outcome:
    """Tell what a complete answer with *status* is."""
    if status in PROXY_STATUSES:
        return Outcome.CUT
    if status >= 500:  # noqa: PLR2004  (the class of server errors)
        return Outcome.RELEASE_ERROR
    if status >= 400:  # noqa: PLR2004  (the class of client errors)
        return Outcome.CLIENT_ERROR
    return Outcome.OK


@dataclass(frozen=True, slots=True)
class Record:
    """Times are seconds since the epoch; *why* says what went wrong."""

    began_s: float
    ended_s: float
    kind: str
    pool: str
    user: str
    outcome: Outcome
    why: str = ""


# Kinds whose duration is how long nothing happened.
LONG_POLLS = frozenset({"sync", "sliding_sync"})
INITIAL = "sync_initial"


@dataclass(frozen=True, slots=True)
class Window:
    """
    What ended within a stretch of time. Percentiles in milliseconds, None without requests; *other* is everything but long-polls and
    initial syncs.
    """

    requests: int
    cut: int
    release_errors: int
    client_errors: int
    sync_initial_p99_ms: float | None
    other_p99_ms: float | None


def window(records: Iterable[Record], from_s: float = -math.inf, to_s: float = math.inf, pools: Sequence[str] = ()) -> Window:
    """Sum up the requests of *pools* (all, if empty) that ended between two times."""
    inside = [record for record in records if from_s <= record.ended_s < to_s and (not pools or record.pool in pools)]
    count = Counter(record.outcome for record in inside)
    answered = [record for record in inside if record.outcome is Outcome.OK]
    return Window(
        requests=len(inside) - count[Outcome.ENDED],
        cut=count[Outcome.CUT],
        release_errors=count[Outcome.RELEASE_ERROR],
        client_errors=count[Outcome.CLIENT_ERROR],
        sync_initial_p99_ms=percentile_ms([record for record in answered if record.kind == INITIAL], 0.99),
        other_p99_ms=percentile_ms([record for record in answered if record.kind != INITIAL and record.kind not in LONG_POLLS], 0.99),
    )


def percentile_ms(records: Sequence[Record], share: float) -> float | None:
    """Return the nearest-rank percentile of the durations; None without any."""
    if not records:
        return None
    durations = sorted(record.ended_s - record.began_s for record in records)
    return round(durations[math.ceil(share * len(durations)) - 1] * 1000, 1)


def open_long_polls(records: Iterable[Record], pool: str, at_s: float) -> int:
    """Count the long-polls on a pool that were open at a moment."""
    return sum(record.kind in LONG_POLLS and record.pool == pool and record.began_s <= at_s < record.ended_s for record in records)


def write(records: Iterable[Record], path: Path) -> None:
    """Keep records, one JSON object a line, compressed."""
    with gzip.open(path, "wt") as file:
        for record in records:
            file.write(json.dumps(asdict(record)) + "\n")


def read(path: Path) -> list[Record]:
    """Read what `write` kept."""
    with gzip.open(path, "rt") as file:
        lines = [json.loads(line) for line in file]
    return [Record(**{**line, "outcome": Outcome(line["outcome"])}) for line in lines]
