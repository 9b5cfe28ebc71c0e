"""Whole rollouts of StatefulSets behind two HAProxy pods, which are spoken with through the API server."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout.adapters.traffic.haproxy_pods import HaproxiesInPods
from rollout.model.errors import DriverError
from rollout.model.ids import WorkerId
from rollout.ports.traffic import Server
from tests.kubernetes import haproxy
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import repeated
from tests.kubernetes.homeserver import CRASHING, Load, homeserver, images, load
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.names import Names
from tests.kubernetes.rolling import GOOD, OLD, PLAYBOOK, WORKERS, Rolling

# They want a machine to themselves.
pytestmark = pytest.mark.long
POOLED = {pod: role for pod, role in WORKERS.items() if role != "main"}
SERVERS = {WorkerId(pod): Server(role, pod) for pod, role in POOLED.items()}
POOLS = {role: {pod: pod for pod, its in WORKERS.items() if its == role} for role in ("sync", "client", "main")}
RAMPED = PLAYBOOK.replace("ramp: {weights: [100], step_s: 0}", "ramp: {weights: [25, 100], step_s: 2}")
TRAFFIC = {"driver": "haproxy", "pods": {"selector": haproxy.SELECTOR}}


@dataclass(frozen=True, slots=True)
class Fronted:
    rolling: Rolling
    front: haproxy.Front


@pytest.fixture
def fronted(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Fronted]:
    images(kubelet, tmp_path, OLD, GOOD, CRASHING)
    haproxy.image(kubelet, tmp_path)
    with homeserver(control_plane, kubelet, tmp_path) as site, closing(Names(control_plane, kubelet, 0)) as names:
        front = haproxy.front(site, names, POOLS)
        rolling = Rolling(site, tmp_path, traffic=TRAFFIC, holds=True, playbook=RAMPED)
        rolling.install()
        yield Fronted(rolling, front)


@dataclass(slots=True)
class Seen:
    """What the proxies said of each server: its weights while it was in, and the most open sessions that it had while it was out."""

    weights: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    left_max: dict[str, int] = field(default_factory=lambda: defaultdict(int))


@contextmanager
def proxies_watched(front: haproxy.Front) -> Iterator[Seen]:
    it, traffic = Seen(), HaproxiesInPods(front.settings)

    def look() -> None:
        try:
            seen = traffic.look(SERVERS, 5)
        except DriverError:
            return
        for worker, one in seen.items():
            if one.admitted:
                it.weights[worker].add(one.weight)
            else:
                it.left_max[worker] = max(it.left_max[worker], one.sessions or 0)

    with repeated(look, 0.2):
        yield it


@contextmanager
def loaded(fronted: Fronted) -> Iterator[list[Load]]:
    plane = fronted.front.site.plane
    with ExitStack() as stack:
        # Long enough that somebody who looks now and then, on a busy machine, sees them end.
        yield [stack.enter_context(load(plane, haproxy.NAME, 6, takes_s=4.0, below=f"/{pool}")) for pool in POOLS]


def test_pods_are_drained_and_ramped_by_the_proxies_and_nobody_is_cut(fronted: Fronted) -> None:
    """
    Sessions are counted down, not guessed; each comes back with a quarter of its weight first; what comes for main waits at both proxies
    while main is replaced. Every label stays as it was.
    """
    rolling = fronted.rolling
    planned = rolling.run("plan", "--to", GOOD)
    assert "25, 100 % of its weight, 2 s each" in planned.text
    with loaded(fronted) as loads, proxies_watched(fronted.front) as seen:
        done = rolling.run("deploy", "--to", GOOD, "--yes")
        assert done.code == 0, done.text
    assert [one.cut for one in loads] == [[]] * len(POOLS)
    assert all(GOOD in one.answered for one in loads)
    assert rolling.restarted() == ["sync-0", "sync-1", "sync-2", "client-0", "client-1", "main-0"]
    assert {pod: seen.weights[pod] for pod in POOLED} == {pod: {25, 100} for pod in POOLED}
    assert all(seen.left_max[pod] for pod in POOLED), seen.left_max
    after = HaproxiesInPods(fronted.front.settings).look(SERVERS, 10)
    assert [(one.admitted, one.up, one.weight) for one in after.values()] == [(True, True, 100)] * len(POOLED)
    pods = [rolling.site.pod(pod) for pod in POOLED]
    assert {one.metadata.labels["rollout.internal/admitted"] for one in pods} == {"true"}


def test_a_release_that_crashes_is_taken_back_behind_the_proxies(fronted: Fronted) -> None:
    rolling = fronted.rolling
    with loaded(fronted) as loads:
        done = rolling.run("deploy", "--to", CRASHING, "--yes")
    assert done.code == 3, done.text
    assert "a fault of this release: it ends now" in done.text
    assert [one.cut for one in loads] == [[]] * len(POOLS)
    assert {name: rolling.site.images_of(name) for name in ("sync", "client")} == {"client": [OLD] * 2, "sync": [OLD] * 3}
    after = HaproxiesInPods(fronted.front.settings).look(SERVERS, 10)
    assert [(one.admitted, one.up, one.weight) for one in after.values()] == [(True, True, 100)] * len(POOLED)
