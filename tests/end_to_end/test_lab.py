"""The lab itself: who can run it, and what it keeps to itself."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.lab.paths import WORKERS, Lab
from rollout.model.errors import InvalidFileError
from tests.end_to_end.conftest import VENVS
from tests.end_to_end.site import Site, cut

ORDINARY = 12345
TIMEOUT_S = 180


def test_everything_runs(site: Site) -> None:
    with site.start("lab", "status", "--dir", str(site.lab.target), "--json") as command:
        said = command.end()
    programs = {one["name"]: one for one in json.loads(said.text)}
    assert set(WORKERS) < set(programs)
    assert all(one["pid"] for one in programs.values())
    assert all(programs[worker]["healthy"] for worker in WORKERS)


def test_secrets_are_for_its_owner_only(lab: Lab) -> None:
    files = [path for path in (lab.target / "etc").iterdir() if "secret" in path.name or path.name.endswith(("_token", ".key", ".dsn"))]
    assert files
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {path.name: "0o600" for path in files}
    assert stat.S_IMODE(lab.users.stat().st_mode) == 0o600


def test_the_load_sees_what_is_cut(site: Site) -> None:
    """Or a count of nought would say nothing."""
    with site.load() as records:
        site.drivers.workers.stop("client1", 20.0)  # type: ignore[arg-type]
        site.drivers.workers.start("client1", 20.0)  # type: ignore[arg-type]
    assert len(cut(records)) >= 3


@pytest.fixture
def ordinary_place() -> Iterator[Path]:
    """Make a directory of an ordinary user's, below one that they own."""
    place = Path(tempfile.mkdtemp(prefix="rollout-test-"))
    if os.geteuid() == 0:
        os.chown(place, ORDINARY, ORDINARY)
    yield place
    shutil.rmtree(place)


def test_an_ordinary_user_can_run_it(lab: Lab, ordinary_place: Path) -> None:
    """When we are root, as somebody else, who may only read what the tests themselves could be hidden in."""
    del lab  # its releases are installed by now, and only read here
    command = [sys.executable, "-m", "rollout", "lab"]
    if os.geteuid() == 0:
        may_read = "+dac_read_search"
        drop = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups", "--inh-caps=-all,+dac_read_search"]
        command = [*drop, f"--ambient-caps={may_read}", "--", *command]
    environment = {**os.environ, "HOME": str(ordinary_place), "TMPDIR": str(ordinary_place)}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*command, *arguments, "--dir", str(ordinary_place / "lab")],
            cwd=ordinary_place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        run("up", "--venvs", str(VENVS))
        programs = json.loads(run("status", "--json"))
        assert [one["name"] for one in programs if not one["pid"]] == []
        owners = {Path(f"/proc/{one['pid']}").stat().st_uid for one in programs}
        assert owners == {ORDINARY if os.geteuid() == 0 else os.geteuid()}
    finally:
        run("down")


def test_a_release_that_it_does_not_have(tmp_path: Path) -> None:
    from rollout.lab.cluster import up  # noqa: PLC0415  (the other tests need it by the command only)

    with pytest.raises(InvalidFileError, match=r"no release 9\.9\.9"):
        up(tmp_path, "9.9.9")
