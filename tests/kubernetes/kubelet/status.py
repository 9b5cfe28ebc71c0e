"""
What a kubelet says of a pod.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase, #pod-conditions and #pod-readiness-status;
pkg/kubelet/status/generate.go (GeneratePodReadyCondition) and kubelet_pods.go (getPhase) in kubernetes/kubernetes.
"""

from collections.abc import Sequence

from tests.kubernetes.kubelet.api import Object
from tests.kubernetes.kubelet.container import Container


def phase(policy: str, containers: Sequence[Container], *, initialized: bool) -> str:
    """Return Pending until all have been started once, and an end only where nobody starts them again."""
    if not initialized or any("waiting" in one.state and not one.last for one in containers):
        return "Pending"
    if not all(one.over for one in containers) or policy == "Always":
        return "Running"
    return ended(containers)


def ended(containers: Sequence[Container]) -> str:
    ends = [one.state.get("terminated") or one.last.get("terminated") or {} for one in containers]
    return "Succeeded" if all(end.get("exitCode") == 0 for end in ends) else "Failed"


def conditions(pod: Object, containers: Sequence[Container], *, initialized: bool, over: str) -> list[Object]:
    """Return the conditions that are the kubelet's own. *over*: the phase that a pod has ended in, or nothing."""
    unready = [one.name for one in containers if not one.ready]
    ready = not unready and initialized and not over
    if over:
        why = {"Succeeded": ("PodCompleted", ""), "Failed": ("PodFailed", "")}[over]
    else:
        why = ("", "") if ready else ("ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    missing = _missing_gates(pod)
    whole = ready and not missing
    reason = ("ReadinessGatesNotReady", ", ".join(missing)) if ready and missing else why
    begun = bool(initialized)
    return [
        _condition("PodReadyToStartContainers", holds=True),
        _condition("Initialized", holds=begun, why=("", "") if begun else ("ContainersNotInitialized", "")),
        _condition("Ready", holds=whole, why=reason),
        _condition("ContainersReady", holds=ready, why=why),
    ]


def _missing_gates(pod: Object) -> list[str]:
    known = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions") or []}
    missing = []
    for gate in pod["spec"].get("readinessGates") or []:
        sort = gate["conditionType"]
        if sort not in known:
            missing.append(f'corresponding condition of pod readiness gate "{sort}" does not exist.')
        elif known[sort] != "True":
            missing.append(f'the status of pod readiness gate "{sort}" is not "True", but {known[sort]}')
    return missing


def _condition(sort: str, *, holds: bool, why: tuple[str, str] = ("", "")) -> Object:
    reason, message = why
    return {"type": sort, "status": "True" if holds else "False", "reason": reason or None, "message": message or None}


def with_times(new: list[Object], old: list[Object], now: str) -> list[Object]:
    """Give conditions their times: that of the last change of their status."""
    before = {one["type"]: one for one in old}
    return [
        one
        | {
            "lastProbeTime": None,
            "lastTransitionTime": before[one["type"]]["lastTransitionTime"]
            if one["type"] in before and before[one["type"]]["status"] == one["status"]
            else now,
        }
        for one in new
    ]
