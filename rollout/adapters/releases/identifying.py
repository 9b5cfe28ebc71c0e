"""Which release results, on top of one that is there."""

from collections.abc import Mapping

from rollout.homeservers.synapse.topology import read_modules, read_topology
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId
from rollout.model.release import Release, make_release


def base_of(known: Mapping[ReleaseId, Release], base: ReleaseId, where: str) -> Release:
    if base not in known:
        raise PermanentDriverError(f"release {base} is not at the target", where=where)
    return known[base]


def identified(
    old: Release,
    version: str,
    lock: str,
    config: str,
    settings: Mapping[str, object],
    known: Mapping[ReleaseId, Release],
    *,
    next_generation: bool,
) -> Release:
    """Identify what *version* with *lock* and *config* (a digest, whose shared *settings* are given) is."""
    generation = old.generation if (lock, config) == (old.artefact_lock, old.config_digest) else 1
    if next_generation:
        same = [one.generation for one in known.values() if (one.artefact_lock, one.config_digest) == (lock, config)]
        generation = max(same, default=generation) + 1
    return make_release(version, lock, config, read_modules(settings), generation, read_topology(settings))
