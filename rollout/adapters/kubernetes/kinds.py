"""Kinds of objects, and where the API server has them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """*group* is `apps/v1` and the like, `v1` for the core; *plural* as in paths."""

    group: str
    plural: str
    name: str

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Return the path of one object, of a part of it, or of all in a namespace."""
        root = f"/api/{self.group}" if "/" not in self.group else f"/apis/{self.group}"
        parts = [root, "namespaces", namespace, self.plural, name, subresource]
        return "/".join(part for part in parts if part)


PODS = Kind("v1", "pods", "Pod")
SERVICES = Kind("v1", "services", "Service")
CONFIG_MAPS = Kind("v1", "configmaps", "ConfigMap")
EVENTS = Kind("v1", "events", "Event")
STATEFUL_SETS = Kind("apps/v1", "statefulsets", "StatefulSet")
DEPLOYMENTS = Kind("apps/v1", "deployments", "Deployment")
REPLICA_SETS = Kind("apps/v1", "replicasets", "ReplicaSet")
JOBS = Kind("batch/v1", "jobs", "Job")
LEASES = Kind("coordination.k8s.io/v1", "leases", "Lease")
ENDPOINT_SLICES = Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
