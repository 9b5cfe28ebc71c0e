"""What runs: a look, as a table and as plain values."""

from collections.abc import Iterator, Mapping

from rollout.interfaces.report.words import duration, table
from rollout.model.inventory import Inventory, WorkerEntry
from rollout.model.sighting import Observation, ProxySighting, Sighting
from rollout.planning.standing import Standing, judge

_HEADER = ("worker", "role", "release", "version", "running for", "health", "proxy", "sessions", "ours")
_FULL_WEIGHT = 100  # percent


def standing_text(inventory: Inventory, seen: Observation) -> str:
    """Print a table, and below it what is worth knowing of single workers."""
    rows = []
    remarks: list[str] = []
    for worker, entry in inventory.workers.items():
        standing = judge(worker, seen, proxied=entry.pool is not None)
        sighting = seen.sightings.get(worker, Sighting())
        rows.append((worker, entry.role, *_cells(entry, standing, sighting, seen.taken_at_s)))
        remarks += [*standing.blockers, *standing.notes]
        remarks += [f"{worker}: {why}" for why in sighting.unseen if not any(why in blocker for blocker in standing.blockers)]
        if standing.foreign:
            remarks.append(f"{worker} was drained by somebody else: it counts as out and is left alone")
    remarks += _unread(seen)
    lines = [f"{inventory.homeserver}, seen just now", "", table(_HEADER, rows)]
    if remarks:
        lines += ["", *remarks]
    return "\n".join(lines)


def _unread(seen: Observation) -> Iterator[str]:
    """What guards look at and could not be read, by its reason."""
    # What takes time isn't known by one look.
    unread = [reading for reading in seen.guards if reading.value is None and not reading.short]
    for why in dict.fromkeys(reading.detail for reading in unread):
        yield f"{', '.join(reading.guard for reading in unread if reading.detail == why)}: not known ({why})"


def _cells(entry: WorkerEntry, standing: Standing, sighting: Sighting, now_s: float) -> Iterator[str]:
    process = sighting.process
    yield standing.release or "unknown"
    yield sighting.version or "unknown"
    if process is None:
        yield "unknown"
    elif not process.running:
        yield "not running"
    else:
        yield "unknown" if process.started_at_s is None else duration(now_s - process.started_at_s)
    yield {True: "well", False: "no answer", None: "unknown"}[sighting.healthy]
    yield "-" if entry.pool is None else _proxy(sighting.proxy)
    yield "" if sighting.proxy is None or sighting.proxy.sessions is None else str(sighting.proxy.sessions)
    yield "" if sighting.drain is None else f"drained {duration(now_s - sighting.drain.at_s)} ago by effect {sighting.drain.number}"


def _proxy(proxy: ProxySighting | None) -> str:
    if proxy is None:
        return "unknown"
    words = "admitted" if proxy.admitted else "drained"
    words += "" if proxy.weight == _FULL_WEIGHT else f" at {proxy.weight} %"
    words += ", held" if proxy.holding else ""
    return words if proxy.up else f"{words}, down"


def standing_values(inventory: Inventory, seen: Observation) -> Mapping[str, object]:
    """Return the same for programs; None stands for what could not be seen."""
    return {
        "homeserver": inventory.homeserver,
        "taken_at_s": seen.taken_at_s,
        "workers": {
            worker: _values(entry, judge(worker, seen, proxied=entry.pool is not None), seen.sightings.get(worker, Sighting()))
            for worker, entry in inventory.workers.items()
        },
        "missing": dict(seen.missing),
        "guards": {reading.guard: reading.value for reading in seen.guards},
        "schema_version": None if seen.schema is None else seen.schema.version,
    }


def _values(entry: WorkerEntry, standing: Standing, sighting: Sighting) -> Mapping[str, object]:
    process, proxy, drain = sighting.process, sighting.proxy, sighting.drain
    return {
        "role": entry.role,
        "pool": entry.pool,
        "release": standing.release,
        "version": sighting.version,
        "running": None if process is None else process.running,
        "started_at_s": None if process is None else process.started_at_s,
        "activated": None if process is None else process.activated,
        "healthy": sighting.healthy,
        "admitted": None if proxy is None else proxy.admitted,
        "held": None if proxy is None else proxy.holding,
        "weight": None if proxy is None else proxy.weight,
        "up": None if proxy is None else proxy.up,
        "sessions": None if proxy is None else proxy.sessions,
        "drained_by_us": drain is not None,
        "drained_by_others": standing.foreign,
        "remarks": [*standing.blockers, *standing.notes, *sighting.unseen],
    }
