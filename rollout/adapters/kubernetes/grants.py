"""Whether we may do in a namespace what drivers have to do there."""

from collections.abc import Iterable
from time import monotonic  # noqa: TID251  (how long the server takes)

from rollout.adapters.kubernetes.cluster import Cluster
from rollout.ports.privileges import Grant


def sets_of(pods: Iterable[str]) -> tuple[str, ...]:
    """Name the StatefulSets whose pods these are, by their names."""
    return tuple(dict.fromkeys(pod.rpartition("-")[0] for pod in pods))


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
            if grant.names:
                # A rule has all of them or none.
                asked["name"] = grant.names[0]
            if not cluster.review(asked, max(0.1, end_s - monotonic())):
                refused.append(f"{cluster.where}: we may not {verb} {grant.resource}{f' {grant.names[0]}' if grant.names else ''}")
    return tuple(refused)
