"""
What the server fills in, so that what is read is not what was written.

Source: SetDefaults_* and SetObjectDefaults_* in pkg/apis/{core,apps,batch,discovery}/v1 of kubernetes/kubernetes, and PrepareForCreate
of the strategies.
"""

import base64
import secrets

from tests.kubernetes.server.objects import Object, at, name_of

_TEMPLATED = {"StatefulSet", "Deployment", "ReplicaSet", "Job", "DaemonSet"}
# Not there before the object is: the API server's own admission sets them for pods, not in templates.
_TOLERATIONS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def fill(obj: Object) -> None:
    """Fill in the defaults of an object, in place."""
    kind = obj["kind"]
    if kind in _TEMPLATED:
        spec = obj.setdefault("spec", {})
        template = spec.setdefault("template", {})
        template.setdefault("metadata", {})
        _pod_spec(template.setdefault("spec", {}))
        _WORKLOADS[kind](spec)
    elif kind in _OTHERS:
        _OTHERS[kind](obj)


def _slice(obj: Object) -> None:
    for port in obj.get("ports") or []:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _namespace(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", name_of(obj))
    obj.setdefault("status", {}).setdefault("phase", "Active")


def _binding(obj: Object) -> None:
    for subject in obj.get("subjects") or []:
        if subject["kind"] != "ServiceAccount":
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    for key, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def _pod(pod: Object) -> None:
    spec, status = pod.setdefault("spec", {}), pod.setdefault("status", {})
    _pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    tolerated = {one.get("key") for one in spec.get("tolerations") or []}
    more = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300} for key in _TOLERATIONS if key not in tolerated
    ]
    if more:
        spec["tolerations"] = [*(spec.get("tolerations") or []), *more]
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", _quality(spec))


def _quality(spec: Object) -> str:
    """Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/."""
    given = [one.get("resources") or {} for one in spec["containers"]]
    if not any(one.get("requests") or one.get("limits") for one in given):
        return "BestEffort"
    whole = all({"cpu", "memory"} <= set(one.get("limits") or {}) and one.get("requests", one["limits"]) == one["limits"] for one in given)
    return "Guaranteed" if whole else "Burstable"


def _pod_spec(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for key in ("containers", "initContainers"):
        for container in spec.get(key) or []:
            _container(container)
    for volume in spec.get("volumes") or []:
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if source in volume:
                volume[source].setdefault("defaultMode", 0o644)
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}


def _container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
    container.setdefault("imagePullPolicy", "Always" if tag in {"", "latest"} else "IfNotPresent")
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        if container.get(probe):
            _probe(container[probe])
    for one in container.get("env") or []:
        if reference := at(one, "valueFrom", "fieldRef"):
            reference.setdefault("apiVersion", "v1")


def _probe(probe: Object) -> None:
    for key, value in {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}.items():
        probe[key] = probe.get(key) or value
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _stateful_set(spec: Object) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    spec.setdefault("serviceName", "")
    if not spec["serviceName"]:
        del spec["serviceName"]
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        rolling.setdefault("partition", 0)
        strategy["rollingUpdate"] = rolling


def _deployment(spec: Object) -> None:
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
        strategy["rollingUpdate"] = rolling


def _replica_set(spec: Object) -> None:
    spec.setdefault("replicas", 1)


def _daemon_set(spec: Object) -> None:
    spec.setdefault("revisionHistoryLimit", 10)


def _job(spec: Object) -> None:
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    for key, value in {"parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": False}.items():
        spec.setdefault(key, value)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)
    if not spec["manualSelector"]:
        del spec["manualSelector"]


_WORKLOADS = {
    "StatefulSet": _stateful_set,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
}


def own_selector(job: Object) -> None:
    """
    Give a new Job the selector that is its own, and its pods the labels for it.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-selector.
    """
    if job["spec"].get("manualSelector"):
        return
    uid, name = job["metadata"]["uid"], name_of(job)
    metadata = job["spec"]["template"].setdefault("metadata", {})
    mine = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name, "controller-uid": uid, "job-name": name}
    metadata["labels"] = (metadata.get("labels") or {}) | mine
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    if spec["type"] == "ExternalName":
        return
    # An address of a range that nothing routes: nobody here is a proxy of nodes.
    spec.setdefault("clusterIP", f"10.96.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}")
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")


_OTHERS = {
    "Pod": _pod,
    "Service": _service,
    "Secret": _secret,
    "EndpointSlice": _slice,
    "Namespace": _namespace,
    "RoleBinding": _binding,
}


_STARTING: dict[str, Object] = {
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "Deployment": {},
    "ReplicaSet": {"replicas": 0},
    "Job": {},
    "PodDisruptionBudget": {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    "Service": {"loadBalancer": {}},
    "DaemonSet": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0},
    "PersistentVolumeClaim": {"phase": "Pending"},
}


def starting_status(kind: str) -> Object | None:
    """Return what a new object's status is before anybody has written to it; fields without omitempty are there."""
    return dict(_STARTING[kind]) if kind in _STARTING else None
