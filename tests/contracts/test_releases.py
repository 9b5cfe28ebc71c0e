"""What every driver of the port `releases` promises: environments and commands, here and on hosts, a cluster's images, simulated ones."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rollout.adapters.releases.command import CommandReleases
from rollout.adapters.releases.kubernetes.driver import KubernetesReleases
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.adapters.releases.venv import VenvReleases
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.model.sighting import START_PRECISION_S
from rollout.ports.releases import Activation, Releases
from rollout.simulation.rehearse import set_stage
from tests.contracts.artefacts import shared_venvs, write_configuration, write_locks
from tests.hosts import targets
from tests.hosts.bed import Bed
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import IMAGE, homeserver, images
from tests.kubernetes.kubelet.node import Kubelet

SYNC1, CLIENT1, STRANGER = WorkerId("sync1"), WorkerId("client1"), WorkerId("nobody")
HOSTS = ("a", "b")
UNKNOWN = ReleaseId("1.0.0-00000000")
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where *base* (1.0.0) is prepared, and SYNC1 and CLIENT1 are told to run it. 2.0.0 has a lock and 9.0.0 has none.

    *config* is another configuration, None where that is not the driver's to change; *let_pass* lets seconds pass. *switches*: how often
    may be switched in a test of moments.
    """

    releases: Releases
    base: Release
    config: str | None
    now_s: Callable[[], float]
    let_pass: Callable[[float], None]
    switches: int = 200

    def identify(self, version: str | None = None, config: str | None = None, *, next_generation: bool = False) -> Release:
        """Say what would result on top of *base*."""
        return self.releases.identify(version, config, self.base.id, next_generation=next_generation)


def _venv(place: Path, venvs: Path) -> Target:
    write_locks(place / "locks")
    target = place / "target"
    target.mkdir()
    (target / "venvs").symlink_to(venvs)
    releases = VenvReleases(target, place / "locks", (SYNC1, CLIENT1))
    base = releases.prepare(releases.identify_first("1.0.0", write_configuration(place / "first", sync1={})), TIMEOUT_S)
    for worker in (SYNC1, CLIENT1):
        releases.activate(worker, base.id)
    other = write_configuration(place / "other", {"max_upload_size": "9M"}, sync1={})
    return Target(releases, base, str(other), time.time, time.sleep)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Two hosts for all tests: SYNC1 is on the first, CLIENT1 on the second."""
    yield from targets.hosts_with_disks(tmp_path_factory, *HOSTS)


def _on_hosts(bed: Bed, place: Path) -> Iterator[Target]:
    """A target of its own for each test, with the environments of all."""
    target = f"{targets.DISK}/{targets.NAME}/{place.name}"
    for host in HOSTS:
        targets.make(bed, host, target)
        bed.run(host, "ln", "-s", targets.SHARED, f"{target}/venvs")
    write_locks(place / "locks")
    releases = targets.venv_on(bed, target, place / "locks", {SYNC1: "a", CLIENT1: "b"})
    base = releases.prepare(releases.identify_first("1.0.0", write_configuration(place / "first", sync1={})), TIMEOUT_S)
    for worker in (SYNC1, CLIENT1):
        releases.activate(worker, base.id)
    other = write_configuration(place / "other", {"max_upload_size": "9M"}, sync1={})
    yield Target(releases, base, str(other), time.time, time.sleep, switches=10)
    releases.close()


def _commands_on_hosts(bed: Bed, place: Path) -> Iterator[Target]:
    target = f"{targets.DISK}/{targets.NAME}/{place.name}"
    for host in HOSTS:
        targets.make(bed, host, target)
        targets.soft_on(bed, host)
    soft = targets.soft_commands(targets.SOFT, f"{target}/soft")
    releases = targets.command_on(bed, target, {SYNC1: "a", CLIENT1: "b"}, **soft)
    yield _commanded(releases, place, 10)
    releases.close()


def _commands_here(place: Path) -> Target:
    target = place / targets.NAME
    target.mkdir()
    soft = targets.soft_commands(targets.soft_here(place), f"{target}/soft")
    return _commanded(targets.command_on(None, str(target), {SYNC1: "local", CLIENT1: "local"}, **soft), place, 20)


def _commanded(releases: CommandReleases, place: Path, switches: int) -> Target:
    base = releases.prepare(releases.identify_first("1.0.0", write_configuration(place / "first", sync1={})), TIMEOUT_S)
    for worker in (SYNC1, CLIENT1):
        releases.activate(worker, base.id)
    other = write_configuration(place / "other", {"max_upload_size": "9M"}, sync1={})
    return Target(releases, base, str(other), time.time, time.sleep, switches)


def _simulated() -> Target:
    stage = set_stage(dict.fromkeys((SYNC1, CLIENT1), ("sync", "sync")))
    now_s = stage.clock.now_s
    return Target(stage.drivers.releases, stage.old, "other", now_s, lambda seconds: stage.clock.advance_to(now_s() + seconds))


def _in_cluster(plane: ControlPlane, kubelet: Kubelet, place: Path, *, deployments: bool) -> Iterator[Target]:
    """The base is what somebody has put there. 9.0.0 has no image."""
    images(kubelet, place, "1.0.0", "2.0.0")
    with homeserver(plane, kubelet, place) as site:
        for worker in (SYNC1, CLIENT1):
            has = site.has_deployments if deployments else site.has
            has(worker, 1, "1.0.0", service=False)
        pods = {worker: f"{'deployment/' if deployments else ''}{worker}-0" for worker in (SYNC1, CLIENT1)}
        site.await_ready(*(pods.values() if deployments else (SYNC1, CLIENT1)))
        named = {version: IMAGE.format(version=version) for version in ("1.0.0", "2.0.0")}
        settings = site.settings(pods=pods, image=IMAGE, images=named, facts=("facts",), migrate=("migrate",))
        releases = KubernetesReleases(ReleasesSettings.model_validate(settings, strict=False), SYNC1)
        (base,) = releases.prepared().values()
        releases.prepare(releases.identify(None, None, base.id, next_generation=False), TIMEOUT_S)
        for worker in (SYNC1, CLIENT1):
            releases.activate(worker, base.id)
        yield Target(releases, releases.prepared()[base.id], None, time.time, time.sleep, switches=10)


EVERY = ["venv", "venv_on_hosts", "command", "command_on_hosts", "simulated"]


@pytest.fixture(params=[*EVERY, "kubernetes", "kubernetes_deployments"])
def target(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Every driver in turn."""
    match request.param:
        case "venv":
            yield _venv(tmp_path, shared_venvs(tmp_path_factory))
        case "venv_on_hosts":
            yield from _on_hosts(request.getfixturevalue("bed"), tmp_path)
        case "command":
            yield _commands_here(tmp_path)
        case "command_on_hosts":
            yield from _commands_on_hosts(request.getfixturevalue("bed"), tmp_path)
        case "kubernetes" | "kubernetes_deployments":
            plane, kubelet = request.getfixturevalue("control_plane"), request.getfixturevalue("kubelet")
            yield from _in_cluster(plane, kubelet, tmp_path, deployments=request.param == "kubernetes_deployments")
        case _:
            yield _simulated()


# In a cluster a configuration is in Secrets, and whose they are has them applied.
CONFIGURING = pytest.mark.parametrize("target", EVERY, indirect=True)


def _activations(target: Target) -> dict[WorkerId, Activation]:
    return target.releases.activations([SYNC1, CLIENT1])


def test_a_release_is_identified_twice_as_the_same_and_nothing_is_touched(target: Target) -> None:
    """Equal parts give an equal identity, and until it is prepared there is nothing of it that could be run."""
    prepared, activations = target.releases.prepared(), _activations(target)
    for arguments in {(None, None), ("2.0.0", None), (None, target.config), ("2.0.0", target.config)}:
        assert target.identify(*arguments) == target.identify(*arguments)
    assert target.identify(next_generation=True) == target.identify(next_generation=True)
    assert (target.releases.prepared(), _activations(target)) == (prepared, activations)


@CONFIGURING
def test_whatever_differs_makes_another_release(target: Target) -> None:
    """Version, configuration, or a restart; what isn't named stays as it is in the base."""
    version, config, restart = target.identify("2.0.0"), target.identify(None, target.config), target.identify(next_generation=True)
    assert target.identify().id == target.base.id
    assert len({target.base.id, version.id, config.id, restart.id}) == 4
    assert (version.version, version.config_digest) == ("2.0.0", target.base.config_digest)
    assert (config.version, config.artefact_lock) == ("1.0.0", target.base.artefact_lock)
    assert config.config_digest != target.base.config_digest
    assert (restart.version, restart.artefact_lock, restart.config_digest) == (
        "1.0.0",
        target.base.artefact_lock,
        target.base.config_digest,
    )
    assert restart.generation == target.base.generation + 1


def test_another_version_and_a_restart_are_other_releases(target: Target) -> None:
    """What isn't named stays as it is in the base."""
    version, restart = target.identify("2.0.0"), target.identify(next_generation=True)
    assert target.identify().id == target.base.id
    assert len({target.base.id, version.id, restart.id}) == 3
    assert (version.version, version.config_digest) == ("2.0.0", target.base.config_digest)
    assert (restart.version, restart.artefact_lock, restart.config_digest) == (
        "1.0.0",
        target.base.artefact_lock,
        target.base.config_digest,
    )


def test_every_restart_is_another_one(target: Target) -> None:
    """Also of a base that was restarted before: what a worker runs is known by its release."""
    first = target.releases.prepare(target.identify(next_generation=True), TIMEOUT_S)
    second = target.identify(next_generation=True)
    assert second.id not in {target.base.id, first.id}
    assert second.generation > first.generation


def test_what_is_new_begins_at_the_first_generation(target: Target) -> None:
    """However often the base was restarted: the same new version is the same release for all."""
    restarted = target.releases.prepare(target.identify(next_generation=True), TIMEOUT_S)
    again = target.releases.identify("2.0.0", None, restarted.id, next_generation=False)
    assert again.id == target.identify("2.0.0").id


def test_what_has_no_lock_cannot_be_identified(target: Target) -> None:
    """Nor can anything on a base that isn't there."""
    with pytest.raises(PermanentDriverError, match=r"9\.0\.0"):
        target.identify("9.0.0")
    with pytest.raises(PermanentDriverError, match=UNKNOWN):
        target.releases.identify("2.0.0", None, UNKNOWN, next_generation=False)


def test_to_prepare_twice_is_to_prepare_once(target: Target) -> None:
    """It is there afterwards as it was returned, with what the artefact says of its schema; nobody runs it yet."""
    before, activations = target.releases.prepared(), _activations(target)
    release = target.identify("2.0.0", target.config)
    done = target.releases.prepare(release, TIMEOUT_S)
    assert target.releases.prepare(release, TIMEOUT_S) == done
    assert target.releases.prepare(done, TIMEOUT_S) == done
    assert (done.id, done.schema_version, done.schema_compat_version) == (release.id, 94, 84)
    assert target.releases.prepared() == {**before, done.id: done}
    assert _activations(target) == activations


def test_what_is_not_prepared_cannot_be_activated(target: Target) -> None:
    """Identified is not enough; the worker keeps what it had."""
    activations = _activations(target)
    for release in (target.identify("2.0.0").id, UNKNOWN):
        with pytest.raises(PermanentDriverError, match=release):
            target.releases.activate(SYNC1, release)
    assert _activations(target) == activations


def test_a_release_is_activated_for_one_worker_at_a_known_time(target: Target) -> None:
    """The time is what tells an older process from a newer one. A second time changes nothing, and the way back is the same."""
    new = target.releases.prepare(target.identify(next_generation=True), TIMEOUT_S)
    before = _activations(target)
    for release in (new.id, target.base.id):
        target.let_pass(0.1)
        told_at_s = target.now_s()
        target.releases.activate(SYNC1, release)
        done_at_s = target.now_s()
        activation = _activations(target)[SYNC1]
        assert activation.release == release
        assert activation.at_s is not None
        assert told_at_s - START_PRECISION_S <= activation.at_s <= done_at_s + START_PRECISION_S
        target.let_pass(0.1)
        target.releases.activate(SYNC1, release)
        assert _activations(target) == {SYNC1: activation, CLIENT1: before[CLIENT1]}


def test_a_worker_is_told_to_run_something_at_every_moment(target: Target) -> None:
    """Whoever looks while it is switched sees the one or the other."""
    new = target.releases.prepare(target.identify(next_generation=True), TIMEOUT_S)
    seen: set[ReleaseId | None] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            activation = target.releases.activations([SYNC1]).get(SYNC1)
            seen.add(None if activation is None else activation.release)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(target.switches):
            target.releases.activate(SYNC1, new.id)
            target.releases.activate(SYNC1, target.base.id)
    finally:
        ended.set()
        thread.join(10)
    assert seen <= {new.id, target.base.id}


def test_nothing_is_told_of_strangers(target: Target) -> None:
    """A worker that was never told anything is left out."""
    assert set(target.releases.activations([SYNC1, STRANGER])) == {SYNC1}


def test_what_is_there_needs_no_room(target: Target) -> None:
    new = target.identify("2.0.0")
    before = target.releases.room(new)
    assert before.free_bytes > before.needed_bytes
    assert before.basis
    done = target.releases.prepare(new, TIMEOUT_S)
    assert target.releases.room(done).needed_bytes == 0


@CONFIGURING
def test_connections_are_told_for_each_worker_by_the_configuration(target: Target) -> None:
    found = target.releases.connections(target.base, [SYNC1, CLIENT1])
    assert found == dict.fromkeys([SYNC1, CLIENT1], 10)
