"""Whose a pod is, and which Deployments are no workers."""

from typing import Any

import pytest

from rollout.adapters.kubernetes.cluster import Object
from rollout.adapters.kubernetes.kinds import DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS, Kind
from rollout.adapters.kubernetes.objects import ADMITTED
from rollout.adapters.kubernetes.places import ListOf, homes, pods_at, workloads
from rollout.model.errors import PermanentDriverError


def _thing(kind: Kind, name: str, owner: Object | None = None, **more: Any) -> Object:  # noqa: ANN401  (as JSON has it)
    metadata: Object = {"name": name, "uid": f"uid-of-{name}"}
    if owner is not None:
        metadata["ownerReferences"] = [
            {"kind": "Node", "name": "somebody", "uid": "else"},
            {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True},
        ]
    return {"kind": kind.name, "metadata": {**metadata, **more.pop("metadata", {})}, **more}


def _lists(**every: list[Object]) -> ListOf:
    return lambda kind: every.get(kind.plural, [])


SYNC = _thing(DEPLOYMENTS, "sync", spec={"replicas": 1, "selector": {"matchLabels": {"app": "sync"}}})
OLD, NEW = _thing(REPLICA_SETS, "sync-1", SYNC), _thing(REPLICA_SETS, "sync-2", SYNC)
ELSE = _thing(REPLICA_SETS, "sync-3", _thing(DEPLOYMENTS, "another"))


def _pod(name: str, owner: Object | None, made: str, *, going: bool = False, phase: str = "Running") -> Object:
    metadata = {"creationTimestamp": made, **({"deletionTimestamp": "2026-01-01T09:00:00Z"} if going else {})}
    return _thing(PODS, name, owner, metadata=metadata, status={"phase": phase})


@pytest.mark.parametrize(
    ("pods", "found"),
    [
        ([_pod("a", OLD, "2026-01-01T00:00:00Z")], "a"),
        ([_pod("a", OLD, "2026-01-01T00:00:00Z", going=True), _pod("b", NEW, "2026-01-01T00:00:00Z")], "b"),
        ([_pod("a", OLD, "2026-01-01T00:00:00Z"), _pod("b", NEW, "2026-01-01T00:00:09Z", going=True)], "a"),
        ([_pod("a", OLD, "2026-01-01T00:00:00Z", going=True)], "a"),
        # A node that had no room left it there, and it never runs again.
        ([_pod("a", OLD, "2026-01-01T00:00:00Z"), _pod("b", OLD, "2026-01-01T00:00:09Z", phase="Failed")], "a"),
        ([_pod("a", OLD, "2026-01-01T00:00:00Z", phase="Failed")], "a"),
        # Its labels may be the same, and its name.
        ([_pod("sync", None, "2026-01-01T00:00:00Z"), _pod("b", ELSE, "2026-01-01T00:00:00Z")], None),
    ],
)
def test_the_pod_of_a_deployment_is_found_by_its_owners(pods: list[Object], found: str | None) -> None:
    """Of several it is who stays, and of those the younger."""
    at = pods_at(_lists(pods=pods, replicasets=[OLD, NEW, ELSE]), {"sync"})
    assert (at["deployment/sync"]["metadata"]["name"] if "deployment/sync" in at else None) == found


def test_all_others_are_where_their_names_say() -> None:
    pods = [_pod("a", OLD, "2026-01-01T00:00:00Z"), _pod("b", ELSE, "2026-01-01T00:00:00Z"), _pod("sync-0", None, "2026-01-01T00:00:00Z")]
    assert set(pods_at(_lists(pods=pods, replicasets=[OLD, NEW, ELSE]), {"sync"})) == {"deployment/sync", "b", "sync-0"}


def test_only_deployments_that_are_named_are_workloads() -> None:
    """One that nobody has named may have as many replicas as it likes."""
    other = _thing(DEPLOYMENTS, "proxy", spec={"replicas": 3})
    sets = [_thing(STATEFUL_SETS, "client", spec={"replicas": 2})]
    found = workloads(_lists(deployments=[SYNC, other], statefulsets=sets), {"sync"}, sets=True)
    assert set(homes(found)) == {"deployment/sync", "client-0", "client-1"}


def test_without_any_nothing_is_asked_that_the_role_does_not_have() -> None:
    asked: list[Kind] = []

    def list_of(kind: Kind) -> list[Object]:
        asked.append(kind)
        return []

    workloads(list_of, frozenset(), sets=True)
    pods_at(list_of, frozenset())
    workloads(list_of, {"sync"}, sets=False)
    assert asked == [STATEFUL_SETS, PODS, DEPLOYMENTS]


@pytest.mark.parametrize("selector", [{"matchLabels": {ADMITTED: "true"}}, {"matchExpressions": [{"key": ADMITTED, "operator": "Exists"}]}])
def test_one_that_chooses_its_pods_by_our_label_is_refused(selector: Object) -> None:
    """Drained, the pod would be nobody's, and another one made beside it."""
    bad = _thing(DEPLOYMENTS, "sync", spec={"replicas": 1, "selector": selector})
    with pytest.raises(PermanentDriverError, match="Deployment sync chooses its pods by") as refused:
        workloads(_lists(deployments=[bad]), {"sync"}, sets=False)
    assert (refused.value.where, refused.value.why, refused.value.remedy) == (
        "deployment/sync",
        "a drain changes rollout.internal/admitted; the pod would be nobody's then, and a second one made beside it",
        "make it anew without (selectors can't be changed); it belongs to the template's labels and the Service's selector",
    )
