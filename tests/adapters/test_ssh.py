"""Hosts that can't be reached, are not who they were, or let nobody in: real ones, over real SSH, by a driver that looks at them."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.adapters.ssh_shared import Hosts
from rollout.adapters.workers.systemd_ssh.driver import SystemdSsh
from rollout.adapters.workers.systemd_ssh.settings import SystemdSshSettings
from rollout.lab.processes import wait_until
from rollout.model.errors import DriverError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from tests.hosts import units
from tests.hosts.bed import USER, Bed, hosts

SYNC1, SYNC2, SYNC3 = (WorkerId(name) for name in ("sync1", "sync2", "sync3"))
PLACES = {SYNC1: "a", SYNC2: "b", SYNC3: "a"}
TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two hosts: a is always there, b is cut off now and then."""
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        for host in ("a", "b"):
            units.install(bed, host, {"worker@.service": units.unit(units.STEADY)})
        yield bed


@pytest.fixture
def workers(bed: Bed) -> Iterator[SystemdSsh]:
    """A driver that hasn't connected yet."""
    yield from _opened(bed)


def _opened(bed: Bed, places: dict[WorkerId, str] | None = None, **changed: object) -> Iterator[SystemdSsh]:
    workers = units.driver(units.settings_for(bed, **changed), places or PLACES)
    try:
        yield workers
    finally:
        workers.close()


def _refused(bed: Bed, **changed: object) -> DriverError:
    """Return what a look says with settings that don't fit."""
    workers = units.driver(units.settings_for(bed, **changed), {SYNC1: "a"})
    with pytest.raises(DriverError) as refused:
        workers.look([SYNC1], TIMEOUT_S)
    # Others who name the host in the same way would share its connection.
    workers.close()
    return refused.value


def test_a_look_is_one_round_trip_on_one_kept_connection(bed: Bed, workers: SystemdSsh) -> None:
    """However many workers there are; hosts are asked side by side, also by several threads at once."""
    before = {host: (bed.logged(host, "Accepted publickey"), bed.logged(host, "Starting session: command")) for host in ("a", "b")}
    threads = [threading.Thread(target=workers.look, args=(list(PLACES), TIMEOUT_S)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    workers.look(list(PLACES), TIMEOUT_S)
    for host, (connections, commands) in before.items():
        assert bed.logged(host, "Accepted publickey") == connections + 1
        assert bed.logged(host, "Starting session: command") == commands + 13


def test_sessions_that_the_host_still_counts_are_waited_for(bed: Bed, workers: SystemdSsh) -> None:
    """As many as it gives at most are open; they end while a look waits for one, and those who don't end are named."""
    workers.look([SYNC1], TIMEOUT_S)
    settings = SystemdSshSettings.model_validate(units.settings_for(bed))
    # Who names the host in the same way shares its connection.
    transport = Hosts(settings.hosts, settings.connect_timeout_s).get("a").gateway(TIMEOUT_S).transport
    before = bed.logged("a", "Accepted publickey")
    taken = [transport.open_session() for _ in range(10)]
    end = threading.Timer(1.0, lambda: [one.close() for one in taken])
    end.start()
    assert set(workers.look([SYNC1], TIMEOUT_S)) == {SYNC1}
    end.join()
    assert bed.logged("a", "Accepted publickey") == before
    taken = [transport.open_session() for _ in range(10)]
    with pytest.raises(TransientDriverError, match="gives no session on a connection that stands"):
        workers.look([SYNC1], TIMEOUT_S)
    for one in taken:
        one.close()


def test_a_host_that_is_cut_off_fails_the_look_and_says_which(bed: Bed, workers: SystemdSsh) -> None:
    """Its workers are not "unknown to systemd". Nothing was sent, so a stop there may be tried again."""
    sent = bed.logged("b", "Starting session: command")
    with bed.unplugged("b"):
        for attempt in (lambda: workers.look([SYNC1, SYNC2], 1.0), lambda: workers.stop(SYNC2, 1.0), lambda: workers.start(SYNC2, 1.0)):
            began_s = time.monotonic()
            with pytest.raises(TransientDriverError) as failed:
                attempt()
            assert (failed.value.what, failed.value.where) == ("the host can't be reached", units.where(bed, "b"))
            assert failed.value.remedy == f"ssh -p 22 {USER}@{bed.addresses['b']} true"
            assert time.monotonic() - began_s < 5
        assert set(workers.look([SYNC1], TIMEOUT_S)) == {SYNC1}
    wait_until(lambda: units.sees(workers, SYNC2), 15, "b is seen again")
    assert bed.logged("b", "Starting session: command") == sent + 1


def test_a_connection_that_went_dead_is_replaced(bed: Bed, workers: SystemdSsh) -> None:
    """Nothing comes back on it, whatever became of its other end: a look ends in time, and the next one has a new connection."""
    workers.look([SYNC2], TIMEOUT_S)
    bed.signal_sessions("b", "STOP")
    try:
        began_s = time.monotonic()
        with pytest.raises(TransientDriverError, match="no answer in time") as failed:
            workers.look([SYNC2], 1.0)
        assert failed.value.where == units.where(bed, "b")
        assert failed.value.why == "the connection stands, and a session was asked for: no command was sent"
        assert time.monotonic() - began_s < 5
        assert set(workers.look([SYNC2], TIMEOUT_S)) == {SYNC2}
    finally:
        bed.signal_sessions("b", "KILL")
    # One that was ended at the other side is not even noticed.
    assert set(workers.look([SYNC2], TIMEOUT_S)) == {SYNC2}


def test_an_unknown_host_key_is_refused(bed: Bed, tmp_path: Path) -> None:
    """Nobody is trusted at first sight; the error says what to compare, and how to add it."""
    empty = tmp_path / "known_hosts"
    empty.touch()
    refused = _refused(bed, known_hosts=str(empty))
    address = bed.addresses["a"]
    assert isinstance(refused, PermanentDriverError)
    assert (refused.what, refused.where) == ("the host's key is not known", units.where(bed, "a"))
    shown = subprocess.run(
        ["ssh-keygen", "-lf", bed.place / "a/hostkey.pub"], capture_output=True, text=True, timeout=10, check=True
    ).stdout.split()[1]
    assert refused.why == f"it shows ssh-ed25519 {shown}; {empty} has no key of {address}"
    assert refused.remedy.endswith(f"add it: `ssh-keyscan -p 22 {address} >> {empty}`")


def test_a_changed_host_key_is_refused(bed: Bed, tmp_path: Path) -> None:
    """Both keys are named: somebody else may be answering."""
    other = tmp_path / "known_hosts"
    other.write_text(f"{bed.addresses['a']} {bed.host_key('b')}\n")
    refused = _refused(bed, known_hosts=str(other))
    assert isinstance(refused, PermanentDriverError)
    assert (refused.what, refused.where) == ("the host's key has changed", units.where(bed, "a"))
    assert "somebody else may be answering in its place" in refused.why
    assert f"ssh-keygen -R '{bed.addresses['a']}' -f {other}" in refused.remedy
    # Of several keys any will do, and hashed names are read.
    with other.open("a") as known:
        known.write(f"{bed.addresses['a']} {bed.host_key('a')}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", other], capture_output=True, timeout=10, check=True)
    for opened in _opened(bed, {SYNC1: "a"}, known_hosts=str(other)):
        assert set(opened.look([SYNC1], TIMEOUT_S)) == {SYNC1}
    with other.open("a") as known:
        known.write(f"@revoked * {bed.host_key('a')}\n")
    assert _refused(bed, known_hosts=str(other)).what == "the host shows a key that was revoked"


def test_a_key_that_the_host_does_not_take(bed: Bed, tmp_path: Path) -> None:
    """Wrong, locked or absent: said once, with what was tried."""
    for name, words in (("wrong", ""), ("locked", "a passphrase")):
        subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", words, "-f", tmp_path / name], timeout=10, check=True)
    refused = _refused(bed, identity_file=str(tmp_path / "wrong"))
    assert isinstance(refused, PermanentDriverError)
    assert (refused.what, refused.where) == (f"the host doesn't let {USER} in", units.where(bed, "a"))
    assert refused.why.startswith("tried: the key file (")
    assert refused.remedy.startswith(f"put the public key into {USER}'s authorized_keys there")
    assert _refused(bed, identity_file=str(tmp_path / "locked")).what == "the key file has a passphrase, which nobody is asked for here"
    assert _refused(bed, identity_file=str(tmp_path / "absent")).what == "the key file can't be read"


def test_keys_of_an_agent(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key file is named: the agent's will do, unless it is left out."""
    monkeypatch.setenv("HOME", str(tmp_path))
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", tmp_path / "agent"], stdout=subprocess.DEVNULL)
    try:
        wait_until((tmp_path / "agent").is_socket, 5, "the agent listens")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        subprocess.run(["ssh-add", "-q", bed.identity_file], timeout=10, check=True)
        for opened in _opened(bed, {SYNC1: "a"}, identity_file=None, agent=True):
            assert set(opened.look([SYNC1], TIMEOUT_S)) == {SYNC1}
        assert _refused(bed, identity_file=None, agent=False).what == f"the host doesn't let {USER} in"
    finally:
        agent.terminate()
        agent.wait(10)


def test_through_a_jump_host(bed: Bed, tmp_path: Path) -> None:
    """One host is reached from another, whose own key is checked as strictly."""
    settings = units.settings_for(bed)
    behind = settings["hosts"]
    assert isinstance(behind, dict)
    behind["b"]["jump"] = "a"
    workers = units.driver(settings, {SYNC2: "b"})
    before = bed.logged("b", f"Accepted publickey for {USER} from {bed.addresses['a']}")
    assert set(workers.look([SYNC2], TIMEOUT_S)) == {SYNC2}
    assert bed.logged("b", f"Accepted publickey for {USER} from {bed.addresses['a']}") == before + 1
    workers.close()
    (tmp_path / "known_hosts").touch()
    behind["a"]["known_hosts"] = str(tmp_path / "known_hosts")
    with pytest.raises(PermanentDriverError, match="the host's key is not known") as refused:
        units.driver(settings, {SYNC2: "b"}).look([SYNC2], TIMEOUT_S)
    assert refused.value.where == units.where(bed, "a")


def test_no_configuration_of_ssh_or_fabric_is_read(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the inventory is what is used, whoever runs it."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text(f"Host *\n  Hostname {bed.addresses['b']}\n  Port 1\n  ProxyCommand false\n")
    (tmp_path / ".fabric.yaml").write_text("port: 1\nuser: nobody\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for opened in _opened(bed, {SYNC1: "a"}):
        assert set(opened.look([SYNC1], TIMEOUT_S)) == {SYNC1}


def test_what_an_account_prints_by_itself_does_no_harm(bed: Bed, workers: SystemdSsh) -> None:
    """A greeting comes before every answer; the shell may be any."""
    bed.write("a", f"/home/{USER}/.bashrc", "echo Id=welcome; echo\n")
    assert set(workers.look([SYNC1], TIMEOUT_S)) == {SYNC1}
    bed.run("a", "rm", f"/home/{USER}/.bashrc")
    if shutil.which("fish"):
        bed.run("a", "usermod", "--shell", str(shutil.which("fish")), USER)
        try:
            assert set(workers.look([SYNC1], TIMEOUT_S)) == {SYNC1}
        finally:
            bed.run("a", "usermod", "--shell", "/bin/bash", USER)
