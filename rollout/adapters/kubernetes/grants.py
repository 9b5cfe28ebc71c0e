"""Whether we may do in a namespace what drivers have to do there."""

from collections.abc import Iterable
from time import monotonic  # noqa: TID251  (how long the server takes)

from rollout.adapters.kubernetes.cluster import Cluster
from rollout.ports.privileges import Grant

# However many are asked before it, an answer that is about to come is waited for.
ASK_S = 1.0


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
            # Of every name: a role that was made for fewer workers has some of them.
            every = [{**asked, "name": name} for name in grant.names] or [asked]
            lacking = [one.get("name", "") for one in every if not cluster.review(one, max(ASK_S, end_s - monotonic()))]
            if lacking:
                refused.append(f"{cluster.where}: we may not {verb} {grant.resource} {', '.join(lacking)}".rstrip())
    return tuple(refused)
