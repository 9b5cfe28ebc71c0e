"""
What we rely on when objects are deleted: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination,
https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/, https://kubernetes.io/docs/concepts/architecture/garbage-collection/.
"""

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import MERGE, Hand, eventually, hand, pod, refused, stateful_set, stays
from tests.kubernetes.kubelet.api import Object


def _running(it: Hand, name: str) -> Object:
    it.create(pod(name))
    it.ready(name)
    return it.get("Pod", name)


def test_pod_that_nobody_runs_goes_at_once(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    it.delete("Pod", "a")
    assert it.find("Pod", "a") is None


def test_pod_that_runs_stays_until_its_kubelet_lets_it_go(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    before = _running(it, "a")
    said = it.delete("Pod", "a")
    assert said["metadata"]["deletionGracePeriodSeconds"] == 5
    assert said["metadata"]["deletionTimestamp"] > before["metadata"]["creationTimestamp"]
    assert it.get("Pod", "a")["status"]["phase"] == "Running"
    it.gone("a")
    assert it.find("Pod", "a") is None


def test_grace_can_be_made_shorter_but_not_longer(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _running(it, "a")
    first = it.delete("Pod", "a", gracePeriodSeconds=20)["metadata"]
    assert first["deletionGracePeriodSeconds"] == 20
    assert it.delete("Pod", "a", gracePeriodSeconds=60)["metadata"]["deletionGracePeriodSeconds"] == 20
    shorter = it.delete("Pod", "a", gracePeriodSeconds=2)["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 2
    assert shorter["deletionTimestamp"] < first["deletionTimestamp"]


def test_deletion_of_another_pod_of_that_name_is_refused(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    first = _running(it, "a")
    with refused(409, "Conflict") as told:
        it.delete("Pod", "a", preconditions={"uid": "another"})
    assert "the UID in the precondition (another) does not match the UID in record" in told["message"]
    it.patch("Pod", "a", {"metadata": {"labels": {"x": "y"}}})
    with refused(409, "Conflict") as told:
        it.delete("Pod", "a", preconditions={"uid": first["metadata"]["uid"], "resourceVersion": first["metadata"]["resourceVersion"]})
    assert "the ResourceVersion in the precondition" in told["message"]
    now = it.get("Pod", "a")["metadata"]
    assert "deletionTimestamp" not in now
    done = it.delete("Pod", "a", preconditions={"uid": now["uid"], "resourceVersion": now["resourceVersion"]})
    assert done["metadata"]["deletionTimestamp"]


def test_finalizer_keeps_an_object_until_it_is_taken_away(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    one: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "finalizers": ["example.org/x"]}}
    it.create(one)
    assert it.delete("ConfigMap", "a")["metadata"]["deletionTimestamp"]
    assert it.get("ConfigMap", "a")["metadata"]["finalizers"] == ["example.org/x"]
    with refused(422, "Invalid"):
        it.patch("ConfigMap", "a", {"metadata": {"finalizers": ["example.org/x", "example.org/y"]}}, MERGE)
    it.patch("ConfigMap", "a", {"metadata": {"finalizers": None}}, MERGE)
    assert it.find("ConfigMap", "a") is None


def test_deleted_object_answers_with_a_status_a_pod_with_itself(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    made = it.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    said = it.delete("ConfigMap", "a")
    assert (said["kind"], said["status"]) == ("Status", "Success")
    assert said["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    it.create(pod("p"))
    assert it.delete("Pod", "p")["kind"] == "Pod"


def test_dependents_go_with_their_owner_unless_they_are_orphaned(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    for name, policy, left in (("a", "Background", False), ("b", "Orphan", True)):
        it.create(stateful_set(name, replicas=1))
        it.wait_for_pod(f"{name}-0")
        it.delete("StatefulSet", name, propagationPolicy=policy)
        eventually(lambda name=name: it.find("StatefulSet", name) is None, f"{name} is gone")  # type: ignore[misc]
        if left:
            assert stays(lambda name=name: it.find("Pod", f"{name}-0") is not None)  # type: ignore[misc]
            assert "ownerReferences" not in it.get("Pod", f"{name}-0")["metadata"]
        else:
            eventually(lambda name=name: it.find("Pod", f"{name}-0") is None, "its pod is gone")  # type: ignore[misc]


def test_jobs_pods_are_left_unless_it_is_said(control_plane: ControlPlane) -> None:
    """Unlike all others a Job orphans what it began: the default of batch/v1."""
    it = hand(control_plane)
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.org/a:1"}]}}
    it.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": template}})
    eventually(lambda: it.pods("job-name=a"), "its pod is there")
    it.delete("Job", "a")
    eventually(lambda: it.find("Job", "a") is None, "it is gone")
    assert stays(lambda: bool(it.pods("job-name=a")))
