"""The hosts that tests boot leave nothing behind, and reach nothing of the machine's own."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rollout.lab.processes import wait_until
from tests.hosts.bed import hosts

_OWNER = """
import sys, time
from pathlib import Path
from tests.hosts.bed import hosts
with hosts(Path(sys.argv[1]), "a") as bed:
    print(bed.port, bed.init("a"), flush=True)
    time.sleep(60)
"""


def test_two_hosts_have_nothing_in_common_but_the_network(tmp_path: Path) -> None:
    with hosts(tmp_path, "a", "b") as bed, tempfile.NamedTemporaryFile() as ours:
        for name, other in (("a", "b"), ("b", "a")):
            assert bed.run(name, "hostname").strip() == name
            assert bed.run(name, "cat", "/proc/1/comm").strip() == "systemd"
            assert not bed.allows(name, "test", "-e", ours.name)
            assert bed.allows(name, "bash", "-c", f"exec 3<>/dev/tcp/{bed.addresses[other]}/22")
            # Its user may do nothing as root before somebody installs rules.
            assert not bed.allows(name, "sudo", "-n", "-l", "true")
        bed.write("a", "/usr/local/bin/mine", "mine")
        assert not bed.allows("b", "test", "-e", "/usr/local/bin/mine")
        assert not Path("/usr/local/bin/mine").exists()
        assert Path(ours.name).exists()


def test_hosts_can_share_a_directory_with_the_machine(tmp_path: Path) -> None:
    """And nothing around it; what is in it stays when they go."""
    (tmp_path / "ours/inner").mkdir(parents=True)
    with hosts(tmp_path / "beds", "a", "b", shared={tmp_path / "ours/inner": "/srv/of_tests/shared"}) as bed:
        bed.write("a", "/srv/of_tests/shared/from_a", "a")
        assert bed.run("b", "cat", "/srv/of_tests/shared/from_a") == "a"
        assert bed.run("b", "ls", "-A", "/srv/of_tests") == "shared\n"
    assert (tmp_path / "ours/inner/from_a").read_text() == "a"


def test_hosts_go_when_who_wanted_them_is_killed(tmp_path: Path) -> None:
    """Not even a SIGKILL leaves a systemd, a network or a cgroup on the machine."""
    with hosts(tmp_path / "able"):
        pass
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        port, init = owner.stdout.readline().split()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait(10)
    place = Path(f"/sys/class/net/{port}")
    wait_until(lambda: not place.exists() and not Path(f"/proc/{init}").exists(), 15, "nothing of it is left")
    wait_until(lambda: not list(Path("/sys/fs/cgroup").glob(f"**/{port}-a")), 5, "its cgroup is gone")
    wait_until(lambda: not (tmp_path / f"hosts{port.removeprefix('rollout')}" / "a").exists(), 5, "its disk is gone")
