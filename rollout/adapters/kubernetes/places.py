"""
Where workers are: a pod of a StatefulSet is called by its own name, the one pod of a Deployment `deployment/NAME`, as kubectl calls it.

Pods of a Deployment have names that nobody knows beforehand. Whose one is says the chain of its owners: Pod, ReplicaSet, Deployment. What
it was made from is its ReplicaSet's template, which is the Deployment's of then but for the label by which the controller tells them apart.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label;
FindNewReplicaSet and EqualIgnoreHash of pkg/controller/deployment/util/deployment_util.go in kubernetes/kubernetes.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from rollout.adapters.kubernetes.cluster import Cluster, Object
from rollout.adapters.kubernetes.kinds import DEPLOYMENTS, PODS, REPLICA_SETS, STATEFUL_SETS, Kind
from rollout.adapters.kubernetes.objects import ADMITTED, is_going, name_of, pods_of, uid_of
from rollout.model.errors import PermanentDriverError

PREFIX = "deployment/"
TEMPLATE_HASH = "pod-template-hash"
# A pod that has ended stays until somebody removes it, and another one was made instead.
_ENDED = frozenset({"Succeeded", "Failed"})

# One list of a kind, as somebody sees it.
ListOf = Callable[[Kind], list[Object]]


def deployment_in(place: str) -> str | None:
    """Return the Deployment that a place is the one pod of; None for a pod's own name."""
    return place.removeprefix(PREFIX) if place.startswith(PREFIX) else None


def kind_of(key: str) -> Kind:
    """Return what kind of workload a key (key_of) is of."""
    return STATEFUL_SETS if deployment_in(key) is None else DEPLOYMENTS


def is_deployment(workload: Object) -> bool:
    return workload.get("kind") == DEPLOYMENTS.name


def key_of(workload: Object) -> str:
    """Name a workload among all of a homeserver: a StatefulSet by its name, a Deployment as the place of its pod."""
    return f"{PREFIX}{name_of(workload)}" if is_deployment(workload) else name_of(workload)


def called(workload: Object) -> str:
    """Return how a workload is called in sentences."""
    return f"{'Deployment' if is_deployment(workload) else 'StatefulSet'} {name_of(workload)}"


def workloads(list_of: ListOf, deployments: Collection[str], *, sets: bool) -> list[Object]:
    """
    List the StatefulSets, if there are to be any, and those Deployments that are named.

    Raises PermanentDriverError for a Deployment that can't be a worker.
    """
    found = list_of(STATEFUL_SETS) if sets else []
    if deployments:
        found = [*found, *(one for one in list_of(DEPLOYMENTS) if name_of(one) in deployments)]
    for one in found:
        if is_deployment(one):
            _refuse_others(one)
    return found


def homes(every: Iterable[Object]) -> dict[str, Object]:
    """Say whose each place is."""
    found: dict[str, Object] = {}
    for one in every:
        if is_deployment(one):
            found[key_of(one)] = one
            continue
        # One that is scaled to nothing is a worker that doesn't run.
        whole = one if one["spec"].get("replicas", 1) else {**one, "spec": {**one["spec"], "replicas": 1}}
        found |= dict.fromkeys(pods_of(whole), one)
    return found


def pods_at(list_of: ListOf, deployments: Collection[str]) -> dict[str, Object]:
    """Return the pod at each place. Those of the named Deployments are found by their owners, all others are where their name says."""
    pods = list_of(PODS)
    if not deployments:
        return {name_of(pod): pod for pod in pods}
    sets = list_of(REPLICA_SETS)
    of_sets = {uid_of(one): name for one in sets if (name := owner_of(one, DEPLOYMENTS.name)) in deployments}
    found: dict[str, Object] = {}
    several: dict[str, list[Object]] = {}
    for pod in pods:
        name = of_sets.get(owner_uid_of(pod))
        if name is None:
            found[name_of(pod)] = pod
        else:
            several.setdefault(f"{PREFIX}{name}", []).append(pod)
    return {**found, **{place: one for place, every in several.items() if (one := the_one(every)) is not None}}


def pod_at(cluster: Cluster, place: str, selector: str, timeout_s: float) -> Object | None:
    """Return the pod at one place, as it is at this moment."""
    name = deployment_in(place)
    if name is None:
        return cluster.get(PODS, place, timeout_s)
    return pods_at(lambda kind: cluster.all_of(kind, timeout_s, labels=selector), {name}).get(place)


def owner_of(thing: Object, kind: str) -> str | None:
    """Return the name of the controller of a thing, if it is of that kind."""
    owner = _owner(thing)
    return str(owner["name"]) if owner is not None and owner.get("kind") == kind else None


def owner_uid_of(thing: Object) -> str:
    owner = _owner(thing)
    return "" if owner is None else str(owner.get("uid", ""))


def _owner(thing: Object) -> Object | None:
    every = thing["metadata"].get("ownerReferences") or []
    return next((one for one in every if one.get("controller")), None)


def is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in _ENDED


def the_one(pods: Sequence[Object]) -> Object | None:
    """Return the pod that a worker is now, of those that it is, was and will be: who stays before who goes, the younger first."""
    alive = [pod for pod in pods if not is_over(pod)] or list(pods)
    return max(alive, key=lambda pod: (not is_going(pod), str(pod["metadata"].get("creationTimestamp"))), default=None)


def made_from(workload: Object, replica_set: Object) -> bool:
    """Tell whether a ReplicaSet has the template that its Deployment has now."""
    return bool(template_of(replica_set) == workload["spec"]["template"])


def template_of(replica_set: Object) -> Object:
    """Return the Deployment's template that a ReplicaSet was made of."""
    template: Object = replica_set["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != TEMPLATE_HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}


def chosen_by_admission(selector: Object | None) -> bool:
    """Tell whether a selector goes by our label: a pod that is drained would be nobody's then, and another one made at once."""
    every = selector or {}
    return ADMITTED in (every.get("matchLabels") or {}) or any(one.get("key") == ADMITTED for one in every.get("matchExpressions") or [])


def nobody_at(place: str, where: str, worker: str, selector: str) -> PermanentDriverError:
    """Say that a worker has no workload."""
    name = deployment_in(place)
    what = f"no StatefulSet in {where} has a pod {place}" if name is None else f"there is no Deployment {name} in {where}"
    why = f"only those with the labels {selector} are looked at" if selector else ""
    remedy = f"`pods` in the workers_driver says which pod a worker is, if its name is another ({PREFIX}NAME: the one of a Deployment)"
    return PermanentDriverError(what, where=worker, why=why, remedy=remedy)


def _refuse_others(deployment: Object) -> None:
    many = int(deployment["spec"].get("replicas", 1))
    if many > 1:
        what = f"{called(deployment)} has {many} replicas, whose pods can't be told apart"
        why = "each worker has a name of its own, so each needs a Deployment of one replica, or all of them one StatefulSet"
        remedy = f"kubectl scale {key_of(deployment)} --replicas=1, and a Deployment for each of the others"
        raise PermanentDriverError(what, where=key_of(deployment), why=why, remedy=remedy)
    if chosen_by_admission(deployment["spec"].get("selector")):
        raise selector_refused(called(deployment), key_of(deployment))


def selector_refused(what: str, where: str) -> PermanentDriverError:
    why = f"a drain changes {ADMITTED}; the pod would be nobody's then, and a second one made beside it"
    remedy = "make it anew without (selectors can't be changed); it belongs to the template's labels and the Service's selector"
    return PermanentDriverError(f"{what} chooses its pods by {ADMITTED}", where=where, why=why, remedy=remedy)
