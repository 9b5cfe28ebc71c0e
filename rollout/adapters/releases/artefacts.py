"""What is installed: its recorded lock, what it says of itself, and how much room it takes."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from rollout.model.errors import PermanentDriverError

# A Synapse environment is 250 MB; twice that is asked for, so that what runs beside it can still write. Where those that are there are
# larger (a release with many modules), twice the largest.
FREE_BYTES_MIN = 500_000_000
ROOM_MARGIN = 2

# Run by the release's own interpreter: what it says of itself, and the deltas that it would apply to PostgreSQL, named as in
# applied_schema_deltas.
PROBE = """
import json, pathlib
import synapse, synapse.storage.schema as schema
deltas = set()
for path in pathlib.Path(schema.__file__).parent.glob("*/delta/*/*"):
    if path.suffix in (".py", ".sql") or path.name.endswith(".sql.postgres"):
        deltas.add(path.parent.name + "/" + path.name)
# Inside a git checkout Synapse adds the branch and commit to its version.
print(json.dumps([synapse.__version__.split()[0], schema.SCHEMA_VERSION, schema.SCHEMA_COMPAT_VERSION, sorted(deltas)]))
"""
# Synapse's own reading of a configuration, which neither binds a port nor opens the database.
CHECK = """
import json, sys
from synapse.config.homeserver import HomeServerConfig
for worker, paths in json.loads(sys.argv[1]).items():
    try:
        HomeServerConfig.load_config("", [argument for path in paths for argument in ("-c", path)])
    except Exception as error:
        sys.exit(f"{worker}: {error}")
"""
# Run by the release's interpreter, with `--database-config PATH`.
MIGRATION = ("-m", "synapse._scripts.update_synapse_database")
_HASH = re.compile(rb"sha256:([0-9a-f]{64})")


def read_lock(locks: Path, version: str) -> bytes:
    """Return the recorded lock of a version. Raises PermanentDriverError, naming those that there are."""
    lock = locks / f"{version}.txt"
    try:
        return lock.read_bytes()
    except OSError as error:
        known = ", ".join(sorted(path.stem for path in locks.glob("*.txt"))) or "none"
        raise PermanentDriverError(
            f"there is no recorded lock for {version}", where=str(lock), why=f"locks: {known}", remedy="record one"
        ) from error


def named_in(lock: bytes, locks: Path) -> Mapping[str, bytes]:
    """Return the artefacts that lie beside the locks and that this one names by their hashes."""
    wanted = {digest.decode() for digest in _HASH.findall(lock)}
    found: dict[str, bytes] = {}
    for path in sorted((*locks.glob("*.whl"), *locks.glob("*.tar.gz"))):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() in wanted:
            found[path.name] = content
    return found


def room_needed(largest: int) -> tuple[int, str]:
    """Say how many bytes to ask for beside environments of which the largest that runs has so many, and how that is known."""
    if largest * ROOM_MARGIN <= FREE_BYTES_MIN:
        return FREE_BYTES_MIN, f"at least {ROOM_MARGIN} × what an environment of Synapse's takes"
    return largest * ROOM_MARGIN, f"{ROOM_MARGIN} × the environment that runs, {largest // 1_000_000} MB"
