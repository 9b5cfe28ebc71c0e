"""What must hold at every moment before a worker may be taken out. A guard that could not be read does not hold."""

from dataclasses import dataclass

from rollout.model.gate import GuardReading
from rollout.model.plan import Guard

_SENTENCES = {
    "lock_queue": "{value:.0f} database requests wait for a lock, and {max:.0f} may",
    "long_transaction_s": "a transaction has been open for {value:.0f} s, and {max:.0f} s are allowed",
    "connections_used": "{percent:.0f} % of the database's connections are used, and {percent_max:.0f} % may be",
    "files_used": "{percent:.0f} % of a worker's file handles are used, and {percent_max:.0f} % may be",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """A guard that does not hold, and why, as a steady sentence."""

    guard: str
    why: str


def broken(guards: tuple[Guard, ...], readings: tuple[GuardReading, ...]) -> tuple[Broken, ...]:
    """List the guards that do not hold; never raises."""
    known = {reading.guard: reading for reading in readings}
    found: list[Broken] = []
    for guard in guards:
        reading = known.get(guard.guard)
        if reading is None or reading.value is None:
            detail = "" if reading is None or not reading.detail else f": {reading.detail}"
            found.append(Broken(guard.guard, f"{guard.guard} could not be measured{detail}"))
        elif reading.value > guard.max:
            found.append(Broken(guard.guard, _why(guard, reading.value, reading.detail)))
    return tuple(found)


def _why(guard: Guard, value: float, detail: str) -> str:
    template = _SENTENCES.get(guard.guard, "{value} is above {max}")
    sentence = template.format(value=value, max=guard.max, percent=value * 100, percent_max=guard.max * 100)
    return f"{sentence} ({detail})" if detail else sentence
