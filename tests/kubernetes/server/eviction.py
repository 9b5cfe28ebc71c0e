"""
The eviction of a pod, as far as its disruption budget lets it go.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/; pkg/registry/core/pod/storage/eviction.go in
kubernetes/kubernetes.
"""

from tests.kubernetes.server import deleting
from tests.kubernetes.server.deleting import Options
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, copied, is_true, labels_of, name_of, now
from tests.kubernetes.server.refusals import RefusedError, bad_request, forbidden
from tests.kubernetes.server.resources import Resources, Writer
from tests.kubernetes.server.selectors import matches

_POD, _BUDGET = BY_NAME["Pod"], BY_NAME["PodDisruptionBudget"]
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
# What a client shall wait when the controller hasn't seen the budget yet; one that is used up says no time.
_UNSEEN_RETRY_S = 10


def evict(resources: Resources, namespace: str, name: str, said: Object, options: Options) -> None:
    """Delete a pod, or raise: 429 while the budget is used up, 500 where more than one budget has the pod."""
    if at(said, "metadata", "name") != name:
        raise bad_request("name in URL does not match name in Eviction object")
    with resources.store.held():
        pod = resources.get(_POD, namespace, name)
        if not _needs_no_budget(pod):
            _spend(resources, pod, options)
        deleting.delete(resources, _POD, namespace, name, options)


def _needs_no_budget(pod: Object) -> bool:
    return at(pod, "status", "phase") in {"Succeeded", "Failed", "Pending"} or bool(pod["metadata"].get("deletionTimestamp"))


def _spend(resources: Resources, pod: Object, options: Options) -> None:
    budgets = [
        one for one in resources.store.all(_BUDGET, pod["metadata"]["namespace"]) if matches(at(one, "spec", "selector"), labels_of(pod))
    ]
    if not budgets:
        return
    if len(budgets) > 1:
        why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise RefusedError(500, "", why)
    budget = budgets[0]
    status = budget["status"]
    if not is_true(pod, "Ready"):
        # One that serves nobody may go if the others are enough, or always: https://kubernetes.io/docs/tasks/run-application/configure-pdb/
        if at(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return
        if status["currentHealthy"] >= status["desiredHealthy"] > 0:
            return
    _check(budget)
    if options.dry_run:
        return
    new = copied(status)
    new["disruptionsAllowed"] -= 1
    new["disruptedPods"] = (new.get("disruptedPods") or {}) | {name_of(pod): now()}
    resources.change(_BUDGET, budget, lambda obj: obj.update(status=new), Writer("kube-apiserver", subresource="status"))


def _check(budget: Object) -> None:
    status, name = budget["status"], name_of(budget)
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        raise _too_many(f"The disruption budget {name} is still being processed by the server.", _UNSEEN_RETRY_S)
    if status["disruptionsAllowed"] < 0:
        raise forbidden(_BUDGET, name, "pdb disruptions allowed is negative")
    if status["disruptionsAllowed"] == 0:
        needs = f"needs {status['desiredHealthy']} healthy pods and has {status['currentHealthy']} currently"
        raise _too_many(f"The disruption budget {name} {needs}", 0)


def _too_many(why: str, retry_s: int) -> RefusedError:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    if retry_s:
        details["retryAfterSeconds"] = retry_s
    return RefusedError(429, "TooManyRequests", _REFUSED, details)
