"""
What is run: version, artefact, configuration and modules together.

A restart is a release too: the same parts with the next *generation*. So is a changed configuration. Rolling back to a release therefore
restores its configuration as well as its code.
"""

import hashlib
from dataclasses import dataclass, field

from rollout.model.ids import ReleaseId


@dataclass(frozen=True, slots=True)
class Release:
    """
    One thing that a worker can run. Digests are lower-case hexadecimal SHA-256.

    *topology* holds what the configuration says about who does what (stream writers, shard lists, instance map), as names with their
    members in order: releases that differ in it can't be rolled from one to the other worker by worker. The schema fields are read out of
    the installed artefact (synapse/storage/schema) and are None (or empty) until it has been prepared somewhere.
    """

    id: ReleaseId
    version: str
    artefact_lock: str
    config_digest: str
    modules: tuple[str, ...] = ()
    generation: int = 1
    topology: dict[str, tuple[str, ...]] = field(default_factory=dict)
    schema_version: int | None = None
    schema_compat_version: int | None = None
    deltas: tuple[str, ...] = ()


def release_id(version: str, artefact_lock: str, config_digest: str, modules: tuple[str, ...], generation: int) -> ReleaseId:
    """Return `<version>-<8 hexadecimal digits>`; equal exactly when all five parts are equal."""
    parts = "\n".join((version, artefact_lock, config_digest, str(generation), *modules))
    return ReleaseId(f"{version}-{hashlib.sha256(parts.encode()).hexdigest()[:8]}")


def make_release(
    version: str,
    artefact_lock: str,
    config_digest: str,
    modules: tuple[str, ...] = (),
    generation: int = 1,
    topology: dict[str, tuple[str, ...]] | None = None,
) -> Release:
    """Identify a release from its parts, before it has been prepared anywhere."""
    return Release(
        id=release_id(version, artefact_lock, config_digest, modules, generation),
        version=version,
        artefact_lock=artefact_lock,
        config_digest=config_digest,
        modules=modules,
        generation=generation,
        topology=topology or {},
    )
