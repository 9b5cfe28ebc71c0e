"""Whole rollouts of StatefulSets of small pods, through the command line and the API server."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import CRASHING, UNKNOWN, homeserver, images, load
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.rolling import GOOD, OLD, WORKERS, Rolling, watched

SETS = ("main", "client", "sync")


@pytest.fixture
def rolling(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Rolling]:
    images(kubelet, tmp_path, OLD, GOOD, CRASHING)
    with homeserver(control_plane, kubelet, tmp_path) as site:
        it = Rolling(site, tmp_path)
        it.install()
        yield it


def test_three_types_are_rolled_one_pod_at_a_time_and_nobody_is_cut(rolling: Rolling) -> None:
    """Order by role, one out of each pool, everybody's own settings as they were, and the strategy given back."""
    site = rolling.site
    before = {name: site.set(name) for name in SETS}
    with ExitStack() as stack:
        loads = [stack.enter_context(load(site.plane, name)) for name in ("sync", "client")]
        seen = stack.enter_context(watched(site, "sync", "client"))
        done = rolling.run("deploy", "--to", GOOD, "--yes")
        assert done.code == 0, done.text
    assert {name: site.images_of(name) for name in SETS} == {"main": [GOOD], "client": [GOOD] * 2, "sync": [GOOD] * 3}
    assert rolling.restarted() == ["sync-0", "sync-1", "sync-2", "client-0", "client-1", "main-0"]
    assert seen.ready_min == {"sync": 2, "client": 1}
    assert [one.cut for one in loads] == [[], []]
    assert all(GOOD in one.answered for one in loads)
    for name in SETS:
        now = site.set(name)
        assert now.spec.update_strategy == before[name].spec.update_strategy
        template, earlier = now.spec.template, before[name].spec.template
        assert template.metadata.labels == earlier.metadata.labels
        assert template.metadata.annotations["example.org/checksum"] == "abc"
        assert template.spec.containers[0].env == earlier.spec.containers[0].env
        managers = {one.manager: one.operation for one in now.metadata.managed_fields if not one.subresource}
        assert managers["rollout"] in {"Apply", "Update"}
        assert "helm" in managers
        assert "rollout.internal/taken-over" not in now.metadata.annotations


def test_a_release_that_crashes_is_taken_back_and_quoted(rolling: Rolling) -> None:
    """Its last words and its status are in the verdict, and every template is the earlier one to the letter."""
    site = rolling.site
    before = {name: site.set(name) for name in SETS}
    with load(site.plane, "sync") as seen, load(site.plane, "client"):
        done = rolling.run("deploy", "--to", CRASHING, "--yes")
    assert done.code == 3, done.text
    assert "a fault of this release: it ends now" in done.text
    assert "ended with status 3" in done.text
    assert seen.cut == []
    assert {name: site.images_of(name) for name in SETS} == {"main": [OLD], "client": [OLD] * 2, "sync": [OLD] * 3}
    for name in SETS:
        now = site.set(name)
        assert now.spec.template == before[name].spec.template
        assert now.spec.update_strategy == before[name].spec.update_strategy
        assert now.status.update_revision == before[name].status.update_revision


def test_an_image_that_nobody_has_touches_nobody(rolling: Rolling) -> None:
    """PREPARE finds it: the Job's pod can't pull it, and says so."""
    site = rolling.site
    uids = {pod: site.pod(pod).metadata.uid for pod in WORKERS}
    with load(site.plane, "sync"), load(site.plane, "client"):
        done = rolling.run("deploy", "--to", UNKNOWN, "--yes")
    assert done.code != 0
    assert "can't be pulled" in done.text
    assert {pod: site.pod(pod).metadata.uid for pod in WORKERS} == uids
