"""HAProxy in two pods: what happens when a worker's pod is another one, and when a proxy's comes, goes, or says nothing."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.kubernetes import port_forward
from rollout.adapters.kubernetes.cluster import ForbiddenError
from rollout.adapters.traffic import haproxy_pods
from rollout.adapters.traffic.haproxy_pods import HaproxiesInPods
from rollout.engine.drivers import open_drivers
from rollout.engine.work import admission, work_of
from rollout.lab.processes import wait_until
from rollout.model.effect import Effect
from rollout.model.errors import OutcomeUnknownError, StaleEffectError, TransientDriverError
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb
from rollout.ports.acts import TrafficActs
from rollout.ports.privileges import Granted
from rollout.ports.traffic import Server
from tests.kubernetes import haproxy, pod_worker
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import Homeserver, homeserver, images
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.names import Names

SYNC0, SYNC1 = WorkerId("sync-0"), WorkerId("sync-1")
SERVERS = {SYNC0: Server("sync", "sync-0"), SYNC1: Server("sync", "sync-1")}
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Two workers behind two HAProxies, all of them pods."""

    site: Homeserver
    front: haproxy.Front
    traffic: HaproxiesInPods
    pool: ThreadPoolExecutor

    def eventually(self, holds: Callable[[], bool], what: str, within_s: float = 30) -> None:
        def quietly() -> bool:
            try:
                return holds()
            except TransientDriverError:
                return False

        wait_until(quietly, within_s, what)

    def both_are_up(self) -> bool:
        seen = self.traffic.look(SERVERS, TIMEOUT_S)
        return all(one.up and one.admitted for one in seen.values())

    def only(self, pod: Any) -> HaproxiesInPods:  # noqa: ANN401  (the client has no types)
        """Speak with one of the proxies alone."""
        labels = f"{haproxy.SELECTOR},pod-template-hash={pod.metadata.labels['pod-template-hash']},only={pod.metadata.name}"
        self.site.core.patch_namespaced_pod(
            pod.metadata.name, self.site.plane.namespace, {"metadata": {"labels": {"only": pod.metadata.name}}}
        )
        return HaproxiesInPods(self.front.settings.model_copy(update={"selector": labels}))

    def begin(self, pod: Any, takes_s: float) -> "Future[int]":  # noqa: ANN401  (as above)
        """Begin a request at one of the proxies, and return once it is under way."""
        before = sum(one.sessions or 0 for one in self.traffic.look(SERVERS, TIMEOUT_S).values())
        url = f"http://{pod.status.pod_ip}:{pod_worker.PORT}/wait?s={takes_s}"
        begun = self.pool.submit(lambda: requests.get(url, timeout=takes_s + 30).status_code)
        self.eventually(
            lambda: sum(one.sessions or 0 for one in self.traffic.look(SERVERS, TIMEOUT_S).values()) == before + 1, "it is under way"
        )
        return begun

    def scale(self, name: str, replicas: int) -> None:
        self.site.apps.patch_namespaced_stateful_set(name, self.site.plane.namespace, {"spec": {"replicas": replicas}})

    def delete(self, pod: str) -> None:
        self.site.core.delete_namespaced_pod(pod, self.site.plane.namespace)


@pytest.fixture
def pre_stop_s(request: pytest.FixtureRequest) -> int:
    return int(getattr(request, "param", 0))


@pytest.fixture
def place(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path, pre_stop_s: int) -> Iterator[Place]:
    images(kubelet, tmp_path, "1.0.0")
    haproxy.image(kubelet, tmp_path)
    with (
        homeserver(control_plane, kubelet, tmp_path) as site,
        closing(Names(control_plane, kubelet, 0)) as names,
        ThreadPoolExecutor(4) as pool,
    ):
        site.has("sync", 2, "1.0.0", service=False)
        front = haproxy.front(site, names, {"sync": {name: name for name in ("sync-0", "sync-1", "sync-9")}}, pre_stop_s=pre_stop_s)
        it = Place(site, front, HaproxiesInPods(front.settings), pool)
        it.eventually(it.both_are_up, "both are up")
        yield it


def test_what_a_server_was_told_stays_when_its_pod_is_another_one(place: Place) -> None:
    """Its name is the same, so nobody has to keep the next pod out."""
    place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    before = {pod: place.site.pod(pod).status.pod_ip for pod in ("sync-0", "sync-1")}
    place.scale("sync", 0)
    place.eventually(lambda: not any(one.up for one in place.traffic.look(SERVERS, TIMEOUT_S).values()), "both are down")
    assert [place.traffic.look(SERVERS, TIMEOUT_S)[worker].admitted for worker in SERVERS] == [False, True]
    place.scale("sync", 2)
    place.eventually(lambda: place.traffic.look(SERVERS, TIMEOUT_S)[SYNC1].up, "the next one has come in by itself")
    place.site.await_ready("sync")
    assert all(place.site.pod(pod).status.pod_ip != address for pod, address in before.items())
    assert not place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].admitted
    place.traffic.admit(SERVERS[SYNC0], 25, TIMEOUT_S)
    place.eventually(lambda: place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].up, "it is up at its new address")
    seen = place.traffic.look(SERVERS, TIMEOUT_S)
    assert [(one.admitted, one.weight) for one in seen.values()] == [(True, 25), (True, 100)]


def test_a_name_without_an_address_is_down_and_not_out(place: Place) -> None:
    """HAProxy has it in maintenance until the name is there, and nobody has decided that: nothing must be admitted for it to come in."""
    nobody = WorkerId("sync-9")
    named = {nobody: Server("sync", "sync-9")}
    seen = place.traffic.look(named, TIMEOUT_S)[nobody]
    assert (seen.admitted, seen.up) == (True, False)
    place.traffic.drain(named[nobody], TIMEOUT_S)
    assert not place.traffic.look(named, TIMEOUT_S)[nobody].admitted
    place.traffic.admit(named[nobody], 100, TIMEOUT_S)
    seen = place.traffic.look(named, TIMEOUT_S)[nobody]
    assert (seen.admitted, seen.up) == (True, False)


def test_a_proxy_that_takes_no_connection_any_more_leaves_nobody_knowing(place: Place) -> None:
    """Its sessions go on until they end, and until then a drain has not ended; nothing is cut."""
    leaving, staying = place.front.pods()
    open_request = place.begin(leaving, 20)
    place.delete(leaving.metadata.name)
    place.front.await_ready()
    place.eventually(lambda: place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].sessions is None, "nobody knows")
    # Whoever can be told is told.
    place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    assert not place.only(staying).look(SERVERS, TIMEOUT_S)[SYNC0].admitted
    assert not open_request.done(), "it has taken too long to look"
    assert place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].sessions is None
    assert open_request.result() == 200
    place.eventually(lambda: place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].sessions == 0, "it has gone")


@pytest.mark.parametrize("pre_stop_s", [30], indirect=True)
def test_a_proxy_on_its_way_out_that_still_answers_counts_and_is_told(place: Place) -> None:
    """It may get requests on connections that it has, so it must know who is out."""
    leaving, _ = place.front.pods()
    alone = place.only(leaving)
    open_request = place.begin(leaving, 20)
    place.delete(leaving.metadata.name)
    place.eventually(lambda: len(place.site.pods_of(haproxy.NAME)) == 3, "another one is made")
    place.front.await_ready()
    assert sum(one.sessions or 0 for one in place.traffic.look(SERVERS, TIMEOUT_S).values()) == 1
    place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    with pytest.raises(TransientDriverError, match="no pod with the labels"):
        alone.look(SERVERS, TIMEOUT_S)
    direct = haproxy.direct(place.site, leaving.metadata.name)
    assert not direct.look(SERVERS, TIMEOUT_S)[SYNC0].admitted
    assert open_request.result() == 200


def test_what_a_reload_inside_a_pod_leaves_behind_is_counted_by_its_master(place: Place) -> None:
    """The new process was never told of a drain, and doesn't know of what the old one still has."""
    proxy_pod = place.front.pods()[0]
    with_master = HaproxiesInPods(place.front.settings.model_copy(update={"master": haproxy.MASTER}))
    open_request = place.begin(proxy_pod, 20)
    place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    haproxy.reload(place.site, proxy_pod.metadata.name)
    place.eventually(lambda: with_master.look(SERVERS, TIMEOUT_S)[SYNC0].admitted, "it is a new process")
    seen = with_master.look(SERVERS, TIMEOUT_S)
    assert not open_request.done(), "it has taken too long to look"
    assert sum(one.sessions or 0 for one in seen.values()) == 1
    assert sum(one.sessions or 0 for one in place.traffic.look(SERVERS, TIMEOUT_S).values()) == 0, "without it nobody could know"
    assert open_request.result() == 200
    place.eventually(lambda: sum(one.sessions or 0 for one in with_master.look(SERVERS, TIMEOUT_S).values()) == 0, "it has ended")


def test_a_proxy_that_is_new_knows_nothing_of_a_drain_and_that_is_seen(place: Place) -> None:
    place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    scale = {"spec": {"replicas": 3}}
    place.site.apps.patch_namespaced_deployment(haproxy.NAME, place.site.plane.namespace, scale)
    place.front.await_ready(3)
    place.eventually(lambda: place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].admitted, "one of them has it in")
    place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    assert not place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].admitted


def test_one_that_says_nothing_makes_a_look_fail_and_keeps_everybody_in(place: Place) -> None:
    """What it does with a server nobody knows; before anybody is taken out all are reached. An admission goes to whom it can be told."""
    containers = [{"name": "a", "image": haproxy.IMAGE, "command": ["sleep", "600"]}]
    body = {
        "metadata": {"name": "silent", "labels": haproxy.LABELS},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1},
    }
    place.site.core.create_namespaced_pod(place.site.plane.namespace, body)
    wait_until(lambda: place.site.pod("silent").status.phase == "Running", 20, "it runs")
    others = [place.only(pod) for pod in place.front.pods() if pod.metadata.name != "silent"]
    others[0].drain(SERVERS[SYNC1], TIMEOUT_S)
    with pytest.raises(TransientDriverError, match="pod silent, port 1999"):
        place.traffic.look(SERVERS, TIMEOUT_S)
    with pytest.raises(TransientDriverError, match="pod silent, port 1999"):
        place.traffic.drain(SERVERS[SYNC0], TIMEOUT_S)
    assert all(one.look(SERVERS, TIMEOUT_S)[SYNC0].admitted for one in others)
    with pytest.raises(OutcomeUnknownError, match="pod silent, port 1999"):
        place.traffic.admit(SERVERS[SYNC1], 100, TIMEOUT_S)
    assert all(one.look(SERVERS, TIMEOUT_S)[SYNC1].admitted for one in others)
    place.delete("silent")
    place.eventually(place.both_are_up, "without it all is well")


def test_what_comes_after_its_time_is_not_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who was stopped while it connected, and is woken when others have acted long since."""
    connect = port_forward.forward

    def stopped(*where: Any) -> Any:  # noqa: ANN401  (whatever it is)
        connection = connect(*where)
        time.sleep(1.5)
        return connection

    monkeypatch.setattr(haproxy_pods, "forward", stopped)
    alone = place.only(place.front.pods()[0])
    with pytest.raises(TransientDriverError, match="no answer in time"):
        alone.drain(SERVERS[SYNC0], 1.0)
    monkeypatch.undo()
    time.sleep(0.5)
    assert place.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].admitted


def test_an_account_that_may_not_is_told_so(place: Place) -> None:
    plane = place.site.plane
    assert isinstance(place.traffic, Granted)
    rules = [{"apiGroups": [one.group], "resources": [one.resource], "verbs": list(one.verbs)} for one in place.traffic.grants()]
    enough = HaproxiesInPods(place.front.settings.model_copy(update={"kubeconfig": plane.account("enough", rules)}))
    assert enough.not_granted(20, thorough=True) == ()
    assert set(enough.look(SERVERS, TIMEOUT_S)) == set(SERVERS)
    only_looks = HaproxiesInPods(place.front.settings.model_copy(update={"kubeconfig": plane.account("only-looks", rules[:1])}))
    assert [line.split(": ")[1] for line in only_looks.not_granted(20, thorough=True)] == [
        "we may not get pods/portforward",
        "we may not create pods/portforward",
    ]
    with pytest.raises(ForbiddenError, match="pods/portforward"):
        only_looks.look(SERVERS, TIMEOUT_S)


def test_an_api_server_that_is_away_is_waited_for_no_longer_than_was_said(place: Place) -> None:
    faults = place.site.plane.faults
    if faults is None:
        pytest.skip("a real API server isn't ours to stop")
    faults.away(6)
    began_s = time.monotonic()
    with pytest.raises(TransientDriverError):
        place.traffic.look(SERVERS, 2.0)
    with pytest.raises(TransientDriverError):
        place.traffic.drain(SERVERS[SYNC0], 2.0)
    assert time.monotonic() - began_s < 6
    place.eventually(place.both_are_up, "it is back")


INVENTORY = """\
homeserver: example.org
workers:
  sync-0: {{role: sync, pool: sync, url: "http://127.0.0.1:2", metrics: "http://127.0.0.1:2/m"}}
  sync-1: {{role: sync, pool: sync, url: "http://127.0.0.1:3", metrics: "http://127.0.0.1:3/m"}}
pools: {{sync: {{backend: sync}}}}
workers_driver: {{driver: kubernetes, namespace: {namespace}, kubeconfig: {kubeconfig}}}
releases_driver: {{driver: kubernetes, image: "example.org/synapse:v{{version}}"}}
traffic_driver: {{driver: haproxy, pods: {{selector: "{selector}"}}}}
ledger_driver: {{driver: {ledger}}}
"""


@pytest.mark.parametrize("ledger", ["kubernetes", "file, path: {place}/ledger.json"], ids=["config_map", "file"])
def test_ledgers_do_it_in_this_process_under_its_number(place: Place, tmp_path: Path, ledger: str) -> None:
    """No agent is handed an act for a pod: on whichever host it is, it would look there for a socket of that name."""
    written = tmp_path / "inventory.yaml"
    where = {"namespace": place.site.plane.namespace, "kubeconfig": place.site.plane.kubeconfig, "selector": haproxy.SELECTOR}
    written.write_text(INVENTORY.format(**where, ledger=ledger.format(place=tmp_path)))
    inventory = read_inventory(written)
    drivers = open_drivers(inventory)
    assert not isinstance(drivers.traffic, TrafficActs)
    plan: Any = None  # no hold here, so it isn't read

    def effect(number: int, verb: Verb) -> Effect:
        return Effect(EffectNumber(number), StepId(f"{verb}:sync-0"), verb, SYNC0, ReleaseId("2.0.0-0a1b2c3d"), 100.0)

    drain = effect(1, Verb.DRAIN)
    work = work_of(drain, SYNC0, plan, drivers, inventory, TIMEOUT_S)
    assert (work.acts, work.way_back) == (None, None)
    drivers.ledger.perform(drain, work)
    assert not drivers.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].admitted
    assert set(drivers.ledger.marks()) == {SYNC0}
    drivers.ledger.perform(effect(2, Verb.ADMIT), admission(drivers, SERVERS[SYNC0]))
    with pytest.raises(StaleEffectError):
        drivers.ledger.perform(drain, work)
    assert drivers.traffic.look(SERVERS, TIMEOUT_S)[SYNC0].admitted
    assert drivers.ledger.marks() == {}
