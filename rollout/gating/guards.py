"""
What must hold at every moment before a worker may be taken out. A guard that could not be read does not hold.

Source: our own; docs/gates.md says what each guard is about.
"""

import math
from dataclasses import dataclass

from rollout.model.gate import GuardReading
from rollout.model.plan import Guard

_SENTENCES = {
    "lock_queue": "{value:.0f} database requests wait for a lock, and {max:.0f} may",
    "long_transaction_s": "a transaction has been open for {value:.0f} s, and {max:.0f} s are allowed",
    "connections_used": "{percent:.0f} % of the database's connections are used, and {percent_max:.0f} % may be",
    "files_projected": "as they grow, {percent:.0f} % of a worker's file handles are used in ten minutes, and {percent_max:.0f} % may be",
    "reactor_tick_s": "what comes to a worker waits for up to {value:.2g} s until its turn, and {max:.2g} s are allowed",
    "replication_lag_s": "a worker has not heard for {value:.0f} s what others have, and {max:.0f} s are allowed",
    "in_flight": "{value:.0f} requests are under way at one worker, and {max:.0f} may be",
    "latency_p95_s": "95 of 100 requests take up to {value:.2g} s, and {max:.2g} s are allowed",
    "error_ratio": "{percent:.3g} % of all requests end in 5xx, and {percent_max:.3g} % may",
    "files_used": "{percent:.0f} % of a worker's file handles are used, and {percent_max:.0f} % may be",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A guard that does not hold, and why in one sentence."""

    guard: str
    why: str


def broken(guards: tuple[Guard, ...], readings: tuple[GuardReading, ...]) -> tuple[Broken, ...]:
    """List the guards that do not hold, in their order; never raises."""
    known = {reading.guard: reading for reading in readings}
    found = ((guard, _why(guard, known.get(guard.guard))) for guard in guards)
    return tuple(Broken(guard.guard, why) for guard, why in found if why)


def _why(guard: Guard, reading: GuardReading | None) -> str:
    """Say why a guard doesn't hold; nothing when it does."""
    if reading is None:
        return f"{guard.guard} could not be measured: nobody reads it"
    detail = f" ({reading.detail})" if reading.detail else ""
    if reading.value is None or math.isnan(reading.value):
        return f"{guard.guard} could not be measured{detail}"
    if reading.value <= guard.max:
        return ""
    sentence = _SENTENCES.get(guard.guard, f"{guard.guard} is {{value:g}}, and {{max:g}} is allowed")
    return sentence.format(value=reading.value, max=guard.max, percent=reading.value * 100, percent_max=guard.max * 100) + detail
