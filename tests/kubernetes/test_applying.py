"""What we rely on in server-side apply: https://kubernetes.io/docs/reference/using-api/server-side-apply/."""

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import MERGE, Hand, hand, refused, stateful_set
from tests.kubernetes.kubelet.api import Object


def _of(name: str, **spec: object) -> Object:
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}


def _image(image: str, **more: object) -> Object:
    return _of("a", template={"spec": {"containers": [{"name": "a", "image": image, **more}]}})


def _begin(it: Hand) -> Object:
    """Somebody's chart has applied a StatefulSet."""
    return it.apply(stateful_set("a", replicas=0), "chart")


def _owned(obj: Object, manager: str) -> Object:
    """Return what a manager that applies owns of the spec."""
    found = [one for one in obj["metadata"]["managedFields"] if one["manager"] == manager and one["operation"] == "Apply"]
    return found[0]["fieldsV1"]["f:spec"] if found else {}


def _image_of(obj: Object) -> str:
    return str(obj["spec"]["template"]["spec"]["containers"][0]["image"])


def test_apply_makes_what_is_not_there_and_owns_what_it_names(control_plane: ControlPlane) -> None:
    made = _begin(hand(control_plane))
    owned = _owned(made, "chart")
    assert set(owned) == {"f:replicas", "f:selector", "f:serviceName", "f:template"}
    container = owned["f:template"]["f:spec"]["f:containers"]['k:{"name":"a"}']
    assert container == {".": {}, "f:image": {}, "f:name": {}}
    assert made["metadata"]["managedFields"][0]["apiVersion"] == "apps/v1"
    assert made["spec"]["revisionHistoryLimit"] == 10


def test_another_managers_field_is_a_conflict_that_names_both(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _begin(it)
    with refused(409, "Conflict") as told:
        it.apply(_image("example.org/a:2"), "ours")
    field = '.spec.template.spec.containers[name="a"].image'
    assert told["message"] == f'Apply failed with 1 conflict: conflict with "chart": {field}'
    assert told["details"]["causes"] == [{"reason": "FieldManagerConflict", "message": 'conflict with "chart"', "field": field}]
    assert _image_of(it.get("StatefulSet", "a")) == "example.org/a:1"


def test_same_value_is_shared_without_a_conflict(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _begin(it)
    both = it.apply(_image("example.org/a:1"), "ours")
    assert "f:image" in str(_owned(both, "ours"))
    assert "f:image" in str(_owned(both, "chart"))


def test_forced_apply_takes_over_that_field_alone(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _begin(it)
    after = it.apply(_image("example.org/a:2"), "ours", force="true")
    assert _image_of(after) == "example.org/a:2"
    assert "f:image" not in str(_owned(after, "chart"))
    assert "f:replicas" in _owned(after, "chart")
    assert _owned(after, "ours") == {"f:template": {"f:spec": {"f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}, "f:name": {}}}}}}
    # The chart's next apply meets us in turn.
    with refused(409, "Conflict") as told:
        it.apply(stateful_set("a", replicas=0), "chart")
    assert 'conflict with "ours"' in told["message"]


def test_field_that_is_given_up_goes_unless_another_has_it(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _begin(it)
    ours = _image("example.org/a:1", env=[{"name": "OURS", "value": "1"}])
    ours["metadata"]["annotations"] = {"example.org/ours": "1"}
    it.apply(ours, "ours")
    left = it.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "a"}}, "ours")
    container = left["spec"]["template"]["spec"]["containers"][0]
    assert "env" not in container
    assert container["image"] == "example.org/a:1"
    assert "annotations" not in left["metadata"]
    assert [one["manager"] for one in left["metadata"]["managedFields"] if one["operation"] == "Apply"] == ["chart"]


def test_default_comes_back_when_a_field_is_given_up(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _begin(it)
    it.apply(_of("a", minReadySeconds=7, revisionHistoryLimit=3, updateStrategy={"rollingUpdate": {"partition": 2}}), "ours")
    back = it.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "a"}}, "ours")
    assert not back["spec"].get("minReadySeconds")
    assert back["spec"]["revisionHistoryLimit"] == 10
    assert back["spec"]["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}


def test_strategy_of_another_type_cannot_be_applied_over_a_rolling_one(control_plane: ControlPlane) -> None:
    """What stands there of `rollingUpdate`, be it a default that nobody owns, stays in a merge, and doesn't fit OnDelete."""
    it = hand(control_plane)
    _begin(it)
    with refused(422, "Invalid") as told:
        it.apply(_of("a", updateStrategy={"type": "OnDelete"}), "ours", force="true")
    assert told["details"]["causes"][0]["field"] == "spec.updateStrategy.rollingUpdate"


def test_items_that_others_added_stay(control_plane: ControlPlane) -> None:
    """Environment, containers and annotations of several managers live in one list or map."""
    it = hand(control_plane)
    _begin(it)
    it.apply(_image("example.org/a:1", env=[{"name": "X", "value": "1"}]), "x")
    it.patch("StatefulSet", "a", {"metadata": {"annotations": {"by": "hand"}}}, MERGE, fieldManager="hand")
    after = it.apply(_image("example.org/a:1", env=[{"name": "Y", "value": "2"}]), "y")
    assert sorted(one["name"] for one in after["spec"]["template"]["spec"]["containers"][0]["env"]) == ["X", "Y"]
    assert after["metadata"]["annotations"] == {"by": "hand"}
    left = it.apply(_image("example.org/a:1"), "x")
    assert left["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "Y", "value": "2"}]


def test_plain_patch_takes_a_field_without_asking(control_plane: ControlPlane) -> None:
    """And the apply of who had it is refused from then on: that is how somebody else's edit is seen."""
    it = hand(control_plane)
    _begin(it)
    it.apply(_image("example.org/a:2"), "ours", force="true")
    edit = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "example.org/a:3"}]}}}}
    edited = it.patch("StatefulSet", "a", edit, fieldManager="kubectl-edit")
    assert "f:image" not in str(_owned(edited, "ours"))
    with refused(409, "Conflict") as told:
        it.apply(_image("example.org/a:2"), "ours")
    assert 'conflict with "kubectl-edit" using apps/v1' in told["message"]


def test_apply_with_a_stale_version_or_of_another_object_is_refused(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    first = _begin(it)
    it.patch("StatefulSet", "a", {"metadata": {"labels": {"x": "y"}}})
    stale = _image("example.org/a:1")
    stale["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"]
    with refused(409, "Conflict"):
        it.apply(stale, "ours")
    stale["metadata"]["resourceVersion"] = it.get("StatefulSet", "a")["metadata"]["resourceVersion"]
    it.apply(stale, "ours")


def test_apply_that_changes_nothing_keeps_the_version(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(stateful_set("b", replicas=0))
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": "1"}}
    first = it.apply(config, "ours")
    assert it.apply(config, "ours")["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_apply_as_a_dry_run_tells_of_conflicts_and_keeps_nothing(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _begin(it)
    with refused(409, "Conflict"):
        it.apply(_image("example.org/a:2"), "ours", dryRun="All")
    tried = it.apply(_image("example.org/a:2"), "ours", dryRun="All", force="true")
    assert _image_of(tried) == "example.org/a:2"
    assert _image_of(it.get("StatefulSet", "a")) == "example.org/a:1"


def test_condition_is_applied_to_a_pods_status(control_plane: ControlPlane) -> None:
    """As we admit a pod: the condition is ours, all others stay."""
    it = hand(control_plane)
    spec = {"containers": [{"name": "a", "image": "example.org/a:1"}], "readinessGates": [{"conditionType": "example.org/x"}]}
    it.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
    it.ready("p", ready=False)
    condition = {"type": "example.org/x", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ours = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"conditions": [condition]}}
    after = it.apply(ours, "ours", "status")
    told = {one["type"]: one["status"] for one in after["status"]["conditions"]}
    assert (told["example.org/x"], told["Ready"]) == ("True", "False")
    assert [one["subresource"] for one in after["metadata"]["managedFields"] if one["manager"] == "ours"] == ["status"]
