"""
A Synapse that is a few lines long, as a wheel with recorded locks: what a driver of releases installs, asks and runs of the real one.

Everything comes from one directory, so that nothing is fetched. Its configuration is JSON, which is YAML too and needs no library.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

VERSIONS = ("1.0.0", "2.0.0")
SCHEMA_VERSION = 94
COMPAT_VERSION = 84
POOL_OF_TEN = {"name": "psycopg2", "args": {"cp_max": 10}}

# Reads the files that follow `-c`, the later ones over the earlier ones. The first time takes long if it is to be seen.
_CONFIG = """
import json, os, pathlib, time

class ConfigError(Exception):
    pass

class HomeServerConfig:
    @classmethod
    def load_config(cls, description, argv):
        settings = {}
        for path in argv[1::2]:
            settings.update(json.loads(pathlib.Path(path).read_text()))
        if "refused" in settings:
            raise ConfigError(settings["refused"])
        if "first_check" in settings and not pathlib.Path(settings["first_check"]).exists():
            pathlib.Path(settings["first_check"]).write_text(str(os.getpid()))
            time.sleep(20)
        return settings
"""

# Writes into the "database" which code it was, or fails with many words. Takes long if it is to be interrupted.
_MIGRATION = """
import json, pathlib, sys, time
import synapse

settings = json.loads(pathlib.Path(sys.argv[sys.argv.index("--database-config") + 1]).read_text())
if "migration_fails" in settings:
    for number in range(100):
        print("statement", number)
    sys.exit(settings["migration_fails"])
if "migration_takes_s" in settings:
    pathlib.Path(settings["database"]).with_suffix(".begun").touch()
    time.sleep(settings["migration_takes_s"])
with open(settings["database"], "a") as database:
    print(synapse.__version__, file=database)
"""

_DELTAS = ("93/01_old.sql", "94/01_new.sql", "94/02_code.py", "94/03_index.sql.postgres", "94/03_index.sql.sqlite", "94/README.md")


def write_locks(place: Path) -> None:
    """Write to *place* the wheel of every version, and beside it the lock that installs it."""
    place.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        wheel = _build_wheel(place, version)
        write_lock(place, version, hashlib.sha256(wheel.read_bytes()).hexdigest())


def write_lock(place: Path, version: str, digest: str) -> None:
    """Record a lock of *version* that accepts a wheel of *digest* alone."""
    (place / f"{version}.txt").write_text(f"--no-index\n--find-links .\nmatrix-synapse=={version} --hash=sha256:{digest}\n")


def write_configuration(place: Path, settings: Mapping[str, object] | None = None, **workers: Mapping[str, object]) -> Path:
    """Write a configuration tree and return *place*."""
    (place / "workers").mkdir(parents=True, exist_ok=True)
    shared = {"server_name": "example.org", "stream_writers": {"events": ["event_persister1"]}, "database": POOL_OF_TEN, **(settings or {})}
    (place / "homeserver.yaml").write_text(json.dumps(shared))
    for worker, its in workers.items():
        (place / "workers" / f"{worker}.yaml").write_text(json.dumps({"worker_name": worker, **its}))
    return place


def _build_wheel(place: Path, version: str) -> Path:
    """Write a wheel; its bytes depend on the version alone."""
    info = f"matrix_synapse-{version}.dist-info"
    files = {
        # As from a git checkout, which adds to it.
        "synapse/__init__.py": f'__version__ = "{version} (b=develop)"\n',
        "synapse/_scripts/__init__.py": "",
        "synapse/_scripts/update_synapse_database.py": _MIGRATION,
        "synapse/config/__init__.py": "",
        "synapse/config/homeserver.py": _CONFIG,
        "synapse/storage/__init__.py": "",
        "synapse/storage/schema/__init__.py": f"SCHEMA_VERSION = {SCHEMA_VERSION}\nSCHEMA_COMPAT_VERSION = {COMPAT_VERSION}\n",
        **{f"synapse/storage/schema/main/delta/{delta}": "" for delta in _DELTAS},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: matrix-synapse\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: rollout\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = place / f"matrix_synapse-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0)), text)
    return wheel


def shared_venvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a directory of environments for all targets of a test run: making one is slow, and none is ever changed."""
    place = tmp_path_factory.getbasetemp() / "venvs"
    place.mkdir(exist_ok=True)
    return place
