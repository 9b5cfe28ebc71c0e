"""
Recorded locks, and the wheel that lets Synapse find its PostgreSQL driver without a compiler.

Synapse asks for a distribution *named* psycopg2, which is published as source only. psycopg2-binary has the same code compiled; an empty
wheel with the other name, made here byte for byte the same everywhere so that the locks can name its hash, satisfies the question.
"""

import shutil
import zipfile
from importlib import resources
from pathlib import Path

VERSIONS = ("1.162.0", "1.163.2")
DRIVER_VERSION = "2.9.13"


def write_locks(directory: Path) -> None:
    """Copy the recorded locks to *directory*, with the wheel beside them that they refer to."""
    directory.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        with resources.as_file(resources.files("rollout.lab") / "locks" / f"{version}.txt") as lock:
            shutil.copyfile(lock, directory / f"{version}.txt")
    build_driver_wheel(directory)


def build_driver_wheel(directory: Path) -> Path:
    """Write the empty wheel `psycopg2`; its bytes depend on nothing but this function."""
    info = f"psycopg2-{DRIVER_VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: psycopg2\nVersion: {DRIVER_VERSION}\nRequires-Dist: psycopg2-binary (=={DRIVER_VERSION})\n"
    files = {
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: rollout\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = directory / f"psycopg2-{DRIVER_VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0)), text)
    return wheel
