"""The lab itself: who can run it, and what it keeps to itself."""

import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.lab.demo import restart_without_drain
from rollout.lab.paths import WORKERS, Lab, runtime_of
from rollout.model.errors import InvalidFileError
from tests.end_to_end.conftest import VENVS
from tests.end_to_end.site import Site, cut

TIMEOUT_S = 300


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
        restart_without_drain(site.lab, "client1")
    assert len(cut(records)) >= 3


def test_an_ordinary_user_can_run_it(lab: Lab, tmp_path: Path) -> None:
    """When we are root: in a user namespace in which we are somebody else, with our own files and no privilege at all."""
    del lab  # its releases are installed by now, and only read here
    nobody = pwd.getpwnam("nobody")
    drop = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}"] if os.geteuid() == 0 else []

    def run(*arguments: str) -> str:
        command = [*drop, sys.executable, "-m", "rollout", "lab", *arguments, "--dir", str(tmp_path / "lab")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # As somebody leaves it behind who removes a lab's directory without taking the lab down.
    (runtime_of(tmp_path / "lab") / "postgres").mkdir(parents=True)
    (runtime_of(tmp_path / "lab") / "postgres/PG_VERSION").write_text("1")
    try:
        run("up", "--venvs", str(VENVS))
        programs = json.loads(run("status", "--json"))
        assert [one["name"] for one in programs if not one["pid"]] == []
        # Nobody was asked to become somebody else, which only root may.
        assert "user=" not in (tmp_path / "lab/etc/supervisord.conf").read_text()
    finally:
        run("down", "--purge")


def test_a_release_that_it_does_not_have(tmp_path: Path) -> None:
    from rollout.lab.cluster import up  # noqa: PLC0415  (the other tests need it by the command only)

    with pytest.raises(InvalidFileError, match=r"no release 9\.9\.9"):
        up(tmp_path, "9.9.9")
