"""
What we rely on in the StatefulSet controller: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/.

The tests themselves say which pods are ready, so these run without a node.
"""

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import MERGE, Hand, eventually, hand, image_patch, stateful_set, stays
from tests.kubernetes.kubelet.api import Object, Value

_OLD, _NEW = "example.org/a:1", "example.org/a:2"


def _images(it: Hand) -> dict[str, str]:
    return {name: one["spec"]["containers"][0]["image"] for name, one in it.pods("app=a").items()}


def _status(it: Hand) -> Object:
    return it.get("StatefulSet", "a")["status"]  # type: ignore[no-any-return]


def _three(it: Hand, **more: Value) -> None:
    it.create(stateful_set("a", **more))
    it.all_ready("a-0", "a-1", "a-2")
    eventually(lambda: _status(it).get("readyReplicas") == 3, "all are ready")


def _replaced(it: Hand, name: str, uid: str) -> None:
    """Wait until a pod is to be deleted, let it end, and wait for the next of that name."""
    eventually(lambda: "deletionTimestamp" in it.get("Pod", name)["metadata"], f"{name} is to go")
    it.gone(name)
    eventually(lambda: (found := it.find("Pod", name)) is not None and found["metadata"]["uid"] != uid, f"{name} is new")


def _ending(it: Hand) -> list[str]:
    return [name for name, one in it.pods("app=a").items() if "deletionTimestamp" in one["metadata"]]


def _uid(it: Hand, name: str) -> str:
    return str(it.get("Pod", name)["metadata"]["uid"])


def test_pods_come_one_after_the_other(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(stateful_set("a"))
    first = it.wait_for_pod("a-0")
    assert stays(lambda: list(it.pods("app=a")) == ["a-0"])
    assert first["spec"]["hostname"] == "a-0"
    labels = first["metadata"]["labels"]
    assert labels["statefulset.kubernetes.io/pod-name"] == "a-0"
    assert labels["apps.kubernetes.io/pod-index"] == "0"
    assert labels["controller-revision-hash"] == _status(it)["updateRevision"]
    it.ready("a-0")
    it.wait_for_pod("a-1")
    it.ready("a-1")
    it.wait_for_pod("a-2")


def test_parallel_pods_come_together(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(stateful_set("a", podManagementPolicy="Parallel"))
    eventually(lambda: sorted(it.pods("app=a")) == ["a-0", "a-1", "a-2"], "all are there")


def test_new_template_rolls_from_the_last_pod_each_after_the_one_before(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _three(it)
    old = _status(it)["currentRevision"]
    uids = {name: _uid(it, name) for name in ("a-0", "a-1", "a-2")}
    it.patch("StatefulSet", "a", image_patch(_NEW))
    for name in ("a-2", "a-1", "a-0"):
        _replaced(it, name, uids[name])
        assert _images(it)[name] == _NEW
        assert stays(lambda: not _ending(it), 0.5)
        it.ready(name)
    done = eventually(lambda: (status := _status(it))["currentRevision"] == status["updateRevision"] and status, "it is done")
    assert isinstance(done, dict)
    assert done["currentRevision"] != old
    assert (done["updatedReplicas"], done["currentReplicas"], done["readyReplicas"]) == (3, 3, 3)


def test_on_delete_replaces_nobody_by_itself(control_plane: ControlPlane) -> None:
    """And the current revision stays the old one, however many run the new one."""
    it = hand(control_plane)
    _three(it, updateStrategy={"type": "OnDelete"})
    it.patch("StatefulSet", "a", image_patch(_NEW))
    eventually(lambda: _status(it)["observedGeneration"] == 2, "it is seen")
    assert stays(lambda: set(_images(it).values()) == {_OLD} and not _ending(it))
    for name in ("a-0", "a-1", "a-2"):
        uid = _uid(it, name)
        it.delete("Pod", name)
        _replaced(it, name, uid)
        assert _images(it)[name] == _NEW
        it.ready(name)
    status = eventually(
        lambda: (told := _status(it)).get("updatedReplicas") == 3 and told.get("readyReplicas") == 3 and told, "all are new"
    )
    assert isinstance(status, dict)
    assert status["currentRevision"] != status["updateRevision"]
    it.patch("StatefulSet", "a", {"spec": {"updateStrategy": {"type": "RollingUpdate"}}})
    eventually(lambda: (told := _status(it))["currentRevision"] == told["updateRevision"], "it is done once it may roll")
    assert stays(lambda: not _ending(it))


def test_partition_keeps_those_below_it_at_the_old_revision(control_plane: ControlPlane) -> None:
    """Even one that is made anew."""
    it = hand(control_plane)
    _three(it, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}})
    uids = {name: _uid(it, name) for name in ("a-0", "a-1", "a-2")}
    it.patch("StatefulSet", "a", image_patch(_NEW))
    _replaced(it, "a-2", uids["a-2"])
    it.ready("a-2")
    assert stays(lambda: _images(it) == {"a-0": _OLD, "a-1": _OLD, "a-2": _NEW} and not _ending(it))
    it.delete("Pod", "a-0")
    _replaced(it, "a-0", uids["a-0"])
    assert _images(it)["a-0"] == _OLD
    it.ready("a-0")
    status = _status(it)
    assert (status["currentReplicas"], status["updatedReplicas"]) == (2, 1)
    it.patch("StatefulSet", "a", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}})
    _replaced(it, "a-1", uids["a-1"])
    assert _images(it)["a-1"] == _NEW


def test_broken_revision_is_stuck_until_its_pod_is_deleted(control_plane: ControlPlane) -> None:
    """https://github.com/kubernetes/kubernetes/issues/67250: the old template alone doesn't unstick it."""
    it = hand(control_plane)
    _three(it)
    uid = _uid(it, "a-2")
    it.patch("StatefulSet", "a", image_patch("example.org/broken:1"))
    _replaced(it, "a-2", uid)
    broken = _uid(it, "a-2")
    it.patch("StatefulSet", "a", image_patch(_OLD))
    eventually(lambda: _status(it)["observedGeneration"] == 3, "the old template is seen")
    assert stays(lambda: "deletionTimestamp" not in it.get("Pod", "a-2")["metadata"], 2.0)
    assert _images(it)["a-2"] == "example.org/broken:1"
    it.delete("Pod", "a-2")
    eventually(lambda: (found := it.find("Pod", "a-2")) is not None and found["metadata"]["uid"] != broken, "a-2 is new")
    assert _images(it)["a-2"] == _OLD
    it.ready("a-2")
    eventually(lambda: (told := _status(it))["currentRevision"] == told["updateRevision"] and told.get("readyReplicas") == 3, "it is whole")


def test_old_template_gets_its_old_revision_back(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(stateful_set("a", replicas=0))
    first = eventually(lambda: _status(it).get("updateRevision"), "it has a revision")
    it.patch("StatefulSet", "a", image_patch(_NEW))
    eventually(lambda: _status(it)["updateRevision"] != first, "there is another")
    it.patch("StatefulSet", "a", image_patch(_OLD))
    eventually(lambda: _status(it)["updateRevision"] == first, "it is the first again")
    numbers = {one["metadata"]["name"]: one["revision"] for one in it.list("ControllerRevision")["items"]}
    assert numbers[first] == 3
    assert sorted(numbers.values()) == [2, 3]


def test_revision_holds_the_whole_template(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    made = it.create(stateful_set("a", replicas=0))
    name = eventually(lambda: _status(it).get("updateRevision"), "it has a revision")
    revision = it.get("ControllerRevision", str(name))
    template = dict(revision["data"]["spec"]["template"])
    assert template.pop("$patch") == "replace"
    assert template["spec"] == made["spec"]["template"]["spec"]
    owner = revision["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("StatefulSet", made["metadata"]["uid"], True)


def test_fewer_replicas_take_the_last_first(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _three(it)
    it.patch("StatefulSet", "a", {"spec": {"replicas": 1}}, MERGE)
    eventually(lambda: "deletionTimestamp" in it.get("Pod", "a-2")["metadata"], "a-2 is to go")
    assert stays(lambda: "deletionTimestamp" not in it.get("Pod", "a-1")["metadata"], 0.5)
    it.gone("a-2")
    eventually(lambda: "deletionTimestamp" in it.get("Pod", "a-1")["metadata"], "a-1 is to go")


def test_pod_that_has_ended_is_replaced(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _three(it)
    uid = _uid(it, "a-1")
    it.patch("Pod", "a-1", {"status": {"phase": "Failed"}}, subresource="status")
    eventually(lambda: (found := it.find("Pod", "a-1")) is not None and found["metadata"]["uid"] != uid, "a-1 is new")
