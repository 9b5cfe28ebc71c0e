"""What we rely on in the Deployment controller: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/."""

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import MERGE, Hand, deployment, eventually, hand, image_patch, stays
from tests.kubernetes.kubelet.api import Object, Value

_NEW = "example.org/a:2"
_ONE_FIRST = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
_ONE_LESS = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}


def _status(it: Hand) -> Object:
    return it.get("Deployment", "a")["status"]  # type: ignore[no-any-return]


def _images(it: Hand) -> list[str]:
    alive = [one for one in it.pods("app=a").values() if "deletionTimestamp" not in one["metadata"]]
    return sorted(one["spec"]["containers"][0]["image"] for one in alive)


def _make_ready(it: Hand) -> None:
    """Make ready whoever isn't, and let go whoever is to go."""
    for name, one in it.pods("app=a").items():
        if "deletionTimestamp" in one["metadata"]:
            it.gone(name)
        elif one["status"]["phase"] == "Pending":
            it.ready(name)


def _whole(it: Hand, **more: Value) -> None:
    it.create(deployment("a", **more))
    eventually(lambda: len(it.pods("app=a")) == 3, "all are there")
    _make_ready(it)
    eventually(lambda: _status(it).get("availableReplicas") == 3, "all are ready")


def _conditions(it: Hand) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in _status(it)["conditions"]}


def test_replica_sets_of_a_deployment_are_told_apart_by_the_template(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _whole(it)
    replica_set = it.list("ReplicaSet")["items"][0]
    word = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert replica_set["metadata"]["name"] == f"a-{word}"
    assert replica_set["spec"]["selector"]["matchLabels"] == {"app": "a", "pod-template-hash": word}
    assert replica_set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert it.get("Deployment", "a")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    assert {one["metadata"]["ownerReferences"][0]["name"] for one in it.pods("app=a").values()} == {f"a-{word}"}
    assert _conditions(it) == {"Available": ("True", "MinimumReplicasAvailable"), "Progressing": ("True", "NewReplicaSetAvailable")}


def test_surge_brings_one_before_one_goes(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _whole(it, strategy=_ONE_FIRST)
    it.patch("Deployment", "a", image_patch(_NEW))
    eventually(lambda: len(_images(it)) == 4, "one more is there")
    assert stays(lambda: _images(it) == ["example.org/a:1"] * 3 + [_NEW])
    for old in (2, 1):
        _make_ready(it)
        left = ["example.org/a:1"] * old + [_NEW] * (4 - old)
        eventually(lambda left=left: _images(it) == left, "one has gone, and the next is there")  # type: ignore[misc]
    _make_ready(it)
    eventually(lambda: _images(it) == [_NEW] * 3, "the last has gone, and nobody else comes")
    _make_ready(it)
    status = eventually(lambda: (told := _status(it)).get("updatedReplicas") == 3 and told.get("replicas") == 3 and told, "it is done")
    assert isinstance(status, dict)
    assert status["observedGeneration"] == it.get("Deployment", "a")["metadata"]["generation"]


def test_without_a_surge_one_goes_first(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _whole(it, strategy=_ONE_LESS)
    it.patch("Deployment", "a", image_patch(_NEW))
    eventually(lambda: _images(it) == ["example.org/a:1"] * 2 + [_NEW], "one has been replaced")
    assert stays(lambda: _images(it) == ["example.org/a:1"] * 2 + [_NEW])


def test_paused_deployment_takes_a_template_and_does_nothing(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _whole(it, strategy=_ONE_LESS)
    it.patch("Deployment", "a", {"spec": {"paused": True}}, MERGE)
    it.patch("Deployment", "a", image_patch(_NEW))
    eventually(lambda: _status(it)["observedGeneration"] == it.get("Deployment", "a")["metadata"]["generation"], "it is seen")
    assert stays(lambda: _images(it) == ["example.org/a:1"] * 3 and len(it.list("ReplicaSet")["items"]) == 1)
    assert _conditions(it)["Progressing"] == ("Unknown", "DeploymentPaused")
    # A pod that is deleted comes back as it was: its ReplicaSet isn't paused.
    name = next(iter(it.pods("app=a")))
    it.delete("Pod", name)
    eventually(
        lambda: (
            len(_images(it)) == 3
            and name not in [one for one, pod in it.pods("app=a").items() if "deletionTimestamp" not in pod["metadata"]]
        ),
        "another is there",
    )
    assert set(_images(it)) == {"example.org/a:1"}
    it.patch("Deployment", "a", {"spec": {"paused": None}}, MERGE)
    eventually(lambda: _NEW in _images(it), "it goes on")


def test_old_template_brings_its_replica_set_back(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _whole(it, strategy=_ONE_FIRST)
    first = it.list("ReplicaSet")["items"][0]["metadata"]["name"]
    it.patch("Deployment", "a", image_patch(_NEW))
    eventually(lambda: len(_images(it)) == 4, "a new one is there")
    it.patch("Deployment", "a", image_patch("example.org/a:1"))
    eventually(lambda: _images(it) == ["example.org/a:1"] * 3, "the new one has gone")
    numbers = {
        one["metadata"]["name"]: one["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        for one in it.list("ReplicaSet")["items"]
    }
    assert numbers[first] == "3"
    assert len(numbers) == 2


def test_annotations_of_a_deployment_are_copied_to_its_replica_set_and_stay_there(control_plane: ControlPlane) -> None:
    """`kubectl rollout undo` brings them back from there."""
    it = hand(control_plane)
    _whole(it)
    it.patch("Deployment", "a", {"metadata": {"annotations": {"example.org/note": "then"}}}, MERGE)

    def note() -> str | None:
        annotations: dict[str, str] = it.list("ReplicaSet")["items"][0]["metadata"]["annotations"]
        return annotations.get("example.org/note")

    eventually(lambda: note() == "then", "its ReplicaSet has it")
    it.patch("Deployment", "a", {"metadata": {"annotations": {"example.org/note": None}}}, MERGE)
    assert stays(lambda: note() == "then")


def test_recreated_waits_for_the_last_one_to_be_gone(control_plane: ControlPlane) -> None:
    """Not only until it is being deleted; and an eviction is no way to it, since another one comes while that one ends."""
    it = hand(control_plane)
    it.create(deployment("a", 1, strategy={"type": "Recreate"}))
    (first,) = eventually(lambda: it.pods("app=a"), "it is there")
    it.ready(first)
    it.patch("Deployment", "a", image_patch(_NEW))
    eventually(lambda: "deletionTimestamp" in it.get("Pod", first)["metadata"], "it is ending")
    assert stays(lambda: list(it.pods("app=a")) == [first])
    it.gone(first)
    eventually(lambda: _images(it) == [_NEW], "the next one is there")
    (second,) = it.pods("app=a")
    it.ready(second)
    it.evict(second)
    eventually(lambda: len(it.pods("app=a")) == 2, "another one is there while it ends")


def test_deployment_that_goes_no_further_says_so(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _whole(it, strategy=_ONE_FIRST, progressDeadlineSeconds=2)
    it.patch("Deployment", "a", image_patch(_NEW))
    eventually(lambda: _conditions(it)["Progressing"] == ("False", "ProgressDeadlineExceeded"), "it has been too long")
    assert _conditions(it)["Available"][0] == "True"
