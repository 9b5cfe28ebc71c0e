"""What the release brings: deltas, a way back or none, hazards on the way, and what it needs of disk, PostgreSQL and Python."""

from collections.abc import Iterator

from rollout.homeservers.synapse import hazards, schema_rules
from rollout.model.conditions import Room
from rollout.model.listing import listed
from rollout.model.release import Release
from rollout.planning.preflight import Check, Question, Result

# A PostgreSQL's server_version_num is its major version times this, and its minor one.
_MAJOR = 10_000
_MEGABYTE = 1_000_000


def of_release(question: Question) -> Iterator[Check]:
    """Look at everything that depends on what is rolled out."""
    to = question.to
    if to is None:
        return
    yield from _room(question.findings.room)
    if not question.migrates:
        return
    yield from _deltas(question, to)
    yield from _way_back(question, to)
    yield from _hazards(question, to)
    yield from _postgresql(question, to)


def _room(room: Room | str | None) -> Iterator[Check]:
    match room:
        case None:
            return
        case str():
            yield Check("disk", Result.UNKNOWN, room, "whoever runs this must be able to look at the target")
        case Room() if room.needed_bytes == 0:
            yield Check("disk", Result.OK, room.basis)
        case Room():
            why = f"{room.free_bytes // _MEGABYTE} MB are free, {room.needed_bytes // _MEGABYTE} MB are needed ({room.basis})"
            enough = room.free_bytes >= room.needed_bytes
            yield Check("disk", Result.OK if enough else Result.NO, why, "" if enough else "remove releases that nobody goes back to")


def _deltas(question: Question, to: Release) -> Iterator[Check]:
    """By file: releases with the same schema version may differ by a delta."""
    schema = question.findings.observation.schema
    if schema is None:
        if question.findings.conditions is not None:
            yield Check(
                "schema", Result.UNKNOWN, "the database's schema could not be read", "the dsn, and SELECT on schema_version and the deltas"
            )
    elif to.schema_version is None:
        yield Check(
            "schema", Result.WARNING, f"which deltas {to.version} brings is known when it is prepared, before any of them is applied"
        )
    else:
        pending = schema_rules.pending_deltas(schema, to)
        are = "delta is" if len(pending) == 1 else "deltas are"
        why = f"{len(pending)} {are} pending: {listed(pending)}" if pending else "no delta is pending"
        yield Check("schema", Result.OK, f"{why}; the database is at {schema.version}, {to.version} at {to.schema_version}")


def _way_back(question: Question, to: Release) -> Iterator[Check]:
    schema = question.findings.observation.schema
    for old in question.running():
        if old.version == to.version:
            continue
        possible, why = schema_rules.rollback_possible(schema, old, to), schema_rules.explain_rollback(schema, old, to)
        if possible is False:
            consent = Result.WARNING if question.no_way_back else Result.NO
            remedy = "make a backup, and say --accept-no-way-back: after the migration there is only forward"
            yield Check("way back", consent, why, remedy)
        elif possible is None:
            yield Check(
                "way back", Result.WARNING, f"{why}; without one the rollout stops when the release is prepared, before the migration"
            )
        else:
            yield Check("way back", Result.OK, why)


def _hazards(question: Question, to: Release) -> Iterator[Check]:
    roles = {entry.role for entry in question.inventory.workers.values()}
    told: set[str] = set()
    for old in question.running():
        found = hazards.crossed(old.version, to.version, roles)
        if found is None:
            told.add(old.version)
            yield Check(
                "hazards",
                Result.UNKNOWN,
                f"what stands between {old.version} and {to.version} can't be told by their names",
                "read the upgrade notes",
                hazards.NOTES,
            )
            continue
        for hazard in found:
            if hazard.id in told:
                continue
            told.add(hazard.id)
            grave = hazard.grave and hazard.id not in question.accepted
            remedy = f"{hazard.remedy}; or accept_hazards: [{hazard.id}] in the playbook" if grave else hazard.remedy
            yield Check(f"hazard of {hazard.version}", Result.NO if grave else Result.WARNING, hazard.sentence, remedy, hazard.source)
        yield from _raised(old, to)
        if hazards.not_read(old.version, to.version) and "" not in told:
            told.add("")
            why = f"what releases after {hazards.READ_UNTIL} bring isn't in our table of hazards"
            yield Check("hazards", Result.WARNING, why, f"read the upgrade notes up to {to.version}", hazards.NOTES)
    if not told:
        yield Check("hazards", Result.OK, "the upgrade notes have none on the way")


def _raised(old: Release, to: Release) -> Iterator[Check]:
    """Python can't be asked for here: PREPARE installs the release with the target's own."""
    before, after = hazards.requirement(hazards.PYTHON, old.version), hazards.requirement(hazards.PYTHON, to.version)
    if after is not None and before != after and (before is None or before.least < after.least):
        least = ".".join(map(str, after.least))
        why = f"{to.version} needs Python {least}; on an older one PREPARE ends the rollout before anything is touched"
        yield Check("python", Result.WARNING, why, source=after.source)


def _postgresql(question: Question, to: Release) -> Iterator[Check]:
    needed = hazards.requirement(hazards.POSTGRESQL, to.version)
    found = question.findings.conditions
    if needed is None or found is None:
        return
    if found.server_version is None:
        # Where what runs needs as much, it is there.
        if any(hazards.requirement(hazards.POSTGRESQL, old.version) != needed for old in question.running()):
            yield Check(
                "postgresql", Result.UNKNOWN, f"{to.version} needs {needed.least[0]}, and what is there isn't known", source=needed.source
            )
        return
    major = found.server_version // _MAJOR
    if major < needed.least[0]:
        why = f"{to.version} would not start on PostgreSQL {major}: it needs {needed.least[0]}"
        yield Check("postgresql", Result.NO, why, f"bring PostgreSQL to {needed.least[0]} first", needed.source)
    else:
        yield Check("postgresql", Result.OK, f"{major}, and {to.version} needs {needed.least[0]}")
