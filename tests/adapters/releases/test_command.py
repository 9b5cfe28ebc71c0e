"""Releases by the user's own commands: when they are run and with what, and that nothing is believed that wasn't seen."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from rollout.adapters.releases.command import CommandReleases, build
from rollout.adapters.releases.commands import filled
from rollout.adapters.settings import InvalidSettingsError
from rollout.lab.processes import wait_until
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from rollout.model.release import Release
from rollout.ports.privileges import Privileges
from tests.contracts.artefacts import write_configuration
from tests.hosts import targets, units
from tests.hosts.bed import USER, Bed, hosts

SYNC1, CLIENT1 = WorkerId("sync1"), WorkerId("-it's a $(worker)")
TIMEOUT_S = 300.0


class Site:
    """A target on this machine, with base (1.0.0) and new (2.0.0) prepared, and base activated for SYNC1."""

    def __init__(self, place: Path, **commands: object) -> None:
        self.target = place / "target"
        self.target.mkdir()
        self.state = self.target / "soft"
        self._soft = {**targets.soft_commands(targets.soft_here(place), str(self.state)), **commands}
        self.config = write_configuration(place / "config")
        self.base = self.open().prepare(self.open().identify_first("1.0.0", self.config), TIMEOUT_S)
        self.open().activate(SYNC1, self.base.id)
        self.new = self.open().prepare(self.identify("2.0.0"), TIMEOUT_S)
        (self.state / "done").unlink()

    def open(self) -> CommandReleases:
        return targets.command_on(None, str(self.target), {SYNC1: "local", CLIENT1: "local"}, **self._soft)

    def identify(self, version: str | None, config: Path | None = None) -> Release:
        return self.open().identify(version, None if config is None else str(config), self.base.id, next_generation=config is None)

    def done(self) -> list[str]:
        """Return what was run since the last time, but for questions."""
        lines = (self.state / "done").read_text().splitlines() if (self.state / "done").exists() else []
        (self.state / "done").unlink(missing_ok=True)
        return [line for line in lines if line.split()[0] not in {"get", "available"}]

    def installed(self, worker: WorkerId = SYNC1) -> str:
        return (self.state / f"worker-{worker}").read_text().strip()

    def told(self, worker: WorkerId = SYNC1) -> str | None:
        activation = self.open().activations([worker]).get(worker)
        return None if activation is None else activation.release


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_worker_goes_forth_and_back_by_its_own_commands(site: Site) -> None:
    """What it says already is not done again; back is to what it was told before; a worker's name may be anything."""
    site.open().activate(SYNC1, site.new.id)
    assert (site.done(), site.installed(), site.told()) == (["set sync1 2.0.0"], "2.0.0", site.new.id)
    site.open().activate(SYNC1, site.new.id)
    assert site.done() == []
    site.open().activate(SYNC1, site.base.id)
    assert (site.done(), site.installed(), site.told()) == (["back sync1 1.0.0"], "1.0.0", site.base.id)
    site.open().activate(SYNC1, site.new.id)
    assert site.done() == ["set sync1 2.0.0"]
    site.open().activate(CLIENT1, site.new.id)
    assert (site.done(), site.installed(CLIENT1)) == ([f"set {CLIENT1} 2.0.0"], "2.0.0")


def test_the_acts_are_data_that_end_in_the_switch_of_a_link(site: Site) -> None:
    """So that the agent at the target can do them under a worker's number, and the dead-man can see what it runs."""
    before, command, link = site.open().activate_acts(SYNC1, site.new.id)
    current = str(site.target / "current" / SYNC1)
    assert link == {"kind": "link", "link": current, "goal": f"../releases/{site.new.id}"}
    assert before == {"kind": "link", "link": str(site.target / "before" / SYNC1), "goal": f"../releases/{site.base.id}"}
    assert (command["kind"], command["timeout_s"]) == ("command", 20.0)
    assert command["argv"][3] == "2.0.0"
    assert site.open().link_of(SYNC1) == current


def test_a_command_that_did_not_do_it_is_no_activation(site: Site) -> None:
    """It ended well, and what is installed is another: the link stays, so nobody takes the worker for a new one."""
    (site.state / "stuck").touch()
    with pytest.raises(PermanentDriverError, match=r"activate \(.*\) ended with status 1") as refused:
        site.open().activate(SYNC1, site.new.id)
    assert refused.value.where == SYNC1
    assert refused.value.why.splitlines() == ["this machine", "it is done, and now it says that it is 1.0.0, not 2.0.0"]
    assert site.told() == site.base.id


def test_a_command_that_fails_is_told_in_its_words_and_gone_back_from(site: Site) -> None:
    (site.state / "broken-set").touch()
    with pytest.raises(PermanentDriverError, match="ended with status 100") as refused:
        site.open().activate(SYNC1, site.new.id)
    assert refused.value.why.endswith("E: no space left for sync1 2.0.0")
    assert site.told() == site.base.id
    site.done()
    # Half done, it is gone back from as from the whole.
    (site.state / f"worker-{SYNC1}").write_text("2.0.0\n")
    site.open().activate(SYNC1, site.base.id)
    assert (site.done(), site.installed()) == (["back sync1 1.0.0"], "1.0.0")


def test_a_command_that_takes_too_long_leaves_it_unknown(tmp_path: Path) -> None:
    """It is ended; the link stays, and doing it again converges."""
    site = Site(tmp_path, timeout_s=1.5)
    (site.state / "slow-set").touch()
    with pytest.raises(OutcomeUnknownError, match="whether it was told what to run is not known") as unknown:
        site.open().activate(SYNC1, site.new.id)
    assert unknown.value.where == SYNC1
    assert site.told() == site.base.id
    (site.state / "slow-set").unlink()
    site.open().activate(SYNC1, site.new.id)
    assert (site.installed(), site.told()) == ("2.0.0", site.new.id)


def test_a_configuration_of_its_own_is_told_although_the_version_is_the_same(tmp_path: Path) -> None:
    """Where the command is told the configuration. Once, and on the way back again."""
    soft = str(tmp_path / "soft it's")
    state = str(tmp_path / "target/soft")
    site = Site(tmp_path, activate=[soft, state, "set", "{worker}", "{version}", "{config}"])
    other = site.open().prepare(site.identify(None, write_configuration(tmp_path / "other", {"max_upload_size": "9M"})), TIMEOUT_S)
    site.done()
    for _ in range(2):
        site.open().activate(SYNC1, other.id)
    assert site.done() == [f"set sync1 1.0.0 {site.target}/configs/{other.config_digest[:12]}"]


def test_a_configuration_is_sent_whole_or_not_at_all(site: Site, tmp_path: Path) -> None:
    """What a linked directory holds isn't seen, and what is larger than a configuration isn't one."""
    config = write_configuration(tmp_path / "other")
    (config / "conf.d").symlink_to(tmp_path)
    with pytest.raises(PermanentDriverError, match="a directory of the configuration is a link"):
        site.identify(None, config)
    (config / "conf.d").unlink()
    (config / "media").write_bytes(b"0" * 2_000_000)
    with pytest.raises(PermanentDriverError, match="2 MB is the most that is sent"):
        site.identify(None, config)
    (config / "media").unlink()
    (config / "media").symlink_to("nowhere")
    with pytest.raises(PermanentDriverError, match="the configuration can't be read"):
        site.identify(None, config)


def test_preparing_that_fails_leaves_no_release(site: Site, tmp_path: Path) -> None:
    """In the command's own words; done again it is done."""
    release = site.identify("2.0.0", write_configuration(tmp_path / "other", {"max_upload_size": "9M"}))
    (site.state / "broken-fetch").touch()
    with pytest.raises(PermanentDriverError, match="ended with status 100") as refused:
        site.open().prepare(release, TIMEOUT_S)
    assert refused.value.why == "E: no space left for 2.0.0"
    assert release.id not in site.open().prepared()
    with pytest.raises(PermanentDriverError, match="is not prepared"):
        site.open().activate(SYNC1, release.id)
    (site.state / "broken-fetch").unlink()
    assert site.open().prepare(release, TIMEOUT_S).deltas == ("94/01_new.sql",)


def test_a_full_disk_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site._soft["room_bytes"] = 10**18  # noqa: SLF001  (the test's own)
    with pytest.raises(PermanentDriverError, match="the disk is too full for a release") as refused:
        site.open().prepare(site.identify("1.0.0"), TIMEOUT_S)
    assert "1000000000000 MB are needed" in refused.value.why
    assert site.done() == []


def test_a_version_is_a_word_that_can_be_had(site: Site) -> None:
    """What looks like an option, a path or a command never reaches one."""
    with pytest.raises(PermanentDriverError, match=r"version 4\.0\.0 is not to be had") as refused:
        site.identify("4.0.0")
    assert refused.value.why == "E: Version '4.0.0' was not found"
    for nasty in ("--allow-downgrades", "../../etc", "1.0; reboot", "$(reboot)", "1.0\n", "", "1 0"):
        with pytest.raises(PermanentDriverError, match="a version can't be called"):
            site.open().identify_first(nasty, site.config)


def test_a_migration_is_the_users_own_and_must_be_there(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.open().migrate(site.new.id)
    assert (site.state / "database").read_text() == "2.0.0\n"
    site._soft["migrate"] = None  # noqa: SLF001  (the test's own)
    with pytest.raises(PermanentDriverError, match="there is no command that migrates"):
        site.open().migrate(site.new.id)


def test_placeholders_are_filled_once_and_only_those_that_are_known() -> None:
    """A value is never looked into; what belongs to dpkg or docker stays."""
    argv = ("set", "{worker}={version}", "-f=${version}", "{{version}}", "{Version}", "{}")
    assert filled(argv, worker="{version}", version="1.0") == ("set", "{version}=1.0", "-f=${version}", "{{version}}", "{Version}", "{}")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"version": ["echo", "{version}"]}, "{version} is nothing that `version` is told"),
        ({"activate": ["set", "{vesion}"]}, "{vesion} is nothing that `activate` is told"),
        ({"activate": []}, "activate is empty"),
        ({"activate": ["-n"]}, "a command can't begin with '-n'"),
        ({"activate": "apt-get install"}, "activate must be a list"),
    ],
)
def test_commands_are_checked(changed: dict[str, object], what: str) -> None:
    """That a version is there must not be told by who says which one it is."""
    settings = {"target": "/srv/x", "version": ["get"], "activate": ["set", "{version}"], **changed}
    with pytest.raises(InvalidSettingsError) as refused:
        build(settings, units.inventory({SYNC1: "local"}))
    assert what in refused.value.what


def test_what_is_done_as_root_is_listed_as_far_as_it_is_exact() -> None:
    """One with the version in it can't be: it would allow any."""
    settings = {
        "target": "/srv/x",
        "hosts": {"a": {"address": "a.example.org", "user": USER}},
        "version": ["sudo", "-n", "/usr/local/sbin/which", "{worker}"],
        "activate": ["sudo", "-n", "--", "/usr/bin/apt-get", "install", "-y", "matrix-synapse-py3={version}"],
        "migrate": ["sudo", "/usr/local/sbin/migrate"],
        "prepare": ["sudo", "-u", "nobody", "id"],
    }
    releases = build(settings, units.inventory({SYNC1: "a"}))
    commands = (("/usr/local/sbin/which", SYNC1), ("/usr/local/sbin/migrate",))
    assert releases.privileges() == (Privileges("a", f"{USER}@a.example.org", USER, commands),)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a") as bed:
        yield bed


def _told(releases: CommandReleases) -> str | None:
    with suppress(TransientDriverError):
        return releases.activations([SYNC1])[SYNC1].release
    return None


def test_a_cable_that_is_pulled_while_it_is_activated_leaves_it_unknown(bed: Bed, tmp_path: Path) -> None:
    """The host goes on. What is then seen is true, whichever it is, and doing it again does nothing twice."""
    target = f"/srv/{tmp_path.name}"
    targets.make(bed, "a", target)
    soft = {**targets.soft_commands(targets.soft_on(bed, "a"), f"{target}/soft"), "timeout_s": 8.0, "connect_timeout_s": 2.0}
    releases = targets.command_on(bed, target, {SYNC1: "a"}, **{**soft, "room_bytes": 0})
    base = releases.prepare(releases.identify_first("1.0.0", write_configuration(tmp_path / "config")), TIMEOUT_S)
    releases.activate(SYNC1, base.id)
    new = releases.prepare(releases.identify("2.0.0", None, base.id, next_generation=False), TIMEOUT_S)
    bed.run("a", "touch", f"{target}/soft/slow-set")
    with ThreadPoolExecutor(1) as pool:
        activating = pool.submit(releases.activate, SYNC1, new.id)
        while "set sync1 2.0.0" not in bed.run("a", "cat", f"{target}/soft/done"):
            time.sleep(0.1)
        with bed.unplugged("a"), pytest.raises(OutcomeUnknownError, match="whether it was told what to run is not known") as unknown:
            activating.result(TIMEOUT_S)
    assert unknown.value.where == SYNC1
    assert units.where(bed, "a") in unknown.value.why
    wait_until(lambda: _told(releases) == new.id, 60, "what became of it is seen")
    releases.activate(SYNC1, new.id)
    assert bed.run("a", "cat", f"{target}/soft/done").count("set sync1 2.0.0") == 1
    releases.close()
