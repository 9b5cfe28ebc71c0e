"""Whole rollouts of a homeserver whose workers are Deployments of one replica, beside a StatefulSet, through the command line."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import repeated
from tests.kubernetes.homeserver import CRASHING, Homeserver, homeserver, images, load
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.rolling import GOOD, OLD, Rolling, watched

# They want a machine to themselves.
pytestmark = pytest.mark.long
DEPLOYMENTS = ("main-0", "sync-0", "sync-1", "sync-2")


@pytest.fixture
def rolling(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Rolling]:
    images(kubelet, tmp_path, OLD, GOOD, CRASHING)
    with homeserver(control_plane, kubelet, tmp_path) as site:
        it = Rolling(site, tmp_path, by_deployments=frozenset({"main", "sync"}))
        it.install()
        yield it


@dataclass(slots=True)
class Seen:
    """What was seen: the most pods of each Deployment at one moment, those that are ending too; and the fewest of all that were Ready."""

    pods_max: dict[str, int] = field(default_factory=dict)
    ready_min: int = len(DEPLOYMENTS)


@contextmanager
def deployments_watched(site: Homeserver) -> Iterator[Seen]:
    it = Seen()

    def look() -> None:
        pods = {name: site.pods_of(name) for name in DEPLOYMENTS}
        it.pods_max = {name: max(len(pods[name]), it.pods_max.get(name, 0)) for name in DEPLOYMENTS}
        it.ready_min = min(it.ready_min, sum(_is_ready(pod) for every in pods.values() for pod in every))

    with repeated(look, 0.1):
        yield it


def _is_ready(pod: object) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())  # type: ignore[attr-defined]


def _versions(site: Homeserver) -> dict[str, list[str]]:
    return {name: site.images_of(name) for name in (*DEPLOYMENTS, "client")}


def test_deployments_are_rolled_one_pod_at_a_time_and_nobody_is_cut(rolling: Rolling) -> None:
    """With the rights that `rollout rbac` prints; never two pods of one worker, never two workers out, and all as it was but the image."""
    site = rolling.site
    before = {name: site.deployment(name) for name in DEPLOYMENTS}
    with ExitStack() as stack:
        loads = [stack.enter_context(load(site.plane, name)) for name in ("sync", "client")]
        seen = stack.enter_context(deployments_watched(site))
        sets = stack.enter_context(watched(site, "client"))
        done = rolling.run("deploy", "--to", GOOD, "--yes")
        assert done.code == 0, done.text
    assert rolling.restarted() == ["sync-0", "sync-1", "sync-2", "client-0", "client-1", "main-0"]
    assert _versions(site) == {**{name: [GOOD] for name in DEPLOYMENTS}, "client": [GOOD] * 2}
    assert seen.pods_max == dict.fromkeys(DEPLOYMENTS, 1)
    assert seen.ready_min == len(DEPLOYMENTS) - 1
    assert sets.ready_min == {"client": 1}
    assert [one.cut for one in loads] == [[], []]
    assert all(GOOD in one.answered for one in loads)
    for name in DEPLOYMENTS:
        now, earlier = site.deployment(name), before[name]
        assert (now.spec.strategy, now.spec.paused) == (earlier.spec.strategy, None)
        assert now.spec.template.metadata.labels == earlier.spec.template.metadata.labels
        assert now.spec.template.metadata.annotations["example.org/checksum"] == "abc"
        assert now.spec.template.spec.containers[0].env == earlier.spec.template.spec.containers[0].env
        assert "rollout.internal/taken-over" not in now.metadata.annotations


def test_a_release_that_crashes_is_taken_back_and_every_template_is_as_it_was(rolling: Rolling) -> None:
    site = rolling.site
    before = {name: site.deployment(name) for name in DEPLOYMENTS}
    with load(site.plane, "sync") as asked, load(site.plane, "client"), deployments_watched(site) as seen:
        done = rolling.run("deploy", "--to", CRASHING, "--yes")
    assert done.code == 3, done.text
    assert "a fault of this release: it ends now" in done.text
    assert asked.cut == []
    assert _versions(site) == {**{name: [OLD] for name in DEPLOYMENTS}, "client": [OLD] * 2}
    assert seen.pods_max == dict.fromkeys(DEPLOYMENTS, 1)
    for name in DEPLOYMENTS:
        now, earlier = site.deployment(name).spec, before[name].spec
        assert (now.template, now.strategy, now.paused) == (earlier.template, earlier.strategy, None)


def test_a_deployment_of_several_replicas_is_refused_before_anything(rolling: Rolling) -> None:
    """What, where, why and what next."""
    site = rolling.site
    site.apps.patch_namespaced_deployment("sync-1", site.plane.namespace, {"spec": {"replicas": 2}})
    site.await_ready("deployment/sync-1")
    done = rolling.run("deploy", "--to", GOOD, "--yes")
    assert done.code == 5, done.text
    said = " ".join(done.text.split())
    assert "Deployment sync-1 has 2 replicas, whose pods can't be told apart: deployment/sync-1, each worker has a name of its own" in said
    assert "each needs a Deployment of one replica, or all of them one StatefulSet" in said
    assert _versions(site)["sync-0"] == [OLD]


def test_a_tool_that_was_killed_while_one_was_replaced_is_taken_up(rolling: Rolling) -> None:
    """Its Deployment may be paused then, or be recreating: either way the next one ends what was begun, and gives all of them back."""
    site = rolling.site
    before = {name: site.deployment(name) for name in DEPLOYMENTS}
    with load(site.plane, "sync") as asked, load(site.plane, "client"), deployments_watched(site) as seen:
        with rolling.start("deploy", "--to", GOOD, "--yes") as command:
            rolling.await_text("sync-1/restart begins")
            command.send(signal.SIGKILL)
        done = rolling.run("resume")
        assert done.code == 0, done.text
    assert asked.cut == []
    assert _versions(site) == {**{name: [GOOD] for name in DEPLOYMENTS}, "client": [GOOD] * 2}
    assert seen.pods_max == dict.fromkeys(DEPLOYMENTS, 1)
    for name in DEPLOYMENTS:
        now = site.deployment(name)
        assert (now.spec.strategy, now.spec.paused) == (before[name].spec.strategy, None)
        assert "rollout.internal/taken-over" not in now.metadata.annotations
