"""A homeserver to plan for, seen as a person would describe it."""

from dataclasses import replace

from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.release import Release, make_release
from rollout.model.sighting import DrainMark, ProcessSighting, ProxySighting, SchemaSighting, Sighting

TOPOLOGY: dict[str, tuple[str, ...]] = {"stream_writers.events": ("event_persister1",)}

SCHEMA = SchemaSighting(version=94, compat_version=84, deltas=("94/01_one.sql",))


def release(
    version: str = "1.162.0",
    *,
    config: str = "c1",
    generation: int = 1,
    topology: dict[str, tuple[str, ...]] | None = None,
    schema_version: int | None = None,
    schema_compat_version: int | None = None,
) -> Release:
    """Identify a release; give the schema fields of one that is prepared."""
    made = make_release(version, f"lock-{version}", config, (), generation, TOPOLOGY if topology is None else topology)
    return replace(made, schema_version=schema_version, schema_compat_version=schema_compat_version)


OLD = release("1.162.0", schema_version=94, schema_compat_version=84)
NEW = release("1.163.2")


def sighting(runs: Release, *, proxied: bool = True, drained_by: str | None = None) -> Sighting:
    """See a healthy worker; *drained_by* is "us" or "others"."""
    return Sighting(
        process=ProcessSighting(running=True, started_at_s=200.0, activated=runs.id, activated_at_s=100.0),
        healthy=True,
        version=runs.version,
        proxy=ProxySighting(admitted=drained_by is None, weight=100, up=True, sessions=3, requests=1000, cuts=0) if proxied else None,
        drain=DrainMark(EffectNumber(7), runs.id, "sync1 first", 150.0) if drained_by == "us" else None,
    )


def started_before_switch(seen: Sighting, activated: Release) -> Sighting:
    """Switch the link of a running worker without restarting it."""
    return replace(seen, process=ProcessSighting(running=True, started_at_s=200.0, activated=activated.id, activated_at_s=300.0))


def worker(name: str) -> WorkerId:
    """Name a worker."""
    return WorkerId(name)
