"""
Which release may run on which database, and whether there is a way back.

A release refuses to start on a database whose compatibility floor is above its own SCHEMA_VERSION, and raises that floor to its own
SCHEMA_COMPAT_VERSION when it migrates. Constants alone miss pending deltas (1.162.0 and 1.163.2 have the same), so those are compared by
file.

Source: synapse/storage/prepare_database.py and synapse/storage/schema/__init__.py of 1.163.2.
"""

from rollout.model.release import Release
from rollout.model.sighting import SchemaSighting

# (SCHEMA_VERSION, SCHEMA_COMPAT_VERSION) by minor release, from synapse/storage/schema/__init__.py of each, for releases that are not
# installed yet. A minor release that is not listed is unknown; it is not guessed from its neighbours.
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


def versions_of(release: Release) -> tuple[int, int] | None:
    """Return (SCHEMA_VERSION, SCHEMA_COMPAT_VERSION): read from the installed release, else from the table, else None."""
    if release.schema_version is not None and release.schema_compat_version is not None:
        return release.schema_version, release.schema_compat_version
    return _KNOWN.get(".".join(release.version.split(".")[:2]))


def rollback_possible(db: SchemaSighting | None, old: Release, new: Release) -> bool | None:
    """
    Tell whether *old* can run again once *new* has migrated the database.

    None when the schema versions of either are not known yet (preparing the release reads them) or the database could not be read.
    """
    old_versions, new_versions = versions_of(old), versions_of(new)
    if db is None or old_versions is None or new_versions is None:
        return None
    return max(db.compat_version, new_versions[1]) <= old_versions[0]


def pending_deltas(db: SchemaSighting, new: Release) -> tuple[str, ...]:
    """List the deltas of *new* (as `NN/file`) that the database hasn't got yet, in order."""
    applied = frozenset(db.deltas)
    return tuple(delta for delta in new.deltas if delta not in applied)
