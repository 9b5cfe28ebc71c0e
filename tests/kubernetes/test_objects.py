"""
What we rely on when objects are read and written: https://kubernetes.io/docs/reference/using-api/api-concepts/.

Like all tests in this folder that don't ask for faults, these are run against a real control plane as they are (bed.py).
"""

import pytest
from kubernetes import client

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import JSON_PATCH, MERGE, deployment, hand, image_patch, pod, refused, stateful_set
from tests.kubernetes.kubelet.api import Object, said


def _config(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_official_client_reads_what_it_wrote(control_plane: ControlPlane) -> None:
    with control_plane.api() as api:
        core = client.CoreV1Api(api)
        made = core.create_namespaced_config_map(control_plane.namespace, said(_config("a", x="1")))
        read = core.read_namespaced_config_map("a", control_plane.namespace)
    assert read.data == {"x": "1"}
    assert read.metadata is not None
    assert made.metadata is not None
    assert read.metadata.resource_version == made.metadata.resource_version
    assert client.VersionApi(api).get_code().major == "1"


def test_what_is_not_there_and_what_is_there_already(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    with refused(404, "NotFound") as told:
        it.get("StatefulSet", "none")
    assert told["message"] == 'statefulsets.apps "none" not found'
    assert told["details"] == {"name": "none", "group": "apps", "kind": "statefulsets"}
    it.create(_config("a"))
    with refused(409, "AlreadyExists") as told:
        it.create(_config("a"))
    assert told["message"] == 'configmaps "a" already exists'


def test_put_of_a_stale_version_is_refused(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    first = it.create(_config("a", x="1"))
    second = it.put(first | {"data": {"x": "2"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    with refused(409, "Conflict") as told:
        it.put(first | {"data": {"x": "3"}})
    assert told["message"] == (
        'Operation cannot be fulfilled on configmaps "a": '
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    assert it.get("ConfigMap", "a")["data"] == {"x": "2"}


@pytest.mark.parametrize("how", [MERGE, "application/strategic-merge-patch+json"])
def test_patch_with_a_stale_version_is_refused(control_plane: ControlPlane, how: str) -> None:
    it = hand(control_plane)
    first = it.create(_config("a", x="1"))
    it.patch("ConfigMap", "a", {"data": {"x": "2"}}, how)
    version = first["metadata"]["resourceVersion"]
    with refused(409, "Conflict"):
        it.patch("ConfigMap", "a", {"metadata": {"resourceVersion": version}, "data": {"x": "3"}}, how)
    now = it.get("ConfigMap", "a")["metadata"]["resourceVersion"]
    assert it.patch("ConfigMap", "a", {"metadata": {"resourceVersion": now}, "data": {"x": "3"}}, how)["data"] == {"x": "3"}


def test_patch_for_another_object_of_that_name_is_refused(control_plane: ControlPlane) -> None:
    """A patch that carries the uid of one that has been replaced meanwhile touches nothing."""
    it = hand(control_plane)
    it.create(_config("a", x="1"))
    with refused(422, "Invalid") as told:
        it.patch("ConfigMap", "a", {"metadata": {"uid": "another"}, "data": {"x": "2"}})
    assert {one["field"] for one in told["details"]["causes"]} == {"metadata.uid"}
    assert it.get("ConfigMap", "a")["data"] == {"x": "1"}


def test_write_that_changes_nothing_keeps_the_version(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    first = it.create(_config("a", x="1"))
    assert it.put(first)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    again = it.patch("ConfigMap", "a", {"data": {"x": "1"}})
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_merge_patches_differ_in_lists(control_plane: ControlPlane) -> None:
    """A strategic one merges containers and their environment by name, a plain one replaces lists."""
    it = hand(control_plane)
    one = stateful_set("a")
    one["spec"]["template"]["spec"]["containers"] = [
        {"name": "a", "image": "example.org/a:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "b", "image": "example.org/b:1"},
    ]
    it.create(one | {"spec": one["spec"] | {"replicas": 0}})
    new = {"containers": [{"name": "a", "image": "example.org/a:2", "env": [{"name": "B", "value": "3"}]}]}
    patch = {"spec": {"template": {"spec": new}}}
    merged = it.patch("StatefulSet", "a", patch)["spec"]["template"]["spec"]["containers"]
    assert [(one["name"], one["image"]) for one in merged] == [("a", "example.org/a:2"), ("b", "example.org/b:1")]
    assert merged[0]["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]
    replaced = it.patch("StatefulSet", "a", patch, MERGE)["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in replaced] == ["a"]
    assert replaced[0]["env"] == [{"name": "B", "value": "3"}]


def test_strategic_patch_deletes_an_item_by_its_key(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    one = deployment("a", replicas=0)
    one["spec"]["template"]["spec"]["containers"].append({"name": "b", "image": "example.org/b:1"})
    it.create(one)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}}}
    assert [one["name"] for one in it.patch("Deployment", "a", patch)["spec"]["template"]["spec"]["containers"]] == ["a"]


def test_json_patch_tests_before_it_writes(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(_config("a", x="1"))
    wrong = [{"op": "test", "path": "/data/x", "value": "2"}, {"op": "replace", "path": "/data/x", "value": "3"}]
    with refused(422, "Invalid"):
        it.patch("ConfigMap", "a", wrong, JSON_PATCH)
    right = [{"op": "test", "path": "/data/x", "value": "1"}, {"op": "replace", "path": "/data/x", "value": "3"}]
    assert it.patch("ConfigMap", "a", right, JSON_PATCH)["data"] == {"x": "3"}


def test_generation_counts_changes_of_the_spec_alone(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    assert it.create(stateful_set("a", replicas=0))["metadata"]["generation"] == 1
    assert it.patch("StatefulSet", "a", {"metadata": {"labels": {"x": "y"}}})["metadata"]["generation"] == 1
    assert it.patch("StatefulSet", "a", image_patch("example.org/a:2"))["metadata"]["generation"] == 2
    status = {"status": {"replicas": 0, "observedGeneration": 1}}
    assert it.patch("StatefulSet", "a", status, subresource="status")["metadata"]["generation"] == 2


def test_status_is_written_by_its_own_endpoint_alone(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    patch = {"metadata": {"labels": {"x": "y"}}, "status": {"conditions": [{"type": "example.org/x", "status": "True"}]}}
    plain = it.patch("Pod", "a", patch)
    assert plain["metadata"]["labels"]["x"] == "y"
    assert "example.org/x" not in [one["type"] for one in plain["status"].get("conditions") or []]
    told = it.patch("Pod", "a", {**patch, "spec": {"containers": [{"name": "a", "image": "example.org/a:9"}]}}, subresource="status")
    assert [one["status"] for one in told["status"]["conditions"] if one["type"] == "example.org/x"] == ["True"]
    assert told["spec"]["containers"][0]["image"] == "example.org/a:1"


def test_conditions_are_merged_by_type(control_plane: ControlPlane) -> None:
    """Somebody's readiness gate and the kubelet's conditions leave each other alone."""
    it = hand(control_plane)
    it.create(pod("a", readinessGates=[{"conditionType": "example.org/x"}]))
    it.patch("Pod", "a", {"status": {"conditions": [{"type": "example.org/x", "status": "True"}]}}, subresource="status")
    it.ready("a", ready=False)
    it.patch("Pod", "a", {"status": {"conditions": [{"type": "example.org/x", "status": "False"}]}}, subresource="status")
    told = {one["type"]: one["status"] for one in it.get("Pod", "a")["status"]["conditions"]}
    assert told["example.org/x"] == "False"
    assert told["Ready"] == "False"


def test_dry_run_checks_and_keeps_nothing(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    tried = it.create(stateful_set("a"), dryRun="All")
    assert tried["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    assert it.find("StatefulSet", "a") is None
    it.create(stateful_set("a", replicas=0))
    tried = it.patch("StatefulSet", "a", image_patch("example.org/a:2"), dryRun="All")
    assert tried["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/a:2"
    assert it.get("StatefulSet", "a")["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/a:1"
    with refused(422, "Invalid"):
        it.patch("StatefulSet", "a", {"spec": {"serviceName": "other"}}, dryRun="All")
    it.server.ask("DELETE", it.path("StatefulSet", "a"), None, dryRun="All")
    assert it.find("StatefulSet", "a") is not None


def test_what_may_not_change_is_refused_with_its_field(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(stateful_set("a", replicas=0))
    with refused(422, "Invalid") as told:
        it.patch("StatefulSet", "a", {"spec": {"podManagementPolicy": "Parallel"}})
    assert told["details"]["causes"][0]["field"] == "spec"
    assert "updates to statefulset spec for fields other than" in told["message"]
    other = stateful_set("b")
    other["spec"]["selector"] = {"matchLabels": {"app": "c"}}
    with refused(422, "Invalid") as told:
        it.create(other)
    assert told["details"]["causes"][0]["field"] == "spec.template.metadata.labels"
    assert told["details"]["kind"] == "StatefulSet"
    with refused(422, "Invalid"):
        it.patch("StatefulSet", "a", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}}}, MERGE)
    it.create(pod("p"))
    with refused(422, "Invalid"):
        it.patch("Pod", "p", {"spec": {"containers": [{"name": "a", "command": ["true"]}]}})
    patched = it.patch("Pod", "p", {"spec": {"containers": [{"name": "a", "image": "example.org/a:2"}]}})
    assert patched["spec"]["containers"][0]["image"] == "example.org/a:2"


def test_strategy_can_be_taken_over_and_given_back(control_plane: ControlPlane) -> None:
    """From a partition to OnDelete and back, as a merge patch: what is left out of it is set to null."""
    it = hand(control_plane)
    it.create(stateful_set("a", replicas=0, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}))
    taken = it.patch("StatefulSet", "a", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}, MERGE)
    assert taken["spec"]["updateStrategy"] == {"type": "OnDelete"}
    back = {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}}
    assert it.patch("StatefulSet", "a", back, MERGE)["spec"]["updateStrategy"] == back["spec"]["updateStrategy"]


def test_lists_come_in_pieces_of_one_moment(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    # Others may have ConfigMaps here, too: controllers publish certificates in every namespace.
    ours = [_config(f"a{number}") for number in (0, 1, 2, 3, 4, 9)]
    for one in ours:
        one["metadata"]["labels"] = {"app": "a"}
    for one in ours[:-1]:
        it.create(one)
    more = {"labelSelector": "app=a", "limit": "2"}
    first = it.list("ConfigMap", **more)
    assert [one["metadata"]["name"] for one in first["items"]] == ["a0", "a1"]
    it.create(ours[-1])
    second = it.list("ConfigMap", **more, **{"continue": first["metadata"]["continue"]})
    assert [one["metadata"]["name"] for one in second["items"]] == ["a2", "a3"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = it.list("ConfigMap", **more, **{"continue": second["metadata"]["continue"]})
    assert [one["metadata"]["name"] for one in third["items"]] == ["a4"]
    assert not third["metadata"].get("continue")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=a", ["p0", "p2"]),
        ("tier!=a", ["p1", "p3"]),
        ("tier in (a,b)", ["p0", "p1", "p2"]),
        ("tier notin (a)", ["p1", "p3"]),
        ("tier,app=p0", ["p0"]),
        ("!tier", ["p3"]),
    ],
)
def test_lists_by_labels(control_plane: ControlPlane, selector: str, names: list[str]) -> None:
    it = hand(control_plane)
    for number, tier in enumerate(["a", "b", "a", None]):
        one = pod(f"p{number}")
        one["metadata"]["labels"] |= {"tier": tier} if tier else {}
        it.create(one)
    assert sorted(it.pods(selector)) == names


def test_lists_by_fields(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    it.create(pod("b"))
    it.bind("a")
    assert [one["metadata"]["name"] for one in it.list("Pod", fieldSelector=f"spec.nodeName={it.node}")["items"]] == ["a"]
    assert [one["metadata"]["name"] for one in it.list("Pod", fieldSelector="metadata.name=b")["items"]] == ["b"]
    with refused(400, "BadRequest"):
        it.list("Pod", fieldSelector="spec.hostname=x")


def test_what_can_be_no_label_is_refused(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    for field, one in {"metadata.labels": pod("a"), "spec.nodeSelector": pod("b")}.items():
        it.create(one)
        if field == "metadata.labels":
            one["metadata"]["labels"]["tier"] = "is none"
        else:
            one["spec"]["nodeSelector"] = {"tier": "-"}
        one["metadata"]["name"] += "1"
        with refused(422, "Invalid") as told:
            it.create(one)
        assert {cause["field"] for cause in told["details"]["causes"]} == {field}


def test_what_can_be_no_key_is_refused(control_plane: ControlPlane) -> None:
    with refused(422, "Invalid") as told:
        hand(control_plane).create(_config("a", **{"a+b": "1"}))
    assert [cause["field"] for cause in told["details"]["causes"]] == ["data[a+b]"]


def test_what_is_of_another_type_is_not_read(control_plane: ControlPlane) -> None:
    """By POST as what it isn't, by a patch as what would come of it; nothing of it is kept, and the controllers go on."""
    it = hand(control_plane)
    wrong = stateful_set("a")
    wrong["spec"]["replicas"] = "two"
    with refused(400, "BadRequest"):
        it.create(wrong)
    it.create(stateful_set("a", replicas=0))
    with refused(422, "Invalid") as told:
        it.patch("StatefulSet", "a", {"spec": {"replicas": "x"}}, MERGE)
    assert told["details"]["causes"][0]["field"] == "patch"
    it.patch("StatefulSet", "a", {"spec": {"replicas": 1}}, MERGE)
    it.wait_for_pod("a-0")


def test_field_that_nobody_knows_is_left_out_or_refused(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    one = stateful_set("a", replicas=0, nothing="x")
    with refused(400, "BadRequest") as told:
        it.create(one, fieldValidation="Strict")
    assert 'unknown field "spec.nothing"' in told["message"]
    assert "nothing" not in it.create(one)["spec"]
    assert "nothing" not in it.patch("StatefulSet", "a", {"spec": {"nothing": "x"}}, MERGE)["spec"]
    with pytest.raises(client.ApiException) as caught:
        it.apply(one, "ours")
    assert ".spec.nothing: field not declared in schema" in str(caught.value.body)


@pytest.mark.parametrize("query", [{"limit": "abc"}, {"resourceVersion": "abc"}])
def test_query_that_makes_no_sense(control_plane: ControlPlane, query: dict[str, str]) -> None:
    with refused(400, "BadRequest"):
        hand(control_plane).list("ConfigMap", **query)


def test_watch_from_a_revision_that_makes_no_sense(control_plane: ControlPlane) -> None:
    """Nobody has translated that error, so it is the server's own and has no reason."""
    with refused(500, ""):
        hand(control_plane).list("ConfigMap", watch="true", resourceVersion="abc")


def test_pod_is_bound_once(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    assert it.bind("a")["status"] == "Success"
    assert it.get("Pod", "a")["spec"]["nodeName"] == it.node
    with refused(409, "Conflict"):
        it.bind("a", "another")
    assert it.get("Pod", "a")["spec"]["nodeName"] == it.node
