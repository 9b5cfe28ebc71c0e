"""Jobs at a host, here at this machine: what is said of one that was not begun, or whose process was ended."""

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollout.adapters.places import ThisMachine
from rollout.adapters.releases.on_hosts.installer import Installer
from rollout.agent.installing import begin, watch
from rollout.lab.processes import wait_until
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError


@pytest.fixture
def here(tmp_path: Path) -> Installer:
    return Installer(ThisMachine(), tmp_path, sys.executable)


def _jobs_of(target: Path) -> list[int]:
    """Name the processes of jobs that were begun for a target."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"begin" in words and any(word.startswith(os.fsencode(target)) for word in words):
            found.append(int(place.name))
    return found


def test_of_a_migration_whose_process_was_killed_nobody_knows_what_it_did(here: Installer, tmp_path: Path) -> None:
    """Half of it may be done: it is never called something that did not happen."""
    begun = tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(here.do, "migrate", {"argv": ["/bin/sh", "-c", f"touch {begun}; exec sleep 3"]}, None)
        wait_until(begun.exists, 20.0, "it is under way")
        for pid in _jobs_of(tmp_path):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(OutcomeUnknownError, match="`migrate` was ended there"):
            done.result(30.0)


def test_what_was_said_not_to_have_begun_does_not_begin_late(tmp_path: Path) -> None:
    """The word to begin was on its way when the connection broke."""
    asked = {"target": str(tmp_path), "job": "1", "kind": "migrate", "argv": ["/bin/touch", str(tmp_path / "done")], "timeout_s": None}
    assert watch({**asked, "wait_s": 0.0, "stage": "beginning"})["state"] == "unknown"
    begin(asked)
    assert watch({**asked, "wait_s": 1.0, "stage": "beginning"})["state"] == "lost"
    assert not (tmp_path / "done").exists()


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    """Before anything of ours is run by it, which would only break."""
    old = tmp_path / "python3.9"
    old.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = (3, 9)\nexec(sys.argv[sys.argv.index('-c') + 1])\n")
    old.chmod(0o755)
    with pytest.raises(PermanentDriverError, match=r"Python 3\.10 or newer") as refused:
        Installer(ThisMachine(), tmp_path, str(old)).ask("room", {}, 30.0, changes=False)
    assert refused.value.why == "Python 3.9"
