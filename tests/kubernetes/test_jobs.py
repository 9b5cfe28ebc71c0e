"""What we rely on in Jobs: https://kubernetes.io/docs/concepts/workloads/controllers/job/. The tests say how their pods end."""

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import Hand, eventually, hand, refused, stays
from tests.kubernetes.kubelet.api import Object


def _job(it: Hand, **spec: object) -> Object:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "example.org/a:1"}]}}
    return it.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template, **spec}})


def _pod(it: Hand) -> str:
    found = eventually(lambda: it.pods("batch.kubernetes.io/job-name=j"), "its pod is there")
    return next(iter(found))


def _ends(it: Hand, name: str, phase: str) -> None:
    it.ready(name)
    it.patch("Pod", name, {"status": {"phase": phase}}, subresource="status")


def _conditions(it: Hand) -> dict[str, str]:
    told = it.get("Job", "j")["status"].get("conditions") or []
    return {one["type"]: one.get("reason", "") for one in told if one["status"] == "True"}


def test_job_is_complete_when_its_pod_has_succeeded(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    made = _job(it, backoffLimit=0)
    name = _pod(it)
    assert made["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": made["metadata"]["uid"]}
    assert it.get("Pod", name)["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    eventually(lambda: it.get("Job", "j")["status"].get("active") == 1, "it is active")
    _ends(it, name, "Succeeded")
    eventually(lambda: "Complete" in _conditions(it), "it is complete")
    status = it.get("Job", "j")["status"]
    assert status["succeeded"] == 1
    assert not status.get("active")
    assert status["completionTime"]
    eventually(lambda: not it.get("Pod", name)["metadata"].get("finalizers"), "its pod may go")


def test_job_without_tries_left_has_failed(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _job(it, backoffLimit=0)
    _ends(it, _pod(it), "Failed")
    eventually(lambda: _conditions(it).get("Failed") == "BackoffLimitExceeded", "it has failed")
    assert it.get("Job", "j")["status"]["failed"] == 1
    assert stays(lambda: len(it.pods("batch.kubernetes.io/job-name=j")) == 1)


def test_job_is_what_it_was_made(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _job(it, backoffLimit=0)
    with refused(422, "Invalid") as told:
        it.patch("Job", "j", {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "example.org/a:2"}]}}}})
    assert told["details"]["causes"][0]["field"] == "spec.template"
