"""Telling and replacing pods of one StatefulSet, as the drivers for workers and releases do it together."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.adapters.kubernetes import acts
from rollout.adapters.kubernetes.objects import TAKEN_OVER
from rollout.adapters.releases.kubernetes.driver import KubernetesReleases
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.adapters.workers.kubernetes import KubernetesWorkers, WorkersSettings
from rollout.lab.processes import wait_until
from rollout.model.errors import PermanentDriverError, TransientDriverError
from rollout.model.ids import WorkerId
from tests.adapters.kubernetes.rolled import TIMEOUT_S, Rolled
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.homeserver import CRASHING, IMAGE, READY_S, homeserver, images
from tests.kubernetes.kubelet.node import Kubelet

OLD, NEW = "2.0.0", "2.1.0"
SYNC0, SYNC1 = WorkerId("sync-0"), WorkerId("sync-1")


class Place(Rolled):
    """Two sync workers in one StatefulSet, which makes one pod after the other."""

    def uid(self, pod: str) -> str:
        return str(self.site.pod(pod).metadata.uid)


@pytest.fixture
def place(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Place]:
    images(kubelet, tmp_path, OLD, NEW, CRASHING)
    with homeserver(control_plane, kubelet, tmp_path) as site:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
        site.has("sync", 2, OLD, service=False, podManagementPolicy="OrderedReady", updateStrategy=strategy)
        site.await_ready("sync")
        workers = KubernetesWorkers(WorkersSettings.model_validate(site.settings()))
        settings = site.settings(image=IMAGE, facts=("facts",), migrate=("migrate",))
        releases = KubernetesReleases(ReleasesSettings.model_validate(settings), SYNC0)
        (base,) = releases.prepared()
        yield Place(site, workers, releases, base)


def test_the_strategy_is_taken_over_and_given_back_as_it_was(place: Place) -> None:
    """Not before all of its pods are what the template says; the first of them alone is replaced by the first act."""
    before = place.site.set("sync")
    release = place.has(NEW)
    uids = {pod: place.uid(pod) for pod in (SYNC0, SYNC1)}
    place.roll(SYNC1, release.id)
    between = place.site.set("sync")
    assert between.spec.update_strategy.type == "OnDelete"
    assert between.spec.update_strategy.rolling_update is None
    assert '"partition": 0' in between.metadata.annotations[TAKEN_OVER]
    assert place.uid(SYNC0) == uids[SYNC0]
    assert place.site.images_of("sync") == [OLD, NEW]
    found = place.releases.activations([SYNC0, SYNC1])
    assert {worker: one.release for worker, one in found.items()} == {SYNC0: place.base, SYNC1: release.id}
    place.roll(SYNC0, release.id)
    after = place.site.set("sync")
    assert after.spec.update_strategy == before.spec.update_strategy
    assert TAKEN_OVER not in after.metadata.annotations


def test_a_budget_that_forbids_it_is_named_and_nobody_is_evicted(place: Place) -> None:
    spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "sync"}}}
    place.site.policy.create_namespaced_pod_disruption_budget(place.site.plane.namespace, {"metadata": {"name": "none"}, "spec": spec})
    uid = place.uid(SYNC1)
    with pytest.raises(TransientDriverError, match="its eviction isn't allowed") as refused:
        place.workers.replace(SYNC1, 3)
    assert "disruption budget" in refused.value.why
    assert place.uid(SYNC1) == uid


def test_a_broken_revision_is_quoted_and_taken_back(place: Place) -> None:
    """The controller waits for ever for a broken pod (kubernetes#67250); that the earlier template is back doesn't replace it, we do."""
    before = place.site.set("sync")
    # It is not asked what it is: PREPARE would run it.
    bad = place.has(CRASHING)
    with pytest.raises(PermanentDriverError, match="the new pod doesn't run") as failed:
        place.roll(SYNC0, bad.id)
    assert failed.value.where == SYNC0
    assert "a fault of this release: it ends now" in failed.value.why
    assert place.workers.last_lines(SYNC0, 1) == ("a fault of this release: it ends now",)
    place.roll(SYNC0, place.base)
    place.site.await_ready("sync")
    after = place.site.set("sync")
    assert after.spec.template == before.spec.template
    assert after.spec.update_strategy == before.spec.update_strategy
    assert after.status.update_revision == before.status.update_revision
    assert place.site.images_of("sync") == [OLD, OLD]


def test_one_that_is_deleted_before_its_turn_is_seen_to_run_something_else(place: Place) -> None:
    release = place.has(NEW)
    place.roll(SYNC1, release.id)
    uid = place.uid(SYNC0)
    place.site.core.delete_namespaced_pod(SYNC0, place.site.plane.namespace)
    # Until it has ended, the set is as ready as before.
    wait_until(lambda: place.site.pod(SYNC0) is not None and place.uid(SYNC0) != uid, READY_S, f"{SYNC0} is another pod")
    place.site.await_ready("sync")
    assert place.releases.activations([SYNC0])[SYNC0].release == release.id


def test_what_was_written_for_another_template_does_nothing(place: Place) -> None:
    """A tool that was stopped before its act, and is woken after somebody else has acted."""
    release = place.has(NEW)
    late = place.releases.activate_acts(SYNC0, release.id)
    gone = place.workers.replace_acts(SYNC1, TIMEOUT_S)
    place.roll(SYNC1, release.id)
    uid, template = place.uid(SYNC1), place.site.set("sync").spec.template
    with pytest.raises(TransientDriverError, match="somebody has changed it meanwhile"):
        acts.run(place.releases._cluster, late)  # noqa: SLF001  (there is one cluster for all drivers)
    acts.run(place.releases._cluster, gone)  # noqa: SLF001  (as above)
    assert place.uid(SYNC1) == uid
    assert place.site.set("sync").spec.template == template


def test_an_edit_of_somebody_elses_is_no_release_and_nothing_goes_on_top_of_it(place: Place) -> None:
    release = place.has(NEW)
    place.roll(SYNC1, release.id)
    edit = {"spec": {"template": {"spec": {"containers": [{"name": "synapse", "env": [{"name": "DEBUG", "value": "1"}]}]}}}}
    place.site.apps.patch_namespaced_stateful_set("sync", place.site.plane.namespace, edit, field_manager="kubectl-edit")
    assert str(place.releases.activations([SYNC0])[SYNC0].release).startswith("edited-by-kubectl-edit-at-")
    with pytest.raises(PermanentDriverError, match="somebody else has edited its template") as refused:
        place.releases.activate(SYNC0, release.id)
    assert "kubectl-edit" in refused.value.why
