"""Telling and replacing the one pod of a Deployment, as the drivers for workers, releases and traffic do it together."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rollout.adapters.kubernetes import acts, returning
from rollout.adapters.kubernetes.looking import SHARED_FOR_S
from rollout.adapters.kubernetes.objects import ADMITTED, TAKEN_OVER
from rollout.adapters.releases.kubernetes.driver import KubernetesReleases
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.adapters.settings import InvalidSettingsError, check
from rollout.adapters.traffic.kubernetes import KubernetesTraffic, TrafficSettings
from rollout.adapters.workers.kubernetes import KubernetesWorkers, WorkersSettings
from rollout.lab.processes import wait_until
from rollout.model.errors import PermanentDriverError, TransientDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.ports.traffic import Server
from tests.adapters.kubernetes.rolled import TIMEOUT_S, Rolled
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import repeated, stays
from tests.kubernetes.homeserver import CRASHING, IMAGE, READY_S, homeserver, images
from tests.kubernetes.kubelet.node import Kubelet

OLD, NEW = "2.0.0", "2.1.0"
SYNC0, SYNC1 = WorkerId("sync0"), WorkerId("sync1")
PLACES = {SYNC0: "deployment/sync-0", SYNC1: "deployment/sync-1"}
SERVER0 = Server("sync", SYNC0)
# As somebody may have written it, and not as the API server would by itself.
STRATEGY = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 0}}


@dataclass(slots=True)
class Place(Rolled):
    """Two sync workers, each the one pod of a Deployment of its own."""

    traffic: KubernetesTraffic

    def uid(self, worker: WorkerId) -> str:
        return str(self.site.pod(PLACES[worker]).metadata.uid)

    def version(self, worker: WorkerId) -> str:
        return str(self.site.pod(PLACES[worker]).spec.containers[0].image).rpartition(":v")[2]

    def runs(self) -> dict[WorkerId, ReleaseId | None]:
        return {worker: one.release for worker, one in self.releases.activations([SYNC0, SYNC1]).items()}

    def delete_pod(self, worker: WorkerId) -> None:
        """Do what a node that is drained without a budget does, and wait for the next pod."""
        uid, name = self.uid(worker), self.site.pod(PLACES[worker]).metadata.name
        self.site.core.delete_namespaced_pod(name, self.site.plane.namespace)
        wait_until(lambda: self._is_another(worker, uid), READY_S, f"{worker} is another pod, alone")
        self.site.await_ready(PLACES[worker])

    def _is_another(self, worker: WorkerId, uid: str) -> bool:
        found = self.site.pods_of(PLACES[worker].removeprefix("deployment/"))
        return len(found) == 1 and found[0].metadata.uid != uid

    def patch(self, name: str, spec: dict[str, object]) -> None:
        self.site.apps.patch_namespaced_deployment(name, self.site.plane.namespace, {"spec": spec}, field_manager="kubectl-edit")


@pytest.fixture
def place(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Iterator[Place]:
    images(kubelet, tmp_path, OLD, NEW, CRASHING)
    with homeserver(control_plane, kubelet, tmp_path) as site:
        site.has_deployments("sync", 2, OLD, strategy=STRATEGY)
        site.await_ready(*PLACES.values())
        settings = site.settings(pods=PLACES)
        workers = KubernetesWorkers(WorkersSettings.model_validate(settings), (SYNC0, SYNC1))
        traffic = KubernetesTraffic(TrafficSettings.model_validate(settings), {})
        settings = {**settings, "image": IMAGE, "facts": ("facts",), "migrate": ("migrate",)}
        releases = KubernetesReleases(ReleasesSettings.model_validate(settings), SYNC0, (SYNC0, SYNC1))
        (base,) = releases.prepared()
        yield Place(site, workers, releases, base, traffic)


@dataclass(slots=True)
class Seen:
    """The most pods of a Deployment that were there at one moment, those that are ending too; and every strategy, with paused."""

    pods_max: int = 0
    strategies: set[tuple[str, bool]] = field(default_factory=set)


@contextmanager
def watched(place: Place, name: str) -> Iterator[Seen]:
    it = Seen()

    def look() -> None:
        spec = place.site.deployment(name).spec
        it.strategies.add((spec.strategy.type, bool(spec.paused)))
        it.pods_max = max(it.pods_max, len(place.site.pods_of(name)))

    with repeated(look, 0.05):
        yield it


def test_it_is_paused_and_recreated_and_given_back_as_it_was(place: Place) -> None:
    """Never two pods of one worker; the other Deployment isn't touched."""
    before, other = place.site.deployment("sync-0"), place.site.deployment("sync-1")
    release = place.has(NEW)
    with watched(place, "sync-0") as seen:
        place.roll(SYNC0, release.id)
    after = place.site.deployment("sync-0")
    assert place.version(SYNC0) == NEW
    assert place.runs() == {SYNC0: release.id, SYNC1: place.base}
    assert seen.pods_max == 1
    assert seen.strategies <= {("RollingUpdate", False), ("Recreate", True), ("Recreate", False)}
    assert after.spec.strategy == before.spec.strategy
    assert after.spec.paused is None
    assert TAKEN_OVER not in after.metadata.annotations
    assert after.spec.template.metadata.labels == before.spec.template.metadata.labels
    assert after.spec.template.metadata.annotations["example.org/checksum"] == "abc"
    assert place.site.deployment("sync-1").metadata.resource_version == other.metadata.resource_version


def test_telling_replaces_nobody(place: Place) -> None:
    """Its controller leaves a paused one alone; what it was is beside what we made of it, in the patch that did."""
    release = place.has(NEW)
    uid = place.uid(SYNC0)
    place.releases.activate(SYNC0, release.id)
    assert stays(lambda: place.uid(SYNC0) == uid, 2.0)
    between = place.site.deployment("sync-0")
    assert (between.spec.paused, between.spec.strategy.type, between.spec.strategy.rolling_update) == (True, "Recreate", None)
    assert '"maxSurge": "50%"' in between.metadata.annotations[TAKEN_OVER]
    assert '"paused": null' in between.metadata.annotations[TAKEN_OVER]
    started, activated = place.workers.look([SYNC0], TIMEOUT_S)[SYNC0].started_at_s, place.releases.activations([SYNC0])[SYNC0].at_s
    assert started is not None
    assert activated is not None
    assert started < activated, "it has not been started since it was told"


def test_one_that_was_paused_is_paused_again(place: Place) -> None:
    place.patch("sync-0", {"paused": True})
    release = place.has(NEW)
    place.roll(SYNC0, release.id)
    after = place.site.deployment("sync-0")
    assert (after.spec.paused, after.spec.strategy.type) == (True, "RollingUpdate")
    assert place.version(SYNC0) == NEW


def test_a_budget_that_forbids_it_is_named_and_nobody_is_ended(place: Place) -> None:
    """The controller asks no budget, so we do; after that it is still paused, and can be taken back."""
    spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"pool": "sync"}}}
    place.site.policy.create_namespaced_pod_disruption_budget(place.site.plane.namespace, {"metadata": {"name": "none"}, "spec": spec})
    before, uid = place.site.deployment("sync-0"), place.uid(SYNC0)
    release = place.has(NEW)
    place.releases.activate(SYNC0, release.id)
    with pytest.raises(TransientDriverError, match="its eviction isn't allowed") as refused:
        place.workers.replace(SYNC0, 3)
    assert "disruption budget" in refused.value.why
    assert stays(lambda: place.uid(SYNC0) == uid, 2.0)
    place.site.policy.delete_namespaced_pod_disruption_budget("none", place.site.plane.namespace)
    place.roll(SYNC0, place.base)
    after = place.site.deployment("sync-0")
    assert (after.spec.template, after.spec.strategy, after.spec.paused) == (before.spec.template, before.spec.strategy, None)
    assert place.runs()[SYNC0] == place.base


def test_a_broken_release_is_quoted_and_taken_back_to_the_letter(place: Place) -> None:
    """Its earlier ReplicaSet is current again, which is how one sees that nothing of ours is left in the template."""
    before = place.site.deployment("sync-0")
    replica_set = place.site.pod(PLACES[SYNC0]).metadata.owner_references[0].name
    bad = place.has(CRASHING)
    with watched(place, "sync-0") as seen:
        with pytest.raises(PermanentDriverError, match="the new pod doesn't run") as failed:
            place.roll(SYNC0, bad.id)
        assert "a fault of this release: it ends now" in failed.value.why
        assert place.workers.last_lines(SYNC0, 1) == ("a fault of this release: it ends now",)
        place.roll(SYNC0, place.base)
    place.site.await_ready(PLACES[SYNC0])
    after = place.site.deployment("sync-0")
    assert seen.pods_max == 1
    assert (after.spec.template, after.spec.strategy, after.spec.paused) == (before.spec.template, before.spec.strategy, None)
    assert place.site.pod(PLACES[SYNC0]).metadata.owner_references[0].name == replica_set


def test_one_is_replaced_though_its_template_is_the_same(place: Place) -> None:
    """A second attempt: there is nothing to be recreated for, and still never two."""
    uid = place.uid(SYNC0)
    with watched(place, "sync-0") as seen:
        place.workers.replace(SYNC0, TIMEOUT_S)
    assert place.uid(SYNC0) != uid
    assert seen.pods_max == 1
    assert place.site.deployment("sync-0").spec.replicas == 1


def test_one_that_was_left_without_a_pod_is_replaced_by_one(place: Place) -> None:
    """Whoever died in the middle of that is taken up from."""
    release = place.has(NEW)
    place.releases.activate(SYNC0, release.id)
    place.workers.stop(SYNC0, TIMEOUT_S)
    assert place.workers.look([SYNC0], TIMEOUT_S)[SYNC0].running is False
    place.workers.replace(SYNC0, TIMEOUT_S)
    assert place.version(SYNC0) == NEW
    assert place.site.deployment("sync-0").spec.paused is None


def test_one_that_is_out_stays_out_when_it_is_another_pod(place: Place) -> None:
    release = place.has(NEW)
    place.traffic.drain(SERVER0, TIMEOUT_S)
    place.roll(SYNC0, release.id)
    place.site.await_ready(PLACES[SYNC0])
    assert place.site.pod(PLACES[SYNC0]).metadata.labels[ADMITTED] == "false"
    assert place.traffic.look({SYNC0: SERVER0}, TIMEOUT_S)[SYNC0].admitted is False
    place.traffic.admit(SERVER0, 100, TIMEOUT_S)
    wait_until(lambda: place.traffic.look({SYNC0: SERVER0}, TIMEOUT_S)[SYNC0].up is True, READY_S, "its Service has it")
    assert place.traffic.known(TIMEOUT_S) == {SERVER0, Server("sync", SYNC1)}


def test_one_that_is_deleted_before_its_turn_comes_back_as_it_was(place: Place) -> None:
    """Its ReplicaSet isn't paused. What was written for the last pod leaves the next one alone; written anew, it is done."""
    release = place.has(NEW)
    place.releases.activate(SYNC0, release.id)
    late = place.workers.replace_acts(SYNC0, TIMEOUT_S)
    place.delete_pod(SYNC0)
    uid = place.uid(SYNC0)
    assert place.runs()[SYNC0] == place.base
    with pytest.raises(TransientDriverError, match="somebody has changed it meanwhile"):
        acts.run(place.releases._cluster, late)  # noqa: SLF001  (there is one cluster for all drivers)
    assert stays(lambda: place.uid(SYNC0) == uid, 2.0)
    place.workers.replace(SYNC0, TIMEOUT_S)
    assert place.version(SYNC0) == NEW


def test_what_was_written_for_another_template_or_pod_does_nothing(place: Place) -> None:
    """A tool that was stopped before its act, and is woken after somebody else has acted."""
    release = place.has(NEW)
    late = place.releases.activate_acts(SYNC0, place.has(CRASHING).id)
    gone = place.workers.replace_acts(SYNC0, TIMEOUT_S)
    place.roll(SYNC0, release.id)
    uid, template = place.uid(SYNC0), place.site.deployment("sync-0").spec.template
    with pytest.raises(TransientDriverError, match="somebody has changed it meanwhile"):
        acts.run(place.releases._cluster, late)  # noqa: SLF001  (there is one cluster for all drivers)
    acts.run(place.releases._cluster, gone)  # noqa: SLF001  (as above)
    assert place.uid(SYNC0) == uid
    assert place.site.deployment("sync-0").spec.template == template


def test_one_that_was_not_given_back_is_so_with_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever replaced it was killed, or not answered. It has no second pod, after which it would be tried again."""
    release, before = place.has(NEW), place.site.deployment("sync-0")
    with monkeypatch.context() as patched:
        patched.setattr(returning, "GIVE_BACK_S", 0.0)
        place.roll(SYNC0, release.id)
    assert "Deployment sync-0 may stay Recreate" in caplog.text
    assert place.site.deployment("sync-0").spec.strategy.type == "Recreate"
    place.roll(SYNC1, release.id)
    for name in ("sync-0", "sync-1"):
        after = place.site.deployment(name)
        assert (after.spec.strategy, after.spec.paused) == (before.spec.strategy, None)
        assert TAKEN_OVER not in after.metadata.annotations


def test_an_annotation_that_rollout_undo_brings_back_takes_nothing_over(place: Place) -> None:
    """ReplicaSets have copies of a Deployment's annotations, and `kubectl rollout undo` restores them: the strategy says what is so."""
    stale = {"metadata": {"annotations": {TAKEN_OVER: '{"paused": true, "strategy": {"type": "Recreate"}}'}}}
    place.site.apps.patch_namespaced_deployment("sync-0", place.site.plane.namespace, stale)
    assert place.runs() == {SYNC0: place.base, SYNC1: place.base}
    before = place.site.deployment("sync-0")
    place.roll(SYNC0, place.has(NEW).id)
    after = place.site.deployment("sync-0")
    assert (after.spec.strategy, after.spec.paused) == (before.spec.strategy, None)


def test_an_edit_of_somebody_elses_is_no_release_and_nothing_goes_on_top_of_it(place: Place) -> None:
    release = place.has(NEW)
    place.releases.activate(SYNC0, release.id)
    place.patch("sync-0", {"template": {"spec": {"containers": [{"name": "synapse", "env": [{"name": "DEBUG", "value": "1"}]}]}}})
    assert str(place.runs()[SYNC0]).startswith("edited-by-kubectl-edit-at-")
    with pytest.raises(PermanentDriverError, match="somebody else has edited its template") as refused:
        place.releases.activate(SYNC0, release.id)
    assert "kubectl-edit" in refused.value.why
    assert "kubectl get deployment sync-0" in refused.value.remedy


def test_one_of_several_replicas_is_refused_wherever_it_is_asked_for(place: Place) -> None:
    place.patch("sync-0", {"replicas": 3})
    # What was listed before is shared for a moment.
    time.sleep(2 * SHARED_FOR_S)
    asked: list[Callable[[], object]] = [
        lambda: place.workers.look([SYNC0], TIMEOUT_S),
        lambda: place.workers.replace(SYNC0, TIMEOUT_S),
        lambda: place.workers.stop(SYNC0, TIMEOUT_S),
        lambda: place.releases.identify(NEW, None, place.base, next_generation=False),
        lambda: place.releases.activate(SYNC0, place.base),
    ]
    for ask in asked:
        with pytest.raises(PermanentDriverError) as refused:
            ask()
        assert str(refused.value) == (
            "deployment/sync-0: Deployment sync-0 has 3 replicas, whose pods can't be told apart\n"
            "    each worker has a name of its own, so each needs a Deployment of one replica, or all of them one StatefulSet\n"
            "    try: kubectl scale deployment/sync-0 --replicas=1, and a Deployment for each of the others"
        )


def test_one_that_nobody_has_is_named_with_where_it_was_looked_for(place: Place) -> None:
    settings = WorkersSettings.model_validate(place.site.settings(pods={SYNC0: "deployment/nobody"}))
    with pytest.raises(PermanentDriverError, match="there is no Deployment nobody in namespace") as refused:
        KubernetesWorkers(settings, (SYNC0,)).replace(SYNC0, TIMEOUT_S)
    assert "part-of=synapse" in refused.value.why


@pytest.mark.parametrize("pods", [{"a": "replicaset/x"}, {"a": "deployment/"}, {"a": "deployment/x/y"}])
def test_a_pod_of_something_else_is_refused(pods: dict[str, str]) -> None:
    with pytest.raises(InvalidSettingsError, match="is no pod that worker a could be"):
        check(WorkersSettings, {"namespace": "matrix", "pods": pods}, "workers_driver")


def test_one_deployment_is_not_two_workers() -> None:
    with pytest.raises(InvalidSettingsError, match="deployment/x is named for several workers"):
        check(WorkersSettings, {"namespace": "matrix", "pods": {"a": "deployment/x", "b": "deployment/x"}}, "workers_driver")
