"""What every driver of the port `traffic` promises: HAProxy and nginx here and on two hosts, HAProxy in pods, Services, the simulation."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from rollout.adapters.traffic.haproxy import Haproxy
from rollout.adapters.traffic.haproxy_pods import HaproxiesInPods
from rollout.adapters.traffic.kubernetes import KubernetesTraffic, TrafficSettings
from rollout.adapters.traffic.nginx import Nginx
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.plan import HoldBound
from rollout.model.sighting import PoolSighting, ProxySighting
from rollout.ports.traffic import Server, Traffic
from rollout.simulation.rehearse import set_stage
from tests.contracts.nginx import Nginx as NginxProxy
from tests.contracts.nginx import nginx, say_that_it_is_read
from tests.contracts.proxy import Front, Proxy, haproxy, until
from tests.hosts import proxies
from tests.hosts.bed import Bed, hosts
from tests.kubernetes import haproxy as in_pods
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import Balancer, homeserver, images
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.names import Names
from tests.kubernetes.pod_worker import TIME

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
SERVERS = {SYNC1: Server("sync", "sync1"), SYNC2: Server("sync", "sync2")}
STRANGERS = [Server("sync", "stranger"), Server("elsewhere", "sync1")]
TIMEOUT_S = 5.0
REQUESTS = 6
BOUND = HoldBound(hold_s=30.0, hold_max=100)


@pytest.fixture
def nginx_proxy(tmp_path: Path) -> Iterator[NginxProxy]:
    with nginx(tmp_path) as found:
        yield found


@pytest.fixture
def nginx_that_holds(tmp_path: Path) -> Iterator[NginxProxy]:
    with nginx(tmp_path, can_hold=True) as found:
        yield found


@dataclass(frozen=True, slots=True)
class Plant:
    """
    A proxy with SYNC1 and SYNC2, both up. *begin_requests* begins REQUESTS that stay open, *end_requests* lets all of them end and says
    whether each was answered; *settle* waits until something holds, where time passes by itself; *pass_s* lets time pass; *begun_at* counts
    the requests that ever reached a worker. *counts_all*: sessions are counted of those that are in, too.
    """

    traffic: Traffic
    begin_requests: Callable[[], None]
    end_requests: Callable[[], bool]
    settle: Callable[[Callable[[], bool]], None]
    pass_s: Callable[[float], None]
    begun_at: Callable[[WorkerId], int]
    counts_all: bool = True

    def look(self, worker: WorkerId) -> ProxySighting:
        return self.traffic.look(SERVERS, TIMEOUT_S)[worker]

    def pool(self) -> PoolSighting:
        return self.traffic.pools(["sync"], TIMEOUT_S)["sync"]


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with haproxy(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with hosts(tmp_path_factory.mktemp("beds"), "a", "b") as bed:
        proxies.prepare(bed, "a", "b")
        yield bed


@pytest.fixture
def haproxies(bed: Bed) -> Iterator[Plant]:
    with proxies.haproxies(bed, "a", "b") as front:
        driver = proxies.haproxy_driver(bed, "a", "b")
        yield _real(front, driver)
        driver.close()


@pytest.fixture
def nginxes(bed: Bed) -> Iterator[Plant]:
    with proxies.nginxes(bed, "a", "b") as front:
        driver = proxies.nginx_driver(bed, "a", "b")
        yield _nginx(front, driver)
        driver.close()


def _real(proxy: Front, traffic: Traffic) -> Plant:
    def total(count: Callable[[ProxySighting], int | None]) -> int:
        return sum(count(seen) or 0 for seen in traffic.look(SERVERS, TIMEOUT_S).values())

    def begin_requests() -> None:
        before = total(lambda seen: seen.requests)
        for _ in range(REQUESTS):
            proxy.begin_request()
        until(lambda: total(lambda seen: seen.requests) == before + REQUESTS)

    def end_requests() -> bool:
        for backend in proxy.backends.values():
            backend.released.set()
        return set(proxy.answers()) == {200}

    until(lambda: all(seen.up for seen in traffic.look(SERVERS, TIMEOUT_S).values()))
    return Plant(
        traffic, begin_requests, end_requests, until, time.sleep, lambda worker: traffic.look(SERVERS, TIMEOUT_S)[worker].requests or 0
    )


def _nginx(proxy: Front, traffic: Traffic) -> Plant:
    def begun() -> int:
        return sum(len(backend.arrived) for backend in proxy.backends.values())

    def begin_requests() -> None:
        before = begun()
        for _ in range(REQUESTS):
            proxy.begin_request()
        until(lambda: begun() == before + REQUESTS)

    def end_requests() -> bool:
        for backend in proxy.backends.values():
            backend.released.set()
        return set(proxy.answers()) == {200}

    return Plant(traffic, begin_requests, end_requests, until, time.sleep, lambda worker: len(proxy.backends[worker].arrived))


def _simulated() -> Plant:
    stage = set_stage({"sync1": ("sync", "sync"), "sync2": ("sync", "sync")}, held="sync")

    def pass_by() -> None:
        stage.clock.advance_to(stage.clock.now_s() + stage.world.session_life_s)

    def end_requests() -> bool:
        pass_by()
        return not stage.world.cuts

    def settle(holds: Callable[[], bool]) -> None:
        assert holds()

    traffic = stage.drivers.traffic

    def pass_s(seconds: float) -> None:
        stage.clock.advance_to(stage.clock.now_s() + seconds)

    def begun_at(worker: WorkerId) -> int:
        return traffic.look(SERVERS, TIMEOUT_S)[worker].requests or 0

    return Plant(traffic, lambda: None, end_requests, settle, pass_s, begun_at)


@pytest.fixture
def services(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Plant]:
    images(kubelet, tmp_path, "1.0.0")
    with homeserver(control_plane, kubelet, tmp_path) as site, ExitStack() as opened:
        site.has("sync", 2, "1.0.0")
        site.await_ready("sync")
        pods = {SYNC1: "sync-0", SYNC2: "sync-1"}
        ways = {worker: site.way_to(pod) for worker, pod in pods.items()}
        settings = TrafficSettings.model_validate(site.settings(pods=pods, settle_s=1.0), strict=False)
        traffic = KubernetesTraffic(settings, {worker: f"{way.url}/_synapse/metrics" for worker, way in ways.items()})
        balancer = opened.enter_context(closing(Balancer(control_plane, "sync")))
        pool = opened.enter_context(ThreadPoolExecutor(REQUESTS))
        begun: list[Future[int]] = []

        def ask() -> int:
            return requests.get(f"{balancer.way.url}/wait?s=8", timeout=TIMEOUT_S * 6).status_code

        def begun_at(worker: WorkerId) -> int:
            lines = requests.get(f"{ways[worker].url}/_synapse/metrics", timeout=TIMEOUT_S).text.splitlines()
            counts = [float(line.split()[-1]) for line in lines if line.startswith(("synapse_http_server_in_flight_", f"{TIME}_count"))]
            return round(sum(counts))

        def begin_requests() -> None:
            before = sum(map(begun_at, ways))
            begun.extend(pool.submit(ask) for _ in range(REQUESTS))
            until(lambda: sum(map(begun_at, ways)) == before + REQUESTS)

        def end_requests() -> bool:
            return {one.result() for one in begun} == {200}

        until(lambda: all(seen.up for seen in traffic.look(SERVERS, TIMEOUT_S).values()) and len(balancer.ready) == len(SERVERS))
        yield Plant(traffic, begin_requests, end_requests, until, time.sleep, begun_at, counts_all=False)


@pytest.fixture
def pods(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Plant]:
    images(kubelet, tmp_path, "1.0.0")
    in_pods.image(kubelet, tmp_path)
    with homeserver(control_plane, kubelet, tmp_path) as site, closing(Names(control_plane, kubelet, 0)) as names, ExitStack() as opened:
        site.has("sync", 2, "1.0.0", service=False)
        front = in_pods.front(site, names, {"sync": {SYNC1: "sync-0", SYNC2: "sync-1"}})
        traffic = HaproxiesInPods(front.settings, {"sync"})
        balancer = opened.enter_context(closing(Balancer(control_plane, in_pods.NAME)))
        pool = opened.enter_context(ThreadPoolExecutor(REQUESTS))
        begun: list[Future[int]] = []

        def ask() -> int:
            return requests.get(f"{balancer.way.url}/wait?s=8", timeout=TIMEOUT_S * 6).status_code

        def total() -> int:
            return sum(seen.requests or 0 for seen in traffic.look(SERVERS, TIMEOUT_S).values())

        def begin_requests() -> None:
            before = total()
            begun.extend(pool.submit(ask) for _ in range(REQUESTS))
            until(lambda: total() == before + REQUESTS)

        def end_requests() -> bool:
            return {one.result() for one in begun} == {200}

        site.await_ready("sync")
        until(lambda: all(seen.up for seen in traffic.look(SERVERS, TIMEOUT_S).values()) and len(balancer.ready) == len(front.pods()))
        yield Plant(
            traffic, begin_requests, end_requests, until, time.sleep, lambda worker: traffic.look(SERVERS, TIMEOUT_S)[worker].requests or 0
        )


# Those that have no proxy have no weights, no limits, and nothing waits there.
PROXIES = ["haproxy", "nginx", "nginx that holds", "haproxies", "nginxes", "pods", "simulated"]
PROXYING = pytest.mark.parametrize("plant", PROXIES, indirect=True)


@pytest.fixture(params=[*PROXIES, "services"])
def plant(request: pytest.FixtureRequest) -> Plant:
    match request.param:
        case "haproxy":
            proxy: Proxy = request.getfixturevalue("proxy")
            return _real(proxy, Haproxy((proxy.admin,), proxy.master, {"sync"}))
        case "nginx":
            front: NginxProxy = request.getfixturevalue("nginx_proxy")
            say_that_it_is_read(front.include)
            return _nginx(front, Nginx(front.include, front.command, front.pid_file))
        case "nginx that holds":
            holding: NginxProxy = request.getfixturevalue("nginx_that_holds")
            say_that_it_is_read(holding.include)
            return _nginx(holding, Nginx(holding.include, holding.command, holding.pid_file, holding.page))
        case "haproxies" | "nginxes" | "pods" | "services":
            found: Plant = request.getfixturevalue(request.param)
            return found
        case _:
            return _simulated()


# nginx can't hold without Lua.
HOLDING = pytest.mark.parametrize("plant", ["haproxy", "nginx that holds", "haproxies", "nginxes", "pods", "simulated"], indirect=True)


def test_all_are_seen_at_once_and_strangers_are_left_out(plant: Plant) -> None:
    strangers = {WorkerId(f"stranger{number}"): server for number, server in enumerate(STRANGERS)}
    seen = plant.traffic.look({**SERVERS, **strangers}, TIMEOUT_S)
    assert set(seen) == {SYNC1, SYNC2}
    assert all((one.admitted, one.up, one.weight) == (True, True, 100) for one in seen.values())


def test_every_server_that_is_there_is_known_by_its_name(plant: Plant) -> None:
    assert plant.traffic.known(TIMEOUT_S) == set(SERVERS.values())


def test_nobody_is_looked_for(plant: Plant) -> None:
    assert plant.traffic.look({}, TIMEOUT_S) == {}


def test_a_drain_takes_one_server_out_and_an_admission_brings_it_back(plant: Plant) -> None:
    for _ in range(2):  # repeating a call does nothing new
        plant.traffic.drain(SERVERS[SYNC1], TIMEOUT_S)
        assert [plant.look(worker).admitted for worker in (SYNC1, SYNC2)] == [False, True]
    for _ in range(2):
        plant.traffic.admit(SERVERS[SYNC1], 100, TIMEOUT_S)
        assert plant.look(SYNC1).admitted
        assert plant.look(SYNC1).weight == 100


@PROXYING
@pytest.mark.parametrize("weight", [1, 10, 50, 100])
def test_a_weight_is_seen_as_it_was_given(plant: Plant, weight: int) -> None:
    plant.traffic.drain(SERVERS[SYNC1], TIMEOUT_S)
    plant.traffic.admit(SERVERS[SYNC1], weight, TIMEOUT_S)
    assert (plant.look(SYNC1).admitted, plant.look(SYNC1).weight) == (True, weight)
    assert plant.look(SYNC2).weight == 100


def test_what_is_drained_gets_no_new_requests(plant: Plant) -> None:
    plant.traffic.drain(SERVERS[SYNC1], TIMEOUT_S)
    plant.settle(lambda: plant.look(SYNC1).sessions is not None)  # until then not everybody has heard of it
    before = plant.begun_at(SYNC1)
    plant.begin_requests()
    assert plant.begun_at(SYNC1) == before


def test_open_sessions_outlive_a_drain_and_are_counted_until_they_end(plant: Plant) -> None:
    plant.begin_requests()
    before = plant.look(SYNC1).sessions
    assert bool(before) is plant.counts_all
    plant.traffic.drain(SERVERS[SYNC1], TIMEOUT_S)
    if not plant.counts_all:
        assert plant.look(SYNC1).sessions is None, "until everybody has heard of it, nobody knows"
        before = plant.begun_at(SYNC1)
        plant.settle(lambda: plant.look(SYNC1).sessions is not None)
    assert plant.look(SYNC1).sessions == before
    assert plant.end_requests(), "nothing is cut"
    plant.settle(lambda: plant.look(SYNC1).sessions == 0)
    assert not plant.look(SYNC1).cuts


@pytest.mark.parametrize("stranger", STRANGERS, ids=["server", "backend"])
def test_what_the_proxy_does_not_have_is_refused_and_changes_nothing(plant: Plant, stranger: Server) -> None:
    with pytest.raises(PermanentDriverError):
        plant.traffic.drain(stranger, TIMEOUT_S)
    with pytest.raises(PermanentDriverError):
        plant.traffic.admit(stranger, 50, TIMEOUT_S)
    assert all((one.admitted, one.weight) == (True, 100) for one in plant.traffic.look(SERVERS, TIMEOUT_S).values())


@HOLDING
def test_a_pool_is_held_until_it_is_let_go(plant: Plant) -> None:
    """Repeating either does nothing new; what was under way goes on, and nothing is cut."""
    plant.begin_requests()
    assert plant.end_requests()
    assert plant.pool().can_hold
    began_s = time.monotonic()
    for _ in range(2):
        plant.traffic.hold(SERVERS[SYNC1], BOUND, TIMEOUT_S)
        assert plant.look(SYNC1).held
        assert plant.look(SYNC1).admitted, "a hold is no drain"
        assert plant.pool().held
        assert plant.pool().hold.held_for_s is not None
        assert plant.look(SYNC1).hold.held_for_s is not None
    plant.pass_s(0.5)
    held_for_s = plant.look(SYNC1).hold.held_for_s or 0.0
    # Half a second of the plant's own time, and however long it took to ask.
    assert 0.4 < held_for_s < 0.6 + time.monotonic() - began_s, "since the first of them"
    for _ in range(2):
        plant.traffic.let_go(SERVERS[SYNC1], TIMEOUT_S)
        assert not plant.look(SYNC1).held
        assert (plant.pool().held, plant.pool().hold.held_for_s) == (False, None)
        assert not plant.look(SYNC1).holding
    assert not plant.look(SYNC1).cuts


@HOLDING
def test_a_second_hold_renews_nothing(plant: Plant) -> None:
    """A rollout that repeats itself in doubt must not make anybody wait longer than the plan said."""
    plant.begin_requests()
    assert plant.end_requests()
    # As long as a slow machine may take to ask twice: what is asked after its end is a hold of its own.
    plant.traffic.hold(SERVERS[SYNC1], HoldBound(hold_s=TIMEOUT_S, hold_max=100), TIMEOUT_S)
    plant.traffic.hold(SERVERS[SYNC1], BOUND, TIMEOUT_S)
    assert plant.look(SYNC1).held
    plant.pass_s(TIMEOUT_S + 0.5)
    assert not plant.look(SYNC1).held


def test_pools_that_the_proxy_does_not_have_are_left_out(plant: Plant) -> None:
    assert set(plant.traffic.pools(["sync", "elsewhere"], TIMEOUT_S)) == {"sync"}


def test_a_pool_that_is_not_there_is_neither_held_nor_let_go(plant: Plant) -> None:
    with pytest.raises(PermanentDriverError):
        plant.traffic.hold(Server("elsewhere", "sync1"), BOUND, TIMEOUT_S)
    with pytest.raises(PermanentDriverError):
        plant.traffic.let_go(Server("elsewhere", "sync1"), TIMEOUT_S)


@PROXYING
def test_the_proxy_says_how_much_it_can_take(plant: Plant) -> None:
    limits = plant.traffic.limits(TIMEOUT_S)
    assert 0 <= limits.connections < limits.connections_max
    assert 0 <= limits.files < limits.files_max


@PROXYING
def test_how_requests_find_their_server_is_said(plant: Plant) -> None:
    assert (plant.pool().algorithm, plant.pool().hash_points) == ("roundrobin", 0)


@pytest.mark.parametrize(
    ("balance", "said", "points"),
    [
        ("leastconn", "leastconn", 0),
        ("static-rr", "static-rr", 0),
        ("first", "first", 0),
        # HAProxy has no word for this one.
        ("random", "", 0),
        # The servers have weight 100.
        ("hdr(Authorization)\n    hash-type consistent", "hdr", 1600),
        ("hash req.hdr(Authorization)", "hash", 1600),
        ("uri\n    hash-type map-based", "uri", 1600),
    ],
)
def test_every_algorithm_of_haproxy_is_told(balance: str, said: str, points: int, tmp_path: Path) -> None:
    with haproxy(tmp_path, balance=balance) as proxy:
        seen = Haproxy((proxy.admin,), proxy.master).pools(["sync"], TIMEOUT_S)["sync"]
        assert (seen.algorithm, seen.hash_points) == (said, points)
        # Of two proxies the one that hashes decides.
        (tmp_path / "even").mkdir()
        with haproxy(tmp_path / "even") as even:
            both = Haproxy((even.admin, proxy.admin), None).pools(["sync"], TIMEOUT_S)["sync"]
            assert (both.algorithm, both.hash_points) == ((said, points) if points else (min(said, "roundrobin"), 0))
