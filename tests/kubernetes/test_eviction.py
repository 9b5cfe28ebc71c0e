"""What we rely on when pods are evicted: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/."""

import pytest
from kubernetes import client

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import Hand, eventually, hand, pod, refused, stateful_set, stays
from tests.kubernetes.kubelet.api import Object


def _budget(name: str, **spec: object) -> Object:
    metadata = {"name": name}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"selector": {"matchLabels": {"app": "a"}}, **spec},
    }


def _three_ready(it: Hand, **budget: object) -> None:
    it.create(stateful_set("a"))
    it.all_ready("a-0", "a-1", "a-2")
    it.create(_budget("a", **budget))
    eventually(lambda: _status(it).get("currentHealthy") == 3 and _status(it)["expectedPods"] == 3, "the budget knows all three")


def _status(it: Hand) -> Object:
    return it.get("PodDisruptionBudget", "a")["status"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("budget", [{"maxUnavailable": 1}, {"minAvailable": 2}, {"maxUnavailable": "34%"}])
def test_second_eviction_waits_for_the_first_pod(control_plane: ControlPlane, budget: dict[str, object]) -> None:
    it = hand(control_plane)
    most = 2 if budget == {"maxUnavailable": "34%"} else 1
    _three_ready(it, **budget)
    eventually(lambda: _status(it)["disruptionsAllowed"] == most, "as many may go")
    for name in ["a-2", "a-1"][:most]:
        assert it.evict(name)["status"] == "Success"
        assert it.get("Pod", name)["metadata"]["deletionTimestamp"]
    eventually(lambda: _status(it)["disruptionsAllowed"] == 0 and _status(it)["currentHealthy"] == 3 - most, "none may go")
    with refused(429, "TooManyRequests") as told:
        it.evict("a-0")
    assert told["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    cause = told["details"]["causes"][0]
    assert cause["reason"] == "DisruptionBudget"
    healthy = 3 - most
    assert cause["message"] == f"The disruption budget a needs {_status(it)['desiredHealthy']} healthy pods and has {healthy} currently"
    assert "deletionTimestamp" not in it.get("Pod", "a-0")["metadata"]
    for name in ["a-2", "a-1"][:most]:
        it.gone(name)
    it.all_ready(*["a-1", "a-2"][-most:])
    eventually(lambda: _status(it)["disruptionsAllowed"] == most, "the budget is whole again")
    it.evict("a-0")


def test_used_up_budget_says_no_time_to_wait(control_plane: ControlPlane) -> None:
    """Retry-After comes with a budget that the controller hasn't seen yet, not with one that is used up."""
    it = hand(control_plane)
    _three_ready(it, maxUnavailable=0)
    with pytest.raises(client.ApiException) as caught:
        it.evict("a-0")
    assert caught.value.status == 429
    assert caught.value.headers is not None
    assert "Retry-After" not in caught.value.headers


def test_without_a_budget_anyone_may_go(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    it.ready("a")
    it.evict("a")
    assert it.get("Pod", "a")["metadata"]["deletionTimestamp"]


def test_eviction_holds_to_its_preconditions(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    it.ready("a")
    with refused(409, "Conflict"):
        it.evict("a", preconditions={"uid": "another"})
    before = it.get("Pod", "a")["metadata"]
    it.patch("Pod", "a", {"metadata": {"labels": {"x": "y"}}})
    with refused(409, "Conflict"):
        it.evict("a", preconditions={"resourceVersion": before["resourceVersion"]})
    assert "deletionTimestamp" not in it.get("Pod", "a")["metadata"]
    with refused(404, "NotFound"):
        it.evict("none")


def test_tried_eviction_spends_nothing(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _three_ready(it, maxUnavailable=1)
    eventually(lambda: _status(it)["disruptionsAllowed"] == 1, "one may go")
    it.evict("a-2", dry_run="All")
    assert stays(lambda: _status(it)["disruptionsAllowed"] == 1)
    assert "deletionTimestamp" not in it.get("Pod", "a-2")["metadata"]
    it.evict("a-2")


def test_sick_pod_may_go_when_the_others_are_enough(control_plane: ControlPlane) -> None:
    """One that serves nobody spends nothing, as long as as many are well as the budget wants."""
    it = hand(control_plane)
    _three_ready(it, minAvailable=2)
    it.ready("a-2", ready=False)
    eventually(lambda: _status(it)["currentHealthy"] == 2 and _status(it)["disruptionsAllowed"] == 0, "the budget knows")
    with refused(429, "TooManyRequests"):
        it.evict("a-1")
    it.evict("a-2")
    assert it.get("Pod", "a-2")["metadata"]["deletionTimestamp"]


def test_sick_pod_of_a_broken_budget_goes_only_by_policy(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _three_ready(it, minAvailable=3)
    it.ready("a-1", ready=False)
    it.ready("a-2", ready=False)
    eventually(lambda: _status(it)["currentHealthy"] == 1, "the budget knows")
    with refused(429, "TooManyRequests"):
        it.evict("a-2")
    it.patch("PodDisruptionBudget", "a", {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}})
    it.evict("a-2")


def test_two_budgets_for_a_pod_are_an_error(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    _three_ready(it, maxUnavailable=1)
    it.create(_budget("b", maxUnavailable=1))
    with pytest.raises(client.ApiException) as caught:
        it.evict("a-2")
    assert caught.value.status == 500
    assert "more than one PodDisruptionBudget" in str(caught.value.body)


def test_official_client_evicts(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(pod("a"))
    it.ready("a")
    with control_plane.api() as api:
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="a", namespace=control_plane.namespace))
        client.CoreV1Api(api).create_namespaced_pod_eviction("a", control_plane.namespace, eviction)
    assert it.get("Pod", "a")["metadata"]["deletionTimestamp"]
