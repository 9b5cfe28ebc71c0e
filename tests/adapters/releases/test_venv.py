"""Environments at a target that can't be made, or not to the end: what is then said, and that nothing of them is ever used."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rollout.adapters.releases import artefacts, venv
from rollout.adapters.releases.venv import VenvReleases, build
from rollout.lab.processes import wait_until
from rollout.model.errors import InvalidFileError, OutcomeUnknownError, PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.release import Release
from rollout.simulation.rehearse import set_stage
from tests.adapters.processes import another, kill
from tests.contracts.artefacts import shared_venvs, write_configuration, write_lock, write_locks

SYNC1, CLIENT1 = WorkerId("sync1"), WorkerId("client1")
TIMEOUT_S = 60.0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Locks, a configuration, and a target at which nothing is yet."""
    write_locks(tmp_path / "locks")
    (tmp_path / "target").mkdir()
    write_configuration(tmp_path / "config", sync1={})
    return tmp_path


@pytest.fixture
def stocked(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with environments that other tests have made."""
    (site / "target/venvs").symlink_to(shared_venvs(tmp_path_factory))
    return site


def _releases(site: Path) -> VenvReleases:
    return VenvReleases(site / "target", site / "locks", (SYNC1, CLIENT1))


def _assert_unusable(site: Path, release: Release) -> None:
    """It isn't there for anybody, and the link can't be set to it."""
    assert release.id not in _releases(site).prepared()
    with pytest.raises(PermanentDriverError, match="is not prepared"):
        _releases(site).activate(SYNC1, release.id)
    assert _releases(site).activations([SYNC1]) == {}


def _prepare(connection: Connection, site: Path, release: Release) -> None:
    connection.send("begins")
    _releases(site).prepare(release, TIMEOUT_S)


def _killed_while_preparing(site: Path, release: Release, holds: Callable[[], bool]) -> None:
    with another(_prepare, site, release) as (process, _):
        wait_until(holds, 20, "it is in the middle")
        kill(process)


def test_killed_while_it_installs_and_done_again(site: Path) -> None:
    """The installer outlives who started it and is waited for; what it leaves was never proven, so it is made anew."""
    release = _releases(site).identify_first("2.0.0", site / "config")
    place = site / "target/venvs" / release.artefact_lock[:12]
    _killed_while_preparing(site, release, (place / "bin/python").is_symlink)
    with (site / "target/rollout/prepare.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _assert_unusable(site, release)
    done = _releases(site).prepare(release, TIMEOUT_S)
    assert _releases(site).prepared() == {release.id: done}
    assert done.deltas == ("93/01_old.sql", "94/01_new.sql", "94/02_code.py", "94/03_index.sql.postgres")


def test_two_do_not_prepare_at_once(stocked: Path) -> None:
    """One waits while the other, or what is left of it, is at work."""
    first = _releases(stocked).prepare(_releases(stocked).identify_first("1.0.0", stocked / "config"), TIMEOUT_S)
    second = _releases(stocked).identify(None, None, first.id, next_generation=True)
    thread = threading.Thread(target=_releases(stocked).prepare, args=(second, TIMEOUT_S))
    with (stocked / "target/rollout/prepare.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread.start()
        thread.join(1.0)
        assert set(_releases(stocked).prepared()) == {first.id}
    thread.join(TIMEOUT_S)
    assert set(_releases(stocked).prepared()) == {first.id, second.id}


def test_killed_before_it_is_checked_and_done_again(stocked: Path) -> None:
    """Everything of it is in place by then but the manifest: it is not there."""
    checked = stocked / "checked"
    config = write_configuration(stocked / "config", {"first_check": str(checked)})
    release = _releases(stocked).identify_first("1.0.0", config)
    _killed_while_preparing(stocked, release, lambda: checked.exists() and checked.read_text() != "")
    os.kill(int(checked.read_text()), signal.SIGKILL)
    assert (stocked / "target/releases" / release.id / "venv").is_symlink()
    _assert_unusable(stocked, release)
    _releases(stocked).prepare(release, TIMEOUT_S)
    _releases(stocked).activate(SYNC1, release.id)
    assert (stocked / "target/current/sync1/venv/bin/python").exists()


def test_what_takes_too_long_is_ended_with_all_that_it_started(site: Path) -> None:
    """Whether it would have been done is not known; nothing goes on writing where the next attempt builds."""
    release = _releases(site).identify_first("2.0.0", site / "config")
    with pytest.raises(OutcomeUnknownError, match="longer than 1 s"):
        _releases(site).prepare(release, 1.0)
    place = os.fsencode(site / "target/venvs")
    wait_until(lambda: not any(place in line for line in _command_lines()), 0.5, "nobody builds there")
    _assert_unusable(site, release)


def _command_lines() -> list[bytes]:
    found: list[bytes] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


def test_a_wheel_with_another_hash_is_refused_in_the_words_of_the_installer(stocked: Path) -> None:
    """What was recorded is what is installed, or nothing is."""
    write_lock(stocked / "locks", "2.0.0", "0" * 64)
    release = _releases(stocked).identify_first("2.0.0", stocked / "config")
    with pytest.raises(PermanentDriverError, match="installing ended with status 1") as refused:
        _releases(stocked).prepare(release, TIMEOUT_S)
    assert "DO NOT MATCH THE HASHES" in refused.value.why
    assert "0" * 64 in refused.value.why
    _assert_unusable(stocked, release)


def test_a_lock_that_was_changed_meanwhile_is_not_installed(site: Path) -> None:
    """The plan names the lock that it was made with; neither another one nor none is taken for it."""
    release = _releases(site).identify_first("2.0.0", site / "config")
    lock = site / "locks/2.0.0.txt"
    lock.write_text(lock.read_text() + "# one more line\n")
    with pytest.raises(PermanentDriverError, match=r"the lock of 2\.0\.0 has changed"):
        _releases(site).prepare(release, TIMEOUT_S)
    lock.unlink()
    with pytest.raises(PermanentDriverError, match=r"no recorded lock for 2\.0\.0"):
        _releases(site).prepare(release, TIMEOUT_S)
    assert not (site / "target/venvs").exists()
    _assert_unusable(site, release)


def test_a_lock_that_is_not_recorded_is_named_with_those_that_are(site: Path) -> None:
    """So that a slip of the pen is seen."""
    with pytest.raises(PermanentDriverError) as refused:
        _releases(site).identify_first("2.0.1", site / "config")
    assert refused.value.where == str(site / "locks/2.0.1.txt")
    assert refused.value.why == "locks: 1.0.0, 2.0.0"


def test_a_lock_that_installs_another_version_is_refused(stocked: Path) -> None:
    """Its name promises one thing and its content is another."""
    (stocked / "locks/3.0.0.txt").write_bytes((stocked / "locks/1.0.0.txt").read_bytes())
    release = _releases(stocked).identify_first("3.0.0", stocked / "config")
    with pytest.raises(PermanentDriverError, match=r"the lock of 3\.0\.0 installs 1\.0\.0"):
        _releases(stocked).prepare(release, TIMEOUT_S)
    _assert_unusable(stocked, release)


def test_an_environment_that_was_damaged_is_not_used(site: Path) -> None:
    """It was proven once, and is asked again before anything relies on it."""
    release = _releases(site).identify_first("1.0.0", site / "config")
    place = site / "target/venvs" / release.artefact_lock[:12]
    (place / "bin").mkdir(parents=True)
    (place / venv.PROVEN).write_text("1.0.0\n")
    with pytest.raises(PermanentDriverError, match="doesn't import"):
        _releases(site).prepare(release, TIMEOUT_S)
    (place / "bin/python").write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'synapse'\" >&2\nexit 1\n")
    (place / "bin/python").chmod(0o700)
    with pytest.raises(PermanentDriverError) as refused:
        _releases(site).prepare(release, TIMEOUT_S)
    assert refused.value.why == "ModuleNotFoundError: No module named 'synapse'"
    _assert_unusable(site, release)


def test_a_configuration_that_the_homeserver_refuses_is_refused_in_its_words(stocked: Path) -> None:
    """That of any worker; what was activated before stays so, and the corrected one is another release."""
    good = _releases(stocked).prepare(_releases(stocked).identify_first("1.0.0", stocked / "config"), TIMEOUT_S)
    config = write_configuration(stocked / "refused", sync1={}, client1={"refused": "Missing mandatory `server_name` config option."})
    release = _releases(stocked).identify("1.0.0", str(config), good.id, next_generation=False)
    for _ in range(2):
        with pytest.raises(PermanentDriverError) as refused:
            _releases(stocked).prepare(release, TIMEOUT_S)
        assert refused.value.what == "Synapse 1.0.0 refuses the configuration"
        assert refused.value.why == "client1: Missing mandatory `server_name` config option."
        _assert_unusable(stocked, release)
    assert set(_releases(stocked).prepared()) == {good.id}


def test_a_release_keeps_the_configuration_that_it_was_identified_with(stocked: Path) -> None:
    """What is edited afterwards is another release, and the running one never changes under a worker."""
    config = write_configuration(stocked / "config", {"max_upload_size": "1M"})
    release = _releases(stocked).prepare(_releases(stocked).identify_first("1.0.0", config), TIMEOUT_S)
    before = (stocked / "target/releases" / release.id / "config/homeserver.yaml").read_text()
    write_configuration(config, {"max_upload_size": "2M"})
    assert _releases(stocked).identify(None, str(config), release.id, next_generation=False).id != release.id
    assert (stocked / "target/releases" / release.id / "config/homeserver.yaml").read_text() == before
    assert '"1M"' in before


@pytest.mark.parametrize("trouble", ["nothing there", "no homeserver.yaml", "no YAML", "a link to nowhere"])
def test_a_configuration_that_cannot_be_read_is_refused(site: Path, trouble: str) -> None:
    """Before anything is prepared."""
    config = site / "config"
    match trouble:
        case "nothing there":
            config = site / "elsewhere"
        case "no homeserver.yaml":
            (config / "homeserver.yaml").unlink()
        case "no YAML":
            (config / "homeserver.yaml").write_text("server_name: [")
        case _:
            (config / "log.yaml").symlink_to("nowhere.yaml")
    with pytest.raises(PermanentDriverError) as refused:
        _releases(site).identify_first("1.0.0", config)
    assert str(config) in refused.value.where or str(site / "target/configs") in refused.value.where


def test_a_disk_without_room_is_left_alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs there needs some of it."""
    monkeypatch.setattr(artefacts, "FREE_BYTES_MIN", 10**18)
    release = _releases(site).identify_first("1.0.0", site / "config")
    with pytest.raises(PermanentDriverError, match="1000000000000 MB are needed"):
        _releases(site).prepare(release, TIMEOUT_S)
    assert not (site / "target/venvs").exists()


def test_room_is_asked_for_by_what_runs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice what the environment that runs takes, where that is more than Synapse's own."""
    releases = _releases(site)
    first = releases.identify_first("1.0.0", site / "config")
    assert releases.room(first).needed_bytes == artefacts.FREE_BYTES_MIN
    running = releases.prepare(first, TIMEOUT_S)
    releases.activate(SYNC1, running.id)
    (site / "target/venvs" / running.artefact_lock[:12] / "modules").write_bytes(os.urandom(3_000_000))
    monkeypatch.setattr(artefacts, "FREE_BYTES_MIN", 1_000_000)
    room = releases.room(releases.identify("2.0.0", None, running.id, next_generation=False))
    assert 6_000_000 < room.needed_bytes < 500_000_000
    assert "the environment that runs" in room.basis


def test_a_pool_is_as_large_as_a_workers_own_configuration_says(stocked: Path) -> None:
    """The worker's file over the shared one, all its databases together, Twisted's default where neither says; no guess otherwise."""
    two = {"one": {"name": "psycopg2", "args": {"cp_max": 7}}, "two": {"name": "psycopg2", "args": {}}}
    config = write_configuration(
        stocked / "config", {"database": {"name": "psycopg2", "args": {"cp_max": 20}}}, sync1={"databases": two}, client1={}
    )
    releases = _releases(stocked)
    release = releases.identify_first("1.0.0", config)
    stranger = WorkerId("other1")
    assert releases.connections(release, [SYNC1, CLIENT1, stranger]) == {SYNC1: 12, CLIENT1: 20, stranger: 20}
    sqlite = write_configuration(stocked / "sqlite", {"database": {"name": "sqlite3"}}, sync1={})
    assert releases.connections(releases.identify_first("1.0.0", sqlite), [SYNC1]) == {}


def test_a_migration_is_done_by_the_code_of_the_release(stocked: Path) -> None:
    """With its configuration, each time that it is asked for; one that isn't prepared migrates nothing."""
    config = write_configuration(stocked / "config", {"database": str(stocked / "database")})
    release = _releases(stocked).identify_first("1.0.0", config)
    with pytest.raises(PermanentDriverError, match="is not prepared"):
        _releases(stocked).migrate(release.id)
    _releases(stocked).prepare(release, TIMEOUT_S)
    assert not (stocked / "database").exists()
    _releases(stocked).migrate(release.id)
    assert (stocked / "database").read_text() == "1.0.0 (b=develop)\n"


def test_a_migration_that_fails_is_told_in_its_last_words(stocked: Path) -> None:
    """Not in all of them."""
    config = write_configuration(stocked / "config", {"migration_fails": "canceling statement due to lock timeout"})
    release = _releases(stocked).prepare(_releases(stocked).identify_first("1.0.0", config), TIMEOUT_S)
    with pytest.raises(PermanentDriverError, match="the migration ended with status 1") as failed:
        _releases(stocked).migrate(release.id)
    lines = failed.value.why.splitlines()
    assert (lines[-2], lines[-1]) == ("statement 99", "canceling statement due to lock timeout")
    assert len(lines) < 20


def test_settings_are_checked() -> None:
    """A key that is missing or wrong is named."""
    with pytest.raises(InvalidFileError) as refused:
        build({"target": "/srv/synapse", "lock": "locks"}, set_stage({SYNC1: ("sync", "sync")}).inventory)
    assert (refused.value.what, refused.value.remedy) == ('unknown key "lock"', "locks")


def test_a_lock_that_was_recorded_anew_is_another_release_of_the_same_version(stocked: Path) -> None:
    """As after a security fix in a library: what is named is what its lock says today; what isn't named stays."""
    releases = _releases(stocked)
    base = releases.prepare(releases.identify_first("1.0.0", stocked / "config"), TIMEOUT_S)
    assert releases.identify("1.0.0", None, base.id, next_generation=False).id == base.id
    lock = stocked / "locks/1.0.0.txt"
    lock.write_text(f"{lock.read_text()}# recorded anew\n")
    anew = releases.identify("1.0.0", None, base.id, next_generation=False)
    assert (anew.version, anew.generation) == ("1.0.0", 1)
    assert anew.artefact_lock != base.artefact_lock
    assert releases.identify(None, None, base.id, next_generation=False).id == base.id
