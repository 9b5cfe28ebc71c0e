"""What our account is granted for workloads and pods, and whether it may do that."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import filterfalse
from time import monotonic  # noqa: TID251  (how long the server takes)

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.cluster import Cluster, Object
from rollout.adapters.kubernetes.kinds import Kind
from rollout.adapters.kubernetes.looking import Looking
from rollout.adapters.kubernetes.places import deployment_in
from rollout.model.errors import PermanentDriverError
from rollout.model.listing import listed
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


def not_granted(looking: Looking, grants: Iterable[Grant], timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
    """
    Say of each verb that isn't allowed. Raises DriverError.

    What our rights are is listed first (SelfSubjectRulesReview), in one request, however many the pods are. Not every authorizer lists what
    it allows, and none what it forbids: so what isn't listed is asked for (SelfSubjectAccessReview), and, to be *thorough*, one name of
    each that is.
    """
    end_s = monotonic() + timeout_s
    refused: list[str] = []
    every = tuple(grants)
    rules_in = {namespace: _rules(looking, namespace, timeout_s) for namespace in {grant.namespace for grant in every}}
    for grant in every:
        rules, are_all = rules_in[grant.namespace]
        for verb in grant.verbs:
            may = partial(_may, looking.cluster, grant, verb, end_s)
            known, others = _apart(grant, verb, rules)
            lacking = _lacking(may, others, are_all=are_all)
            if thorough and not all(map(may, known[:1])):
                lacking += filterfalse(may, known)
            if lacking:
                refused.append(f"{looking.cluster.where}: we may not {verb} {grant.resource} {listed(lacking)}".rstrip())
    return tuple(refused)


def _rules(looking: Looking, namespace: str, timeout_s: float) -> tuple[list[Object], bool]:
    try:
        return looking.rules(namespace, timeout_s)
    except PermanentDriverError:
        return [], False


def _lacking(may: Callable[[str], bool], names: list[str], *, are_all: bool) -> list[str]:
    """Ask about names for which nothing is listed, and return those for which it isn't allowed; *are_all*: everything is listed."""
    if len(names) > 1 and may(""):
        return []
    # A role that was made for fewer workers has some of them.
    return names if are_all and len(names) > 1 else list(filterfalse(may, names))


def _apart(grant: Grant, verb: str, rules: Iterable[Object]) -> tuple[list[str], list[str]]:
    """Tell the names for which these rules allow a verb from the others; "" is any name."""
    _, of, subresource = grant.resource.partition("/")
    resources = {grant.resource, "*", *([f"*/{subresource}"] if of else [])}
    wanted = (("verbs", {verb, "*"}), ("apiGroups", {grant.group, "*"}), ("resources", resources))
    fitting = [rule for rule in rules if all(its & {*(rule.get(part) or ())} for part, its in wanted)]
    names = grant.names or ("",)
    if any(not rule.get("resourceNames") for rule in fitting):
        return list(names), []
    allowed = {name for rule in fitting for name in rule["resourceNames"]}
    return [name for name in names if name in allowed], [name for name in names if name not in allowed]


def may_patch(cluster: Cluster, kind: Kind, name: str, timeout_s: float) -> bool:
    """Ask whether we may patch one object. Raises DriverError."""
    group, _, _ = kind.group.rpartition("/")
    asked = {"namespace": cluster.namespace, "verb": "patch", "group": group, "resource": kind.plural, "name": name}
    return cluster.review(asked, timeout_s)


def _may(cluster: Cluster, grant: Grant, verb: str, end_s: float, name: str) -> bool:
    resource, _, subresource = grant.resource.partition("/")
    asked = {"namespace": grant.namespace, "verb": verb, "group": grant.group, "resource": resource}
    named = {"subresource": subresource, "name": name}
    return cluster.review({**asked, **{part: its for part, its in named.items() if its}}, max(ASK_S, end_s - monotonic()))
