"""
Real systemd hosts for tests, reached over real SSH (hosts.sh): each boots in about half a second.

Where a machine can't do it, a test skips and says why; with ROLLOUT_ALL_HOSTS set, as .ci/run does, it fails.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

SCRIPT = Path(__file__).with_name("hosts.sh")
USER = "deploy"
# Networks that are tried, one after the other: tests run side by side.
NETWORKS = 200
_NEEDED = ("sshd", "ssh-keygen", "ip", "unshare", "nsenter", "setpriv", "mount", "useradd", "hostname", "sudo", "visudo", "dbus-daemon")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Bed:
    """Hosts on a network of their own; *identity_file* lets `deploy` and root in. *shared*: see HOSTS_SHARED."""

    place: Path
    network: str
    port: str
    shared: str = ""
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def identity_file(self) -> Path:
        return self.place / "id"

    @property
    def known_hosts(self) -> Path:
        return self.place / "known_hosts"

    @property
    def here(self) -> str:
        """Return this machine's address on their network."""
        return f"{self.network}.1"

    def boot(self, name: str) -> None:
        """Add a host, and its key to known_hosts."""
        address = f"{self.network}.{11 + len(self.addresses)}"
        self.addresses[name] = address
        self._script("up", name, address)
        with self.known_hosts.open("a") as known:
            known.write(f"{address} {self.host_key(name)}\n")

    def host_key(self, name: str) -> str:
        kind, key, *_ = (self.place / name / "hostkey.pub").read_text().split()
        return f"{kind} {key}"

    def run(self, name: str, *argv: str, stdin: str = "") -> str:
        """Run something there as root, and return what it prints."""
        return self._script("sh", name, *argv, stdin=stdin)

    def allows(self, name: str, *argv: str) -> bool:
        """Run something there as `deploy`, and tell whether it succeeded."""
        return _script(self, ("sh", name, "runuser", "-u", USER, "--", *argv)).returncode == 0

    def logged(self, name: str, words: str, unit: str = "ssh") -> int:
        """Count the lines in the journal of a unit that hold *words*."""
        self.run(name, "journalctl", "--sync")
        return self.run(name, "journalctl", "--output=cat", "--unit", unit).count(words)

    def write(self, name: str, path: str, text: str, mode: str = "644") -> None:
        where = shlex.quote(path)
        self.run(name, "sh", "-c", f"mkdir -p $(dirname {where}) && cat >{where} && chmod {mode} {where}", stdin=text)

    @contextmanager
    def unplugged(self, name: str) -> Iterator[None]:
        """Pull its network cable meanwhile."""
        self._script("unplug", name)
        try:
            yield
        finally:
            self._script("plug", name)

    def signal_sessions(self, name: str, number: str) -> None:
        """Send the processes of all SSH sessions of `deploy` there a signal, such as KILL."""
        find = f"for p in /proc/[0-9]*; do grep -qs '^sshd: {USER}' $p/cmdline && kill -$0 ${{p#/proc/}}; done; true"
        self.run(name, "sh", "-c", find, number)

    def init(self, name: str) -> int:
        """Return the process id of its systemd."""
        return int(self._script("init", name))

    def _script(self, *argv: str, stdin: str = "") -> str:
        done = _script(self, argv, stdin)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout


def _script(bed: Bed, argv: Sequence[str], stdin: str = "") -> "subprocess.CompletedProcess[str]":
    ours = {"HOSTS_DIR": str(bed.place), "HOSTS_NET": bed.network, "HOSTS_IF": bed.port, "HOSTS_SHARED": bed.shared}
    ours |= {"HOSTS_OWNER": str(os.getpid()), "PATH": _PATH}
    return subprocess.run([SCRIPT, *argv], env=ours, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)


@contextmanager
def hosts(place: Path, *names: str, shared: Mapping[Path, str] | None = None) -> Iterator[Bed]:
    """
    Boot hosts below *place*, and leave nothing of them. Skips, or fails where they must be.

    *shared*: directories of this machine that all of them have, too, and where; not below /tmp, /run or /dev.
    """
    if why := _what_is_missing():
        _cannot(why)
    # The system's temporary directory may be long, and is closed to others: a host's sshd reads nothing below it.
    bed = _network(place, "\n".join(f"{here}\t{there}" for here, there in (shared or {}).items()))
    try:
        try:
            for name in names:
                bed.boot(name)
        except AssertionError as error:
            _cannot(f"no host boots here: {error}")
        yield bed
    finally:
        done = _script(bed, ("net-down",))
        assert done.returncode == 0, done.stderr


def _network(place: Path, shared: str) -> Bed:
    said = ""
    for number in range(NETWORKS):
        # Different tests begin at different ones.
        which = 10 + (os.getpid() + number) % NETWORKS
        bed = Bed(place / f"hosts{which}", f"10.77.{which}", f"rollout{which}", shared)
        done = _script(bed, ("net-up",))
        if done.returncode == 0:
            return bed
        said = done.stderr
        if "is taken" not in said:
            _script(bed, ("net-down",))
    return _cannot(f"no network can be made here: {said}")


def _what_is_missing() -> str:
    if os.geteuid() != 0:
        return "hosts in namespaces are made by root only"
    missing = [name for name in _NEEDED if shutil.which(name, path=_PATH) is None]
    if not Path("/lib/systemd/systemd").exists():
        missing.append("systemd")
    return f"not installed: {', '.join(missing)} (.ci/run installs them)" if missing else ""


def _cannot(why: str) -> NoReturn:
    if os.environ.get("ROLLOUT_ALL_HOSTS"):
        pytest.fail(f"{why}, and here it must be possible")
    pytest.skip(why)
