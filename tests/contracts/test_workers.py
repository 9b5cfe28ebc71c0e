"""What every driver of the port `workers` promises: supervisord's, systemd's over SSH, Kubernetes' and the simulated one."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from rollout.adapters.workers.kubernetes import KubernetesWorkers, WorkersSettings
from rollout.adapters.workers.supervisor import Supervisor
from rollout.adapters.workers.systemd_ssh.driver import SystemdSsh
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.sighting import START_PRECISION_S
from rollout.ports.workers import Workers
from rollout.simulation.rehearse import set_stage
from tests.contracts.supervisord import FAILING, STEADY, began_at_s, supervisord
from tests.hosts import units
from tests.hosts.bed import Bed, hosts
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import CRASHING, homeserver, images
from tests.kubernetes.kubelet.node import Kubelet

SYNC1, SYNC2, BROKEN, STRANGER = (WorkerId(name) for name in ("sync1", "sync2", "broken", "nobody"))
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Plant:
    """
    A process manager that knows SYNC1 and SYNC2, which run well, and BROKEN, which exits at once; none of them runs at first.

    *began_at_s* asks the running process itself; *let_pass* lets seconds pass. A start is known to *precision_s*.
    """

    workers: Workers
    now_s: Callable[[], float]
    let_pass: Callable[[float], None]
    began_at_s: Callable[[WorkerId], float]
    precision_s: float = START_PRECISION_S


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One supervisord for all tests."""
    place = tmp_path_factory.mktemp("supervisord")
    with supervisord(place, {SYNC1: STEADY, SYNC2: STEADY, BROKEN: FAILING}):
        yield place


def _real(place: Path) -> Plant:
    workers = Supervisor(place / "supervisor.sock")
    for worker in (SYNC1, SYNC2, BROKEN):
        workers.stop(worker, TIMEOUT_S)
    return Plant(workers, time.time, time.sleep, lambda worker: began_at_s(place, worker))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, SystemdSsh]]:
    """Two hosts for all tests: SYNC1 and BROKEN are on the first, SYNC2 on the second."""
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        for host in ("a", "b"):
            units.install(bed, host, {"worker@.service": units.unit(units.STEADY), "broken.service": units.unit(units.FAILING)})
        settings = {**units.settings_for(bed), "units": {BROKEN: "broken.service"}}
        workers = units.driver(settings, {SYNC1: "a", SYNC2: "b", BROKEN: "a"})
        units.allow(bed, workers)
        yield bed, workers
        workers.close()


def _on_hosts(bed: Bed, workers: SystemdSsh) -> Plant:
    for worker in (SYNC1, SYNC2, BROKEN):
        workers.stop(worker, TIMEOUT_S)
    on = {SYNC1: "a", SYNC2: "b"}
    return Plant(workers, time.time, time.sleep, lambda worker: units.began_at_s(bed, on[worker], worker))


def _simulated() -> Plant:
    stage = set_stage(dict.fromkeys((SYNC1, SYNC2, BROKEN), ("sync", "sync")))
    broken = ReleaseId("1.0.0-broken")
    stage.world.never_boots.add(broken)
    stage.world.workers[BROKEN].activated = broken
    for worker in (SYNC1, SYNC2, BROKEN):
        stage.world.stop(worker)

    def began_at_s(worker: WorkerId) -> float:
        at_s = stage.world.workers[worker].started_at_s
        assert at_s is not None
        return at_s

    now_s = stage.clock.now_s
    return Plant(stage.drivers.workers, now_s, lambda seconds: stage.clock.advance_to(now_s() + seconds), began_at_s)


def _in_cluster(plane: ControlPlane, kubelet: Kubelet, place: Path, *, deployments: bool) -> Iterator[Plant]:
    """Each is alone in its StatefulSet, or in its Deployment: of several pods none can be stopped."""
    images(kubelet, place, "1.0.0", CRASHING)
    with homeserver(plane, kubelet, place) as site:
        names = {SYNC1: "1.0.0", SYNC2: "1.0.0", BROKEN: CRASHING}
        for worker, version in names.items():
            if deployments:
                site.has_deployments(worker, 1, version, service=False, replicas=0)
            else:
                site.has(worker, 0, version, service=False)
        pods = {worker: f"{'deployment/' if deployments else ''}{worker}-0" for worker in names}

        def began_at_s(worker: WorkerId) -> float:
            address = site.address(pods[worker])
            assert address is not None

            def page() -> str:
                return requests.get(f"http://{address[0]}:{address[1]}/_synapse/metrics", timeout=5).text

            return next(float(line.split()[1]) for line in _patiently(page).splitlines() if line.startswith("process_start_time_seconds"))

        workers = KubernetesWorkers(WorkersSettings.model_validate(site.settings(pods=pods)))
        # Kubernetes writes whole seconds.
        yield Plant(workers, time.time, time.sleep, began_at_s, precision_s=1.0)


def _patiently(ask: Callable[[], str]) -> str:
    """Ask a process that may have only just begun."""
    end_s = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)


@pytest.fixture(params=["supervisor", "systemd_ssh", "kubernetes", "kubernetes_deployments", "simulated"])
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plant]:
    """Every driver in turn."""
    match request.param:
        case "supervisor":
            yield _real(request.getfixturevalue("place"))
        case "systemd_ssh":
            yield _on_hosts(*request.getfixturevalue("site"))
        case "kubernetes" | "kubernetes_deployments":
            plane, kubelet = request.getfixturevalue("control_plane"), request.getfixturevalue("kubelet")
            yield from _in_cluster(plane, kubelet, tmp_path, deployments=request.param == "kubernetes_deployments")
        case _:
            yield _simulated()


def _started_at_s(plant: Plant, worker: WorkerId) -> float:
    seen = plant.workers.look([worker], TIMEOUT_S)[worker]
    assert seen.running
    assert seen.started_at_s is not None
    return seen.started_at_s


def test_a_look_tells_who_runs_and_leaves_strangers_out(plant: Plant) -> None:
    """One that is known and doesn't run is there, without a start."""
    plant.workers.start(SYNC1, TIMEOUT_S)
    seen = plant.workers.look([SYNC1, SYNC2, STRANGER], TIMEOUT_S)
    assert {worker: it.running for worker, it in seen.items()} == {SYNC1: True, SYNC2: False}
    assert seen[SYNC2].started_at_s is None
    assert plant.workers.look([], TIMEOUT_S) == {}


def test_a_stopped_one_is_gone_when_stop_returns_and_may_be_stopped_again(plant: Plant) -> None:
    """What a rollout takes up after a crash it may do twice; nobody else is touched."""
    plant.workers.start(SYNC1, TIMEOUT_S)
    plant.workers.start(SYNC2, TIMEOUT_S)
    for _ in range(2):
        plant.workers.stop(SYNC1, TIMEOUT_S)
        seen = plant.workers.look([SYNC1, SYNC2], TIMEOUT_S)
        assert {worker: it.running for worker, it in seen.items()} == {SYNC1: False, SYNC2: True}


def test_starting_a_running_one_leaves_it_alone(plant: Plant) -> None:
    """It is the same process afterwards."""
    plant.workers.start(SYNC1, TIMEOUT_S)
    before_s = _started_at_s(plant, SYNC1)
    plant.let_pass(0.2)
    plant.workers.start(SYNC1, TIMEOUT_S)
    assert _started_at_s(plant, SYNC1) == before_s


def test_a_start_is_known_to_the_promised_precision(plant: Plant) -> None:
    """What a worker runs is told by whether it began before or after its link was switched; three times, for chance."""
    seen_s: list[float] = []
    for _ in range(3):
        plant.workers.stop(SYNC1, TIMEOUT_S)
        plant.let_pass(0.2)
        told_at_s = plant.now_s()
        plant.workers.start(SYNC1, TIMEOUT_S)
        started_at_s = _started_at_s(plant, SYNC1)
        # It began after it was told to, and before it could say so itself.
        assert told_at_s - plant.precision_s <= started_at_s <= plant.began_at_s(SYNC1) + plant.precision_s
        seen_s.append(started_at_s)
        assert _started_at_s(plant, SYNC1) == started_at_s
    assert seen_s == sorted(set(seen_s))


def test_nobody_knows_a_stranger(plant: Plant) -> None:
    """A name that the process manager doesn't have is a fault that no second try mends."""
    with pytest.raises(PermanentDriverError) as stopping:
        plant.workers.stop(STRANGER, TIMEOUT_S)
    with pytest.raises(PermanentDriverError) as starting:
        plant.workers.start(STRANGER, TIMEOUT_S)
    assert (stopping.value.where, starting.value.where) == (STRANGER, STRANGER)
    assert plant.workers.last_lines(STRANGER, 5) == ()


def test_one_that_exits_at_once_has_failed_and_its_words_are_had(plant: Plant) -> None:
    """Starting it is no success, and a second try is no other."""
    for _ in range(2):
        with pytest.raises(PermanentDriverError) as failed:
            plant.workers.start(BROKEN, TIMEOUT_S)
        assert failed.value.where == BROKEN
        assert not plant.workers.look([BROKEN], TIMEOUT_S)[BROKEN].running
    lines = plant.workers.last_lines(BROKEN, 2)
    assert 1 <= len(lines) <= 2
    assert plant.workers.last_lines(BROKEN, 1) == lines[-1:]
