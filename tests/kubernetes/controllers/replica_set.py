"""
ReplicaSets.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/; pkg/controller/replicaset/replica_set.go and
pkg/controller/controller_utils.go (ActivePodsWithRanks: which pods go first) in kubernetes/kubernetes.
"""

from tests.kubernetes.controllers.common import (
    MANAGER,
    POD,
    active_pods,
    available_in_s,
    delete,
    from_template,
    is_ready,
    is_terminating,
    make,
    record,
    soonest,
)
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, name_of
from tests.kubernetes.server.resources import Resources

SET = BY_NAME["ReplicaSet"]
_COMPONENT = "replicaset-controller"
_COST = "controller.kubernetes.io/pod-deletion-cost"


def replica_sets(resources: Resources) -> float | None:
    return soonest([_sync(resources, one) for one in resources.store.all(SET)])


def _sync(resources: Resources, replica_set: Object) -> float | None:
    # One that is being deleted is replaced at once: it isn't active.
    pods = active_pods(resources, replica_set)
    wanted = int(replica_set["spec"]["replicas"])
    if not is_terminating(replica_set):
        for _ in range(wanted - len(pods)):
            if not make(resources, replica_set, from_template(replica_set, replica_set["spec"]["template"]), POD, _COMPONENT):
                break
        for pod in sorted(pods, key=_rank)[: max(0, len(pods) - wanted)]:
            delete(resources, pod)
            record(resources, replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}", _COMPONENT)
    minimum = replica_set["spec"].get("minReadySeconds") or 0
    pods = active_pods(resources, replica_set)
    due = [available_in_s(pod, minimum) for pod in pods]
    count = {
        "fullyLabeledReplicas": len(pods),
        "readyReplicas": sum(is_ready(pod) for pod in pods),
        "availableReplicas": sum(one == 0 for one in due),
    }
    status = {
        "replicas": len(pods),
        **{key: value for key, value in count.items() if value},
        "observedGeneration": replica_set["metadata"]["generation"],
    }
    if status != replica_set["status"]:
        resources.set_status(SET, replica_set, status, MANAGER.manager)
    return soonest([one or None for one in due])


def _rank(pod: Object) -> tuple[bool, int, bool, int, str]:
    """Order pods by who goes first: not bound, pending, not ready, cheap, young."""
    phase = {"Pending": 0, "Unknown": 1}.get(at(pod, "status", "phase"), 2)
    cost = int((pod["metadata"].get("annotations") or {}).get(_COST, 0))
    young = "".join(chr(0x10FFFF - ord(letter)) for letter in pod["metadata"]["creationTimestamp"])
    return bool(pod["spec"].get("nodeName")), phase, is_ready(pod), cost, young
