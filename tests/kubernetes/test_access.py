"""What accounts may do: https://kubernetes.io/docs/reference/access-authn-authz/rbac/ and …/authorization/#checking-api-access."""

import pytest
from kubernetes import client

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import hand, pod, refused, stateful_set
from tests.kubernetes.kubelet.api import Object, Value

_READS = [{"apiGroups": ["", "apps"], "resources": ["pods", "statefulsets"], "verbs": ["get", "list", "watch"]}]


def test_account_may_what_its_role_says_and_no_more(control_plane: ControlPlane) -> None:
    admin = hand(control_plane)
    admin.create(pod("a"))
    it = hand(control_plane, control_plane.account("reader", _READS))
    assert list(it.pods()) == ["a"]
    who = f"system:serviceaccount:{control_plane.namespace}:reader"
    with refused(403, "Forbidden") as told:
        it.delete("Pod", "a")
    assert told["message"] == (
        f'pods "a" is forbidden: User "{who}" cannot delete resource "pods" in API group "" in the namespace "{control_plane.namespace}"'
    )
    assert told["details"] == {"name": "a", "kind": "pods"}
    with refused(403, "Forbidden") as told:
        it.apply(stateful_set("a"), "reader")
    assert 'cannot patch resource "statefulsets" in API group "apps"' in told["message"]
    with refused(403, "Forbidden"):
        it.evict("a")
    with refused(403, "Forbidden"):
        it.patch("Pod", "a", {"status": {}}, subresource="status")


@pytest.mark.parametrize(("resource", "does"), [("pods/eviction", "evict"), ("pods/status", "status")], ids=["eviction", "status"])
def test_subresource_is_allowed_by_itself(control_plane: ControlPlane, resource: str, does: str) -> None:
    admin = hand(control_plane)
    admin.create(pod("a"))
    verb = "create" if does == "evict" else "patch"
    it = hand(control_plane, control_plane.account("one", [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]))
    if does == "evict":
        it.evict("a")
    else:
        it.patch("Pod", "a", {"status": {"message": "x"}}, subresource="status")
    with refused(403, "Forbidden"):
        it.get("Pod", "a")


def test_names_narrow_a_rule(control_plane: ControlPlane) -> None:
    admin = hand(control_plane)
    for name in ("a", "b"):
        admin.create(pod(name))
    rule = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get"]}
    it = hand(control_plane, control_plane.account("one", [rule]))
    assert it.get("Pod", "a")["metadata"]["name"] == "a"
    with refused(403, "Forbidden"):
        it.get("Pod", "b")


def test_apply_of_a_new_object_needs_create_too(control_plane: ControlPlane) -> None:
    rule = {"apiGroups": ["apps"], "resources": ["statefulsets"], "verbs": ["get", "patch"]}
    it = hand(control_plane, control_plane.account("one", [rule]))
    with refused(403, "Forbidden") as told:
        it.apply(stateful_set("a"), "one")
    assert 'cannot create resource "statefulsets"' in told["message"]
    hand(control_plane).create(stateful_set("a", replicas=0))
    it.apply(stateful_set("a", replicas=0), "one")


def test_review_tells_what_the_asker_may(control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.account("one", [*_READS, {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]}])

    def may(api: client.ApiClient, **attributes: str) -> bool:
        spec: Value = {"resourceAttributes": {"namespace": control_plane.namespace, **attributes}}
        review: Value = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        status = client.AuthorizationV1Api(api).create_self_subject_access_review(review).status
        assert status is not None
        return bool(status.allowed)

    with control_plane.api(kubeconfig) as api:
        assert may(api, verb="list", group="apps", resource="statefulsets")
        assert not may(api, verb="patch", group="apps", resource="statefulsets")
        assert not may(api, verb="list", group="batch", resource="statefulsets")
        assert may(api, verb="create", group="", resource="pods", subresource="eviction")
        assert not may(api, verb="create", group="", resource="pods")
        assert not may(api, verb="get", group="", resource="pods", namespace="default")
    with control_plane.api() as api:
        assert may(api, verb="delete", group="apps", resource="statefulsets")


def test_rules_are_listed_to_whom_they_are_for(control_plane: ControlPlane) -> None:
    named = {"apiGroups": [""], "resources": ["pods/eviction"], "resourceNames": ["a", "b"], "verbs": ["create"]}
    kubeconfig = control_plane.account("one", [*_READS, named])

    def listed(api: client.ApiClient, namespace: str) -> tuple[list[Value], bool]:
        review: Value = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
        status = client.AuthorizationV1Api(api).create_self_subject_rules_review(review).status
        assert status is not None
        rules = [(one.verbs, one.api_groups, one.resources, one.resource_names or []) for one in status.resource_rules]
        return rules, bool(status.incomplete)

    reads: Value = (["get", "list", "watch"], ["", "apps"], ["pods", "statefulsets"], [])
    evicts: Value = (["create"], [""], ["pods/eviction"], ["a", "b"])
    with control_plane.api(kubeconfig) as api:
        rules, incomplete = listed(api, control_plane.namespace)
        assert reads in rules
        assert evicts in rules
        assert not incomplete
        elsewhere, _ = listed(api, "default")
        assert reads not in elsewhere
        assert any("selfsubjectaccessreviews" in resources for _, _, resources, _ in elsewhere)
        with pytest.raises(client.ApiException) as told:
            listed(api, "")
        assert told.value.status == 400
    with control_plane.api() as api:
        rules, _ = listed(api, control_plane.namespace)
        assert (["*"], ["*"], ["*"], []) in rules


def test_unknown_caller_is_401(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    stranger = control_plane.account("gone", _READS)
    text = stranger.read_text()
    token = text.partition('"token": "')[2].partition('"')[0]
    stranger.write_text(text.replace(token, "nobodys"))
    told: Object
    with refused(401, "Unauthorized") as told:
        hand(control_plane, stranger).pods()
    assert told["message"] == "Unauthorized"
    assert it.pods() == {}
