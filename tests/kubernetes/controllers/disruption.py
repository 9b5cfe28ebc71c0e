"""
How many pods of a PodDisruptionBudget may be evicted.

Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/; pkg/controller/disruption/disruption.go in kubernetes/kubernetes
(getExpectedPodCount, countHealthyPods, buildDisruptedPodMap, updatePdbStatus).
"""

from datetime import UTC, datetime

from tests.kubernetes.controllers.common import MANAGER, POD, is_ready, is_terminating, scaled, with_condition
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, controller_of, copied, labels_of, name_of, namespace_of, parsed
from tests.kubernetes.server.resources import Resources
from tests.kubernetes.server.selectors import matches

_BUDGET = BY_NAME["PodDisruptionBudget"]
# For as long an eviction that was let through counts, though its pod is still there: DeletionTimeout.
_EVICTED_S = 120


class _UnknownScaleError(Exception):
    """A pod's controller can't be asked for its scale."""


def budgets(resources: Resources) -> float | None:
    waiting = False
    for budget in resources.store.all(_BUDGET):
        waiting = _sync(resources, budget) or waiting
    return 1.0 if waiting else None


def _sync(resources: Resources, budget: Object) -> bool:
    """Bring a budget's status up to date, and say whether evictions are waited for."""
    selector = at(budget, "spec", "selector")
    pods = [pod for pod in resources.store.all(POD, namespace_of(budget)) if matches(selector, labels_of(pod))]
    pods = [pod for pod in pods if at(pod, "status", "phase") not in {"Succeeded", "Failed"}] if selector else []
    try:
        expected, wanted = _expected(resources, budget, pods)
    except _UnknownScaleError as error:
        _write(resources, budget, copied(budget["status"]) | {"disruptionsAllowed": 0}, "SyncFailed", str(error))
        return False
    disrupted = _disrupted(budget, pods)
    healthy = sum(is_ready(pod) and not is_terminating(pod) and name_of(pod) not in disrupted for pod in pods)
    allowed = max(0, healthy - wanted) if expected > 0 else 0
    status = {
        "observedGeneration": budget["metadata"]["generation"],
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": wanted,
        "expectedPods": expected,
        **({"disruptedPods": disrupted} if disrupted else {}),
    }
    _write(resources, budget, status, "SufficientPods" if allowed else "InsufficientPods", "")
    return bool(disrupted)


def _write(resources: Resources, budget: Object, status: Object, reason: str, message: str) -> None:
    condition = {
        "type": "DisruptionAllowed",
        "status": "True" if status["disruptionsAllowed"] else "False",
        "reason": reason,
        "message": message,
        "observedGeneration": budget["metadata"]["generation"],
    }
    before = at(budget, "status", "conditions") or []
    conditions = with_condition(before, condition)
    status["conditions"] = before if _alike(before, conditions) else conditions
    if status != budget["status"]:
        resources.set_status(_BUDGET, budget, status, MANAGER.manager)


def _alike(old: list[Object], new: list[Object]) -> bool:
    return [one | {"observedGeneration": 0} for one in old] == [one | {"observedGeneration": 0} for one in new]


def _expected(resources: Resources, budget: Object, pods: list[Object]) -> tuple[int, int]:
    """Return how many pods there should be, and how many of them healthy."""
    most, least = at(budget, "spec", "maxUnavailable"), at(budget, "spec", "minAvailable")
    if most is not None:
        expected = _scale(resources, pods)
        return expected, max(0, expected - scaled(most, expected, up=True))
    if isinstance(least, str):
        expected = _scale(resources, pods)
        return expected, scaled(least, expected, up=True)
    return len(pods), int(least or 0)


def _scale(resources: Resources, pods: list[Object]) -> int:
    """Return how many pods their controllers want, each counted once. getExpectedScale."""
    sizes: dict[str, int] = {}
    for pod in pods:
        reference = controller_of(pod)
        if reference is None:
            continue
        owner = _owner(resources, pod, reference)
        if owner is not None and (above := controller_of(owner)) is not None and above["kind"] == "Deployment":
            owner = _owner(resources, pod, above)
        if owner is None or owner["kind"] not in {"ReplicaSet", "Deployment", "StatefulSet"}:
            raise _UnknownScaleError(f'found no controllers for pod "{name_of(pod)}"')
        sizes[owner["metadata"]["uid"]] = int(owner["spec"]["replicas"])
    return sum(sizes.values())


def _owner(resources: Resources, pod: Object, reference: Object) -> Object | None:
    kind = BY_NAME.get(reference["kind"])
    found = resources.store.get(kind, namespace_of(pod), reference["name"]) if kind is not None else None
    return found if found is not None and found["metadata"]["uid"] == reference["uid"] else None


def _disrupted(budget: Object, pods: list[Object]) -> dict[str, str]:
    """Return those that were let go, and aren't being deleted yet."""
    told = at(budget, "status", "disruptedPods") or {}
    here = {name_of(pod) for pod in pods if not is_terminating(pod)}
    now = datetime.now(UTC)
    return {name: since for name, since in told.items() if name in here and (now - parsed(since)).total_seconds() < _EVICTED_S}
