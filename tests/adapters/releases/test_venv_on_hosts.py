"""Environments on hosts that can't be made, or not to the end: what is then said and by whom, and that nothing of them is ever used."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout.adapters.releases import artefacts
from rollout.adapters.releases.on_hosts.venv import VenvOnHosts
from rollout.adapters.releases.venv import build
from rollout.lab.processes import wait_until
from rollout.model.errors import InvalidFileError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings
from rollout.model.release import Release
from tests.contracts.artefacts import write_configuration, write_lock, write_locks
from tests.hosts import targets, units
from tests.hosts.bed import USER, Bed

SYNC1, CLIENT1 = WorkerId("sync1"), WorkerId("client1")
PLACES = {SYNC1: "a", CLIENT1: "b"}
HOSTS = ("a", "b")
# Making an environment takes seconds, but minutes on a machine that does much else.
TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    yield from targets.hosts_with_disks(tmp_path_factory, *HOSTS)


@dataclass
class Site:
    """A target at which nothing is yet, on both hosts, with locks and a configuration here."""

    bed: Bed
    here: Path
    target: str
    opened: list[VenvOnHosts] = field(default_factory=list)

    def open(self, **others: object) -> VenvOnHosts:
        """Open the driver anew, as another run of rollout does."""
        self.opened.append(targets.venv_on(self.bed, self.target, self.here / "locks", PLACES, **others))
        return self.opened[-1]

    def first(self, version: str = "1.0.0", **settings: object) -> Release:
        """Identify a release with a configuration that has these settings."""
        config = write_configuration(self.here / "config", settings, sync1={}, client1={})
        return self.open().identify_first(version, config)

    def there(self, host: str, *argv: str) -> str:
        return self.bed.run(host, *argv).strip()

    def ours(self, host: str) -> str:
        """List what runs there below the target."""
        # Whoever asks isn't found himself.
        return self.bed.run(host, "sh", "-c", 'pgrep -af "$0" || true', f"[{self.here.name[0]}]{self.here.name[1:]}")

    def unusable(self, release: Release, host: str = "a") -> None:
        """It isn't there for anybody, and no link can be set to it; nothing half-made has its name."""
        releases = self.open()
        assert release.id not in releases.prepared()
        assert release.id not in self.there(host, "ls", f"{self.target}/releases").split() if self._has_releases(host) else True
        with pytest.raises(PermanentDriverError, match="is not prepared"):
            releases.activate({"a": SYNC1, "b": CLIENT1}[host], release.id)
        assert releases.activations([SYNC1, CLIENT1]) == {}

    def _has_releases(self, host: str) -> bool:
        return self.bed.allows(host, "test", "-d", f"{self.target}/releases")


@pytest.fixture
def site(bed: Bed, tmp_path: Path) -> Iterator[Site]:
    target = f"{targets.DISK}/{tmp_path.name}"
    for host in HOSTS:
        targets.make(bed, host, target)
    write_locks(tmp_path / "locks")
    site = Site(bed, tmp_path, target)
    yield site
    for opened in site.opened:
        opened.close()


@pytest.fixture
def stocked(site: Site) -> Site:
    """The same with environments that other tests have made."""
    for host in HOSTS:
        site.there(host, "ln", "-s", targets.SHARED, f"{site.target}/venvs")
    return site


def _until_there(site: Site, host: str, path: str) -> None:
    wait_until(lambda: site.bed.allows(host, "test", "-e", path), TIMEOUT_S, f"{path} is on {host}")


def test_a_release_is_the_same_on_all_hosts_and_each_worker_has_its_link(stocked: Site) -> None:
    """One directory a release and host; a link names it, relative, so that the agent's `link` act is all that a switch takes."""
    releases = stocked.open()
    done = releases.prepare(stocked.first(), TIMEOUT_S)
    assert done.deltas == ("93/01_old.sql", "94/01_new.sql", "94/02_code.py", "94/03_index.sql.postgres")
    for worker, host in PLACES.items():
        link = f"{stocked.target}/current/{worker}"
        assert releases.activate_acts(worker, done.id) == ({"kind": "link", "link": link, "goal": f"../releases/{done.id}", "host": host},)
        assert releases.link_of(worker) == link
        releases.activate(worker, done.id)
        assert stocked.there(host, f"{link}/venv/bin/python", "-c", "import synapse; print(synapse.__version__)") == "1.0.0 (b=develop)"
        assert '"server_name": "example.org"' in stocked.there(host, "cat", f"{link}/config/homeserver.yaml")
    assert stocked.there("a", "ls", f"{stocked.target}/current") == SYNC1
    # Secrets are in a configuration: nobody but the account and the directory's group reads it.
    assert stocked.there("b", "stat", "-Lc", "%A %U", f"{stocked.target}/current/client1/config/homeserver.yaml") == f"-rw-r----- {USER}"


def test_a_full_disk_is_refused_with_what_is_free_and_what_is_needed(site: Site) -> None:
    """Before anything is made there. It is one host's, which is named; what the other has done is no release yet."""
    site.there("b", "mount", "-t", "tmpfs", "-o", f"size=100m,mode=2750,uid={site.there('b', 'id', '-u', USER)}", "disk", site.target)
    release = site.first()
    room = site.open().room(release)
    assert (room.needed_bytes, room.basis) == (500_000_000, "at least 2 × what an environment of Synapse's takes, on host b")
    assert 100_000_000 < room.free_bytes < 105_000_000
    with pytest.raises(PermanentDriverError, match="the disk is too full for a release") as refused:
        site.open().prepare(release, TIMEOUT_S)
    assert refused.value.where == f"{units.where(site.bed, 'b')}: {site.target}"
    assert refused.value.why == "104 MB are free, 500 MB are needed (at least 2 × what an environment of Synapse's takes)"
    assert not site.bed.allows("b", "test", "-e", f"{site.target}/venvs")
    site.unusable(release, "b")
    site.there("b", "umount", site.target)


def test_a_disk_that_becomes_full_leaves_nothing_but_the_reason(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else may need it meanwhile. What was made is removed, so that there is room to say why; with room it is made anew."""
    monkeypatch.setattr(artefacts, "FREE_BYTES_MIN", 1_000_000)
    site.there("b", "mount", "-t", "tmpfs", "-o", f"size=6m,mode=2750,uid={site.there('b', 'id', '-u', USER)}", "disk", site.target)
    release = site.first()
    with pytest.raises(PermanentDriverError, match="ended with status 1") as failed:
        site.open().prepare(release, TIMEOUT_S)
    assert failed.value.where == units.where(site.bed, "b")
    assert "the disk is full: " in failed.value.why
    assert f" kB are free at {site.target}" in failed.value.why
    assert site.there("b", "ls", f"{site.target}/venvs") == ""
    site.unusable(release, "b")
    site.there("b", "mount", "-o", "remount,size=100m", site.target)
    assert site.open().prepare(release, TIMEOUT_S).id == release.id
    site.there("b", "umount", site.target)


def test_a_host_that_is_away_is_named_and_nothing_is_begun(stocked: Site) -> None:
    """Not on the others either: what they have is asked first."""
    release = stocked.first()
    with stocked.bed.unplugged("b"):
        with pytest.raises(TransientDriverError, match="can't be reached") as refused:
            stocked.open(connect_timeout_s=2.0).prepare(release, TIMEOUT_S)
        assert refused.value.where == units.where(stocked.bed, "b")
        with pytest.raises(TransientDriverError, match="can't be reached"):
            stocked.open(connect_timeout_s=2.0).activations([SYNC1, CLIENT1])
    assert not stocked.bed.allows("a", "test", "-e", f"{stocked.target}/releases")
    stocked.unusable(release)


def test_a_cable_that_is_pulled_in_the_middle_ends_nothing(stocked: Site) -> None:
    """Pulled as soon as b's release looks at its configuration, which takes 20 s: b goes on by itself, and is asked until it answers."""
    begun = f"{stocked.target}/begun"
    release = stocked.first(first_check=begun)
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(stocked.open(connect_timeout_s=2.0).prepare, release, TIMEOUT_S)
        _until_there(stocked, "b", begun)
        with stocked.bed.unplugged("b"):
            time.sleep(12)
            assert not preparing.done()
        done = preparing.result(TIMEOUT_S)
    assert stocked.open().prepared() == {release.id: done}


def test_a_host_that_stays_away_leaves_it_unknown_and_doing_it_again_converges(stocked: Site) -> None:
    """Nobody knows what became of it there. Done again, it waits for what is still under way, if it is."""
    stocked.open().prepare(stocked.first(), TIMEOUT_S)
    begun = f"{stocked.target}/begun"
    release = stocked.first(first_check=begun)
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(stocked.open(connect_timeout_s=2.0).prepare, release, 8.0)
        _until_there(stocked, "b", begun)
        with stocked.bed.unplugged("b"), pytest.raises(OutcomeUnknownError) as unknown:
            preparing.result(TIMEOUT_S)
    assert unknown.value.what in {"what became of `prepare` there is not known", "`prepare` has not ended in time there"}
    assert "checking the configuration" in unknown.value.why
    done = stocked.open().prepare(release, TIMEOUT_S)
    assert stocked.open().prepared()[release.id] == done


def test_an_installer_that_is_killed_is_noticed_and_what_it_left_is_made_anew(site: Site) -> None:
    """What it left was never proven."""
    release = site.first()
    venv = f"{site.target}/venvs/{release.artefact_lock[:12]}"
    with ThreadPoolExecutor(1) as pool:
        preparing = pool.submit(site.open().prepare, release, TIMEOUT_S)
        _until_there(site, "b", f"{venv}/bin/python")
        site.there("b", "pkill", "-KILL", "-f", f"^.*{site.here.name}.*$")
        with pytest.raises(TransientDriverError, match="`prepare` was ended there") as ended:
            preparing.result(TIMEOUT_S)
    assert ended.value.where == units.where(site.bed, "b")
    assert "its process ended without a word" in ended.value.why
    site.unusable(release, "b")
    assert site.bed.allows("b", "test", "-d", venv)
    assert not site.bed.allows("b", "test", "-e", f"{venv}/PROVEN")
    assert site.open().prepare(release, TIMEOUT_S).id == release.id


def test_what_takes_too_long_is_ended_there_with_all_that_it_started(site: Site) -> None:
    release = site.first("2.0.0")
    with pytest.raises(OutcomeUnknownError, match="took longer than 1 s") as unknown:
        site.open().prepare(release, 1.0)
    assert unknown.value.where.startswith("host ")
    for host in HOSTS:
        wait_until(lambda host=host: site.ours(host) == "", 5, "nobody builds there")  # type: ignore[misc]
        assert site.there(host, "ls", f"{site.target}/venvs") == ""
    site.unusable(release)


def test_a_wheel_with_another_hash_is_refused_in_the_words_of_the_installer(site: Site) -> None:
    """What was recorded is what is installed, or nothing is. A wheel that the lock doesn't name isn't even sent."""
    write_lock(site.here / "locks", "2.0.0", "0" * 64)
    release = site.first("2.0.0")
    with pytest.raises(PermanentDriverError, match="installing ended with status 1") as refused:
        site.open().prepare(release, TIMEOUT_S)
    assert refused.value.where == units.where(site.bed, "a")
    assert f"also {units.where(site.bed, 'b')}: installing ended with status 1" in refused.value.why
    assert "No matching distribution found for matrix-synapse==2.0.0" in refused.value.why
    assert site.there("a", "ls", f"{site.target}/locks/{release.artefact_lock[:12]}") == "requirements.txt"
    # … and one that is there under its name, whoever put it there, is not what was recorded.
    place = f"{site.target}/locks/{release.artefact_lock[:12]}"
    for host in HOSTS:
        site.bed.write(host, f"{place}/matrix_synapse-2.0.0-py3-none-any.whl", "no wheel")
    with pytest.raises(PermanentDriverError, match="installing ended with status 1") as refused:
        site.open().prepare(release, TIMEOUT_S)
    assert "DO NOT MATCH THE HASHES" in refused.value.why
    site.unusable(release)


def test_a_lock_that_was_changed_here_or_there_is_not_installed(site: Site) -> None:
    """The plan names the lock that it was made with."""
    release = site.first()
    lock = site.here / "locks/1.0.0.txt"
    recorded = lock.read_text()
    lock.write_text(f"{recorded}# one more line\n")
    with pytest.raises(PermanentDriverError, match=r"the lock of 1\.0\.0 has changed"):
        site.open().prepare(release, TIMEOUT_S)
    lock.write_text(recorded)
    for host in HOSTS:
        site.bed.write(host, f"{site.target}/locks/{release.artefact_lock[:12]}/requirements.txt", "somebody-else==1")
    with pytest.raises(PermanentDriverError, match=r"the lock of 1\.0\.0 is not there as it was sent"):
        site.open().prepare(release, TIMEOUT_S)
    site.unusable(release)


def test_a_lock_that_installs_another_version_is_refused(stocked: Site) -> None:
    (stocked.here / "locks/3.0.0.txt").write_bytes((stocked.here / "locks/1.0.0.txt").read_bytes())
    release = stocked.first("3.0.0")
    with pytest.raises(PermanentDriverError, match=r"the lock of 3\.0\.0 installs 1\.0\.0"):
        stocked.open().prepare(release, TIMEOUT_S)
    stocked.unusable(release)


def test_a_configuration_that_the_homeserver_refuses_is_refused_in_its_words(stocked: Site) -> None:
    """By the host of the worker whose it is."""
    config = write_configuration(stocked.here / "refused", sync1={}, client1={"refused": "Missing mandatory `server_name` config option."})
    release = stocked.open().identify_first("1.0.0", config)
    with pytest.raises(PermanentDriverError, match=r"Synapse 1\.0\.0 refuses the configuration") as refused:
        stocked.open().prepare(release, TIMEOUT_S)
    assert refused.value.where.startswith(units.where(stocked.bed, "b"))
    assert refused.value.why == "client1: Missing mandatory `server_name` config option."
    stocked.unusable(release, "b")


def test_a_host_that_lost_a_configuration_gets_it_from_another(stocked: Site) -> None:
    release = stocked.first()
    for place in ("configs", "releases"):
        stocked.there("b", "rm", "-rf", f"{stocked.target}/{place}")
    stocked.open().prepare(release, TIMEOUT_S)
    assert set(stocked.open().prepared()) == {release.id}
    # What was changed there is not what was identified.
    for host in HOSTS:
        stocked.there(host, "sh", "-c", 'echo >>"$0"', f"{stocked.target}/configs/{release.config_digest[:12]}/homeserver.yaml")
    with pytest.raises(PermanentDriverError, match="the configuration is at no host as it was"):
        stocked.open().identify("2.0.0", None, release.id, next_generation=False)


def test_two_do_not_prepare_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Two operators, each with a tool of their own: one waits for the other, and both are told the same. Where they are is in the log."""
    caplog.set_level("INFO")
    release = site.first()
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(site.open().prepare, release, TIMEOUT_S) for _ in range(2))
        assert first.result() == second.result()
    for host in HOSTS:
        for stage in ("waiting for what else is being done there", "making an environment"):
            assert f"{units.where(site.bed, host)}: {stage}" in caplog.messages


@pytest.mark.parametrize("lacks", ["python", "venv"])
def test_a_host_without_python_is_told_what_to_install(site: Site, lacks: str) -> None:
    """Python itself, or what Debian splits off it."""
    if lacks == "python":
        with pytest.raises(PermanentDriverError) as refused:
            site.open(python="python9.99").identify_first("1.0.0", write_configuration(site.here / "config"))
        assert (refused.value.what, refused.value.where) == ("there is no python9.99", units.where(site.bed, "a"))
        assert "python3-venv" in refused.value.remedy
        return
    release = site.first()
    module = site.bed.run("b", "runuser", "-u", USER, "--", "python3", "-c", "import ensurepip as it; print(it.__path__[0])").strip()
    site.there("b", "mv", module, f"{module}.away")
    try:
        with pytest.raises(PermanentDriverError, match="its Python can't make virtual environments") as refused:
            site.open().prepare(release, TIMEOUT_S)
        assert refused.value.where.startswith(units.where(site.bed, "b"))
        assert "-venv, there" in refused.value.remedy
    finally:
        site.there("b", "mv", f"{module}.away", module)


def test_a_target_that_is_not_there_or_not_ours_is_told_how_to_make(site: Site) -> None:
    for host in HOSTS:
        site.there(host, "rm", "-r", site.target)
    with pytest.raises(PermanentDriverError, match="the target can't be read") as refused:
        site.open().prepared()
    assert f"-m 2750 {site.target}" in refused.value.remedy
    with pytest.raises(PermanentDriverError, match="the target can't be written to"):
        site.first()


def test_a_migration_is_done_on_mains_host_and_outlives_its_connection(stocked: Site) -> None:
    """Never interrupted, however long nobody hears of it; a release that isn't there migrates nothing."""
    release = stocked.first(database=f"{stocked.target}/database", migration_takes_s=8)
    with pytest.raises(PermanentDriverError, match="is not prepared"):
        stocked.open().migrate(release.id)
    stocked.open().prepare(release, TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool:
        migrating = pool.submit(stocked.open(connect_timeout_s=2.0).migrate, release.id)
        _until_there(stocked, "a", f"{stocked.target}/database.begun")
        with stocked.bed.unplugged("a"):
            time.sleep(11)
        migrating.result(TIMEOUT_S)
    assert stocked.there("a", "cat", f"{stocked.target}/database") == "1.0.0 (b=develop)"
    assert not stocked.bed.allows("b", "test", "-e", f"{stocked.target}/database")


def test_a_migration_that_fails_is_told_in_its_last_words(stocked: Site) -> None:
    release = stocked.first(migration_fails="canceling statement due to lock timeout")
    stocked.open().prepare(release, TIMEOUT_S)
    with pytest.raises(PermanentDriverError, match="the migration ended with status 1") as failed:
        stocked.open().migrate(release.id)
    assert failed.value.where == units.where(stocked.bed, "a")
    assert failed.value.why.endswith("statement 99\ncanceling statement due to lock timeout")


def test_hosts_are_those_of_the_workers_unless_it_says_others() -> None:
    """`venv` makes releases where the workers are; a worker that is on no host, and a target that is no place there, are named."""
    known = {"a": {"address": "a.example.org", "user": USER}}
    on_a = units.inventory({SYNC1: "a", CLIENT1: "local"})
    inventory = on_a.model_copy(update={"workers_driver": DriverSettings.model_validate({"driver": "systemd_ssh", "hosts": known})})
    assert isinstance(build({"target": "/srv/x", "locks": "locks"}, inventory), VenvOnHosts)
    with pytest.raises(InvalidFileError, match="worker sync1 is on host 'a', which is not among the hosts"):
        build({"target": "/srv/x", "locks": "locks", "hosts": {"b": known["a"]}}, inventory)
    with pytest.raises(InvalidFileError, match="target can't be 'srv/x'"):
        build({"target": "srv/x", "locks": "locks", "hosts": known}, inventory)
