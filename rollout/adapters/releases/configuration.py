"""A configuration tree as its files: which release it makes, and what it says that a rollout has to know."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import yaml

from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId

HOMESERVER = "homeserver.yaml"
# Of twisted.enterprise.adbapi.ConnectionPool: what Synapse gets where its configuration doesn't say.
POOL_MAX = 5

Files = Mapping[str, bytes]


def files_in(source: Path) -> Files:
    """Read a tree, path -> content. Raises PermanentDriverError."""
    if not (source / HOMESERVER).is_file():
        raise PermanentDriverError(f"there is no {HOMESERVER}", where=str(source))
    try:
        return {
            path.relative_to(source).as_posix(): path.read_bytes()
            for path in sorted(source.rglob("*"))
            # A link to nowhere is an error here, rather than a file less at the target.
            if path.is_file() or not path.exists()
        }
    except OSError as error:
        raise PermanentDriverError("the configuration can't be read", where=str(source), why=str(error)) from error


def digest_of(files: Files) -> str:
    """Return what names it: the same for the same paths and contents, wherever they lie."""
    digest = hashlib.sha256()
    for name in sorted(files, key=PurePosixPath):
        digest.update(f"{name}\0".encode() + files[name] + b"\0")
    return digest.hexdigest()


def settings_in(files: Files, where: str) -> dict[str, object]:
    """Return what all workers share. Raises PermanentDriverError when it can't be read."""
    try:
        settings = yaml.safe_load(files[HOMESERVER])
    except (KeyError, ValueError, yaml.YAMLError) as error:
        raise PermanentDriverError("the configuration can't be read", where=where, why=str(error)) from error
    return settings if isinstance(settings, dict) else {}


def pools_in(files: Files, workers: Sequence[WorkerId], where: str) -> dict[WorkerId, int]:
    """Tell how many database connections each worker's pool may open; those of whom that can't be told are left out."""
    shared = settings_in(files, where)
    found = {worker: pool_max({**shared, **_own(files, worker)}) for worker in workers}
    return {worker: most for worker, most in found.items() if most is not None}


def _own(files: Files, worker: WorkerId) -> dict[str, object]:
    """Read what a worker's own file says; nothing where there is none, or none that is YAML: Synapse says so in PREPARE."""
    try:
        said = yaml.safe_load(files[f"workers/{worker}.yaml"])
    except (KeyError, ValueError, yaml.YAMLError):
        return {}
    return said if isinstance(said, dict) else {}


def pool_max(settings: Mapping[str, object]) -> int | None:
    """Add up the pools of every database that a configuration names (`database`, or several `databases`)."""
    several = settings.get("databases")
    databases = list(several.values()) if isinstance(several, dict) else [settings.get("database")]
    most = 0
    for database in databases:
        if not isinstance(database, dict) or database.get("name") != "psycopg2":
            return None
        arguments = database.get("args")
        said = arguments.get("cp_max", POOL_MAX) if isinstance(arguments, dict) else POOL_MAX
        if not isinstance(said, int):
            return None
        most += said
    return most
