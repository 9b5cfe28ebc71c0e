"""What our account is granted for workloads and pods, and whether it may do that."""

from collections.abc import Iterable, Sequence
from time import monotonic  # noqa: TID251  (how long the server takes)

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.cluster import Cluster
from rollout.adapters.kubernetes.places import deployment_in
from rollout.ports.privileges import Grant

# However many are asked before it, an answer that is about to come is waited for.
ASK_S = 1.0


def workload_grants(settings: ClusterSettings, workers: Sequence[str]) -> tuple[Grant, ...]:
    """List the workloads that these workers belong to, and change them."""
    here, pods, deployments = settings.namespace, *_places(settings, workers)
    sets = tuple(dict.fromkeys(pod.rpartition("-")[0] for pod in pods))
    found: list[Grant] = []
    if sets or not workers:
        found += [Grant(here, "apps", "statefulsets", ("list",)), Grant(here, "apps", "statefulsets", ("get", "patch"), sets)]
    if deployments:
        found += [Grant(here, "apps", "deployments", ("list",)), Grant(here, "apps", "deployments", ("get", "patch"), deployments)]
    return (*found, *owner_grants(settings))


def owner_grants(settings: ClusterSettings) -> tuple[Grant, ...]:
    """Find out whose pods are: those of a Deployment belong to a ReplicaSet of its."""
    return (Grant(settings.namespace, "apps", "replicasets", ("list",)),) if settings.deployments else ()


def pod_grants(
    settings: ClusterSettings, workers: Sequence[str], resource: str, verbs: tuple[str, ...], *, of_deployments: bool = True
) -> tuple[Grant, ...]:
    """Do something with the pods of these workers. A Deployment's have names that nobody knows beforehand, so there it is any pod."""
    pods, deployments = _places(settings, workers)
    if deployments and of_deployments:
        return (Grant(settings.namespace, "", resource, verbs),)
    return (Grant(settings.namespace, "", resource, verbs, pods),) if pods or not workers else ()


def _places(settings: ClusterSettings, workers: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of pods, and of the Deployments of the others."""
    places = tuple(map(settings.pod_of, workers))
    pods = tuple(place for place in places if deployment_in(place) is None)
    return pods, tuple(name for place in places if (name := deployment_in(place)) is not None)


def not_granted(cluster: Cluster, grants: Iterable[Grant], timeout_s: float) -> tuple[str, ...]:
    """Ask the API server about each verb (SelfSubjectAccessReview), and say of each that isn't allowed. Raises DriverError."""
    end_s = monotonic() + timeout_s
    refused: list[str] = []
    for grant in grants:
        resource, _, subresource = grant.resource.partition("/")
        for verb in grant.verbs:
            asked = {"namespace": grant.namespace, "verb": verb, "group": grant.group, "resource": resource}
            if subresource:
                asked["subresource"] = subresource
            # Of every name: a role that was made for fewer workers has some of them.
            every = [{**asked, "name": name} for name in grant.names] or [asked]
            lacking = [one.get("name", "") for one in every if not cluster.review(one, max(ASK_S, end_s - monotonic()))]
            if lacking:
                refused.append(f"{cluster.where}: we may not {verb} {grant.resource} {', '.join(lacking)}".rstrip())
    return tuple(refused)
