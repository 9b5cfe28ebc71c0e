"""
Which release may run on which database, and whether there is a way back.

A release refuses to start on a database whose compatibility floor is above its own SCHEMA_VERSION, and raises that floor to its own
SCHEMA_COMPAT_VERSION before it migrates. The constants alone miss pending deltas (1.162.0 and 1.163.2 have the same ones, and 1.163.2 has a
delta more), so those are compared by file.

Source: synapse/storage/prepare_database.py and synapse/storage/schema/__init__.py of 1.163.2.
"""

from typing import NamedTuple

from rollout.model.release import Release
from rollout.model.sighting import SchemaSighting

_INSTALLED = "the installed release"
_TABLE = "the table of known releases"

# (SCHEMA_VERSION, SCHEMA_COMPAT_VERSION) by minor release, read in synapse/storage/schema/__init__.py of each: for releases that are not
# installed yet. One that is not listed is unknown; it is not guessed from its neighbours.
_KNOWN = {
    "1.90": (80, 76),
    "1.100": (84, 83),
    "1.110": (85, 84),
    "1.120": (88, 84),
    "1.130": (92, 84),
    "1.140": (92, 84),
    "1.144": (93, 84),
    "1.150": (93, 84),
    "1.154": (94, 84),
    "1.158": (94, 84),
    "1.161": (94, 84),
    "1.162": (94, 84),
    "1.163": (94, 84),
}


class SchemaVersions(NamedTuple):
    """What a release knows, the least that must know a database it has migrated, and where this was read."""

    version: int
    compat_version: int
    source: str


def versions_of(release: Release) -> SchemaVersions | None:
    """Return the release's schema versions: as installed, else from the table; None when neither has them."""
    if release.schema_version is not None and release.schema_compat_version is not None:
        return SchemaVersions(release.schema_version, release.schema_compat_version, _INSTALLED)
    known = _KNOWN.get(".".join(release.version.split(".")[:2]))
    return None if known is None else SchemaVersions(*known, _TABLE)


def rollback_possible(db: SchemaSighting | None, old: Release, new: Release) -> bool | None:
    """
    Tell whether *old* can run again once *new* has migrated the database.

    None when the schema versions of either are not known yet (preparing the release reads them) or the database could not be read.
    """
    old_versions, new_versions = versions_of(old), versions_of(new)
    if db is None or old_versions is None or new_versions is None:
        return None
    return max(db.compat_version, new_versions.compat_version) <= old_versions.version


def explain_rollback(db: SchemaSighting | None, old: Release, new: Release) -> str:
    """Say in one sentence what rollback_possible found, and by which numbers."""
    old_versions, new_versions = versions_of(old), versions_of(new)
    if db is None or old_versions is None or new_versions is None:
        if db is None:
            unknown = "the database's schema could not be read"
        else:
            unknown = f"{old.version if old_versions is None else new.version} is neither installed nor in {_TABLE}"
        return f"whether {old.version} can run again after {new.version} isn't known: {unknown}"
    floor = max(db.compat_version, new_versions.compat_version)
    can = "can" if floor <= old_versions.version else "can't"
    return (
        f"{old.version} {can} run again after {new.version}: the database will need schema {floor} or newer ({new_versions.source}), "
        f"and {old.version} knows {old_versions.version} ({old_versions.source})"
    )


def pending_deltas(db: SchemaSighting, new: Release) -> tuple[str, ...]:
    """
    List the deltas of *new* (as `NN/file`) that it would still apply, in the order in which it would.

    As Synapse does, those of versions before the database's own are left out (a database begins with a full schema, not with the first
    delta), and those for SQLite.
    """
    applied = frozenset(db.deltas)
    wanted = (delta for delta in new.deltas if delta not in applied and _is_delta(delta) and _version(delta) >= db.version)
    return tuple(sorted(wanted, key=lambda delta: (_version(delta), delta)))


def _is_delta(delta: str) -> bool:
    return delta.partition("/")[0].isdecimal() and delta.endswith((".sql", ".sql.postgres", ".py"))


def _version(delta: str) -> int:
    return int(delta.partition("/")[0])
