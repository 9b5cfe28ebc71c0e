"""Whether we may do in a namespace what drivers have to do there."""

from collections.abc import Iterable
from time import monotonic  # noqa: TID251  (how long the server takes)

from rollout.adapters.kubernetes.cluster import Cluster
from rollout.ports.privileges import Grant


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
            if not cluster.review(asked, max(0.1, end_s - monotonic())):
                refused.append(f"{cluster.where}: we may not {verb} {grant.resource}")
    return tuple(refused)
