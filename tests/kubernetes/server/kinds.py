"""Which kinds of objects there are, and in what they differ."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """
    *generation*: whether a change of its spec counts (metadata.generation). *unconditional*: a PUT may leave out the resourceVersion.
    *created_by_put*: a PUT of one that isn't there makes it. *returns_deleted*: DELETE answers with the object, not with a Status.
    *orphans*: its dependents stay when it is deleted, unless the caller says otherwise.

    Source: `strategy.go` of each, such as pkg/registry/coordination/lease/strategy.go (AllowUnconditionalUpdate, AllowCreateOnUpdate) and
    pkg/registry/batch/job/strategy.go (DefaultGarbageCollectionPolicy), in kubernetes/kubernetes.
    """

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    status: bool = False
    scale: bool = False
    generation: bool = False
    unconditional: bool = True
    created_by_put: bool = False
    returns_deleted: bool = False
    orphans: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Return its name as messages have it, such as statefulsets.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


_RBAC = "rbac.authorization.k8s.io"

KINDS = (
    Kind("", "v1", "namespaces", "Namespace", namespaced=False, status=True),
    Kind("", "v1", "nodes", "Node", namespaced=False, status=True),
    Kind("", "v1", "pods", "Pod", status=True, generation=True, returns_deleted=True),
    Kind("", "v1", "services", "Service", status=True, returns_deleted=True),
    Kind("", "v1", "configmaps", "ConfigMap"),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", returns_deleted=True),
    Kind("", "v1", "events", "Event", created_by_put=True),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", status=True, returns_deleted=True),
    Kind("apps", "v1", "statefulsets", "StatefulSet", status=True, scale=True, generation=True),
    Kind("apps", "v1", "deployments", "Deployment", status=True, scale=True, generation=True),
    Kind("apps", "v1", "replicasets", "ReplicaSet", status=True, scale=True, generation=True),
    Kind("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Kind("apps", "v1", "daemonsets", "DaemonSet", status=True, generation=True),
    Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", status=True),
    Kind("batch", "v1", "jobs", "Job", status=True, generation=True, orphans=True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", unconditional=False, created_by_put=True),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", generation=True),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", status=True, generation=True, unconditional=False),
    Kind(_RBAC, "v1", "roles", "Role", created_by_put=True),
    Kind(_RBAC, "v1", "rolebindings", "RoleBinding", created_by_put=True),
    Kind(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False, created_by_put=True),
    Kind(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False, created_by_put=True),
)

BY_PLURAL = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
BY_NAME = {kind.name: kind for kind in KINDS}
