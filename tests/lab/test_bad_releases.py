"""A bad release is a wheel like any other: installable, with its own version, and the same bytes every time."""

import base64
import csv
import hashlib
import zipfile
from pathlib import Path

import pytest

from rollout.lab.bad_releases import BAD_VERSIONS, GOOD, make_bad_release, repack
from rollout.model.errors import InvalidFileError

FILES = {
    "synapse/__init__.py": "",
    "synapse/app/_base.py": "STARTED = True\n",
    "synapse/config/homeserver.py": "READ = True\n",
    f"matrix_synapse-{GOOD}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: matrix-synapse\nVersion: {GOOD}\n\nVersion: none of it\n",
    f"matrix_synapse-{GOOD}.dist-info/WHEEL": "Wheel-Version: 1.0\n",
    f"matrix_synapse-{GOOD}.dist-info/RECORD": "all of it\n",
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A wheel with the few files that a fault is put into."""
    place = tmp_path / "good" / f"matrix_synapse-{GOOD}-cp310-abi3-manylinux_2_28_x86_64.whl"
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w") as wheel:
        for name, content in FILES.items():
            wheel.writestr(name, content)
    return place


@pytest.mark.parametrize("version", BAD_VERSIONS)
def test_it_has_its_version_its_fault_and_a_record_of_every_file(good: Path, tmp_path: Path, version: str) -> None:
    label = version.partition("+")[2]
    wheel = repack(good, label, tmp_path)
    assert wheel.name.startswith(f"matrix_synapse-{version}-")
    with zipfile.ZipFile(wheel) as bad:
        info = f"matrix_synapse-{version}.dist-info"
        assert bad.read(f"{info}/METADATA").decode() == FILES[f"matrix_synapse-{GOOD}.dist-info/METADATA"].replace(GOOD, version, 1)
        hook = "synapse/config/homeserver.py" if label == "config" else "synapse/app/_base.py"
        changed = [name for name in FILES if name in bad.namelist() and bad.read(name).decode() != FILES[name]]
        assert changed == [hook]
        assert bad.read(hook).decode() == f"{FILES[hook]}\nimport synapse._rollout_lab_{label}  # noqa\n"
        rows = list(csv.reader(bad.read(f"{info}/RECORD").decode().splitlines()))
        assert sorted(name for name, *_ in rows) == sorted(bad.namelist())
        for name, digest, size in rows:
            if name != f"{info}/RECORD":
                content = bad.read(name)
                expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
                assert (digest, size) == (f"sha256={expected}", str(len(content))), name


def test_the_same_wheel_gives_the_same_bytes(good: Path, tmp_path: Path) -> None:
    """Its hash stands in a lock, which another machine must be able to meet."""
    first = repack(good, "slow", tmp_path).read_bytes()
    (tmp_path / "again").mkdir()
    assert repack(good, "slow", tmp_path / "again").read_bytes() == first
    assert repack(good, "leak", tmp_path).read_bytes() != first


def test_a_fault_that_the_lab_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"1\.163\.2\+slow"):
        make_bad_release(f"{GOOD}+nonsense", tmp_path)
