"""
Releases that are bad on purpose, derived from a good one: its own wheel with one module more, under a version with a local label.

They are releases like any other: a lock with hashes, a wheel, a version that the process reports. Nothing in rollout knows of them.
"""

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

from rollout.model.errors import InvalidFileError, TransientDriverError

GOOD = "1.163.2"
# Label -> what is imported, and where: when a worker starts, or whenever a configuration is read.
_HOOKS = {
    "slow": "synapse/app/_base.py",
    "errors": "synapse/app/_base.py",
    "crash": "synapse/app/_base.py",
    "hang": "synapse/app/_base.py",
    "leak": "synapse/app/_base.py",
    "config": "synapse/config/homeserver.py",
}
BAD_VERSIONS = tuple(f"{GOOD}+{label}" for label in _HOOKS)
_MODULE = "_rollout_lab_{}"
_DOWNLOAD_TIMEOUT_S = 120.0
# A zip has no time before 1980; any fixed one makes the wheel the same everywhere.
_DATE = (2020, 1, 1, 0, 0, 0)


def make_bad_release(version: str, locks: Path) -> None:
    """
    Write the wheel of a bad release and its lock into *locks*, where the good one's lock is. What is there already is left.

    Raises InvalidFileError for one that the lab doesn't have, TransientDriverError when the good wheel can't be had.
    """
    label = version.removeprefix(f"{GOOD}+")
    if label not in _HOOKS:
        raise InvalidFileError(f"the lab has no bad release {version}", why=f"it has {', '.join(BAD_VERSIONS)}")
    lock = locks / f"{version}.txt"
    if lock.exists():
        return
    good = (locks / f"{GOOD}.txt").read_text()
    wheel = repack(_download(good, locks / "good"), label, locks)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(_with_requirement(good, f"matrix-synapse=={version} \\\n    --hash=sha256:{digest}"))


def repack(good: Path, label: str, place: Path) -> Path:
    """Write the good wheel anew with the fault *label* in it; the same input always gives the same bytes."""
    version = f"{GOOD}+{label}"
    bad = place / good.name.replace(f"-{GOOD}-", f"-{version}-")
    with zipfile.ZipFile(good) as source:
        files = {_renamed(name, version): source.read(name) for name in source.namelist() if not name.endswith("/")}
    info = f"matrix_synapse-{version}.dist-info"
    files[f"{info}/METADATA"] = files[f"{info}/METADATA"].replace(f"\nVersion: {GOOD}\n".encode(), f"\nVersion: {version}\n".encode(), 1)
    for name in dict.fromkeys(("cost", label)):
        files[f"synapse/{_MODULE.format(name)}.py"] = (resources.files("rollout.lab.faults") / f"{name}.py").read_bytes()
    files[_HOOKS[label]] += f"\nimport synapse.{_MODULE.format(label)}  # noqa\n".encode()
    del files[f"{info}/RECORD"]
    record = "".join(f"{name},{_hash(content)},{len(content)}\n" for name, content in files.items()) + f"{info}/RECORD,,\n"
    half = bad.with_suffix(".half")
    with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name, content in {**files, f"{info}/RECORD": record.encode()}.items():
            target.writestr(zipfile.ZipInfo(name, _DATE), content)
    half.rename(bad)
    return bad


def _renamed(name: str, version: str) -> str:
    return name.replace(f"matrix_synapse-{GOOD}.", f"matrix_synapse-{version}.", 1)


def _hash(content: bytes) -> str:
    return f"sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')}"


def _requirement(lock: str) -> str:
    """Find the lines of Synapse itself."""
    found = re.search(r"^matrix-synapse==.*(?:\n    .*)*", lock, re.MULTILINE)
    if found is None:
        raise InvalidFileError("the lock has no matrix-synapse in it")
    return found.group()


def _with_requirement(lock: str, requirement: str) -> str:
    return lock.replace(_requirement(lock), requirement)


def _download(lock: str, place: Path) -> Path:
    """Fetch the good wheel, by its recorded hashes."""
    place.mkdir(parents=True, exist_ok=True)
    if not (found := list(place.glob("matrix_synapse-*.whl"))):
        (place / "requirement.txt").write_text(_requirement(lock) + "\n")
        command = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "-r", str(place / "requirement.txt"), "-d", str(place)],
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise TransientDriverError(f"the wheel of Synapse {GOOD} can't be had", why=done.stderr[-2000:])
        found = list(place.glob("matrix_synapse-*.whl"))
    return found[0]
