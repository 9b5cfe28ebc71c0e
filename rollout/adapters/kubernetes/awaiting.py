"""Waiting for another pod of a worker, and for the end of the last one."""

from collections.abc import Mapping
from time import monotonic, sleep  # noqa: TID251  (it is the cluster that is waited for)
from typing import Any

from rollout.adapters.kubernetes import ailing
from rollout.adapters.kubernetes.cluster import MERGE, PATIENCE_S, Cluster, ConflictError, Object
from rollout.adapters.kubernetes.kinds import DEPLOYMENTS, PODS, REPLICA_SETS
from rollout.adapters.kubernetes.objects import (
    ADMITTED,
    OUT,
    SINCE,
    is_going,
    label,
    name_of,
    state_of,
    statuses_of,
    uid_of,
    version_of,
)
from rollout.adapters.kubernetes.places import called, deployment_in, is_over, kind_of, made_from, owner_uid_of, the_one
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError

POLL_S = 0.2
# A container that ends at once is seen to run for a moment; the node tells of its end a little later.
SETTLED_S = 2.0
# One request among several of an act that is done in any case.
REQUEST_S = 10.0


def left(end_s: float) -> float:
    """Return how long a request may take that has to be answered by *end_s*."""
    return max(0.1, min(PATIENCE_S, end_s - monotonic()))


def read_workload(cluster: Cluster, key: str, end_s: float) -> Object:
    """Return a workload by its key (places.key_of). PermanentDriverError if there is none."""
    name = deployment_in(key) or key
    found = cluster.get(kind_of(key), name, left(end_s))
    if found is None:
        raise PermanentDriverError(f"there is no {kind_of(key).name} {name}", where=cluster.where)
    return found


def pods_of_deployment(cluster: Cluster, deployment: Object, timeout_s: float) -> list[tuple[Object, bool]]:
    """Return the pods that a Deployment has, those on their way out too, each with whether it was made from the template as it is now."""
    labels = selector_of(deployment)
    sets = cluster.all_of(REPLICA_SETS, timeout_s, labels=labels)
    mine = {uid_of(one): made_from(deployment, one) for one in sets if owner_uid_of(one) == uid_of(deployment)}
    pods = cluster.all_of(PODS, timeout_s, labels=labels)
    return [(pod, mine[owner_uid_of(pod)]) for pod in pods if owner_uid_of(pod) in mine and not is_over(pod)]


def selector_of(workload: Object) -> str:
    wanted = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(wanted.items()))


def is_running(pod: Object, container: str) -> bool:
    """Tell whether a pod's container runs, and the pod isn't on its way out."""
    return not is_going(pod) and state_of(statuses_of(pod).get(container), "running") is not None


def labelled(pod: Object, value: str, at_s: float) -> Object:
    """Return the merge patch that lets a pod's Service choose it, or not, if it is still as it was read."""
    metadata = {"resourceVersion": version_of(pod), "uid": uid_of(pod), "labels": {ADMITTED: value}, "annotations": {SINCE: f"{at_s:.3f}"}}
    return {"metadata": metadata}


def await_another(cluster: Cluster, one: Mapping[str, Any], end_s: float) -> None:
    """Wait until a pod with another uid runs. An API server that is away meanwhile is waited for, too."""
    container, worker = one["container"], one["worker"]
    last = "nothing was seen of it"
    pod: Object | None = None
    runs_since_s: float | None = None
    while monotonic() < end_s:
        try:
            pod, is_next = _pod_now(cluster, one, min(REQUEST_S, left(end_s)))
            if pod is None:
                last = "it is gone, and no other one has been made"
            elif not is_next:
                last = "it is ending"
            else:
                pod = _held_back(cluster, pod, one)
                runs_since_s = (runs_since_s or monotonic()) if is_running(pod, container) else None
                if runs_since_s is not None and monotonic() - runs_since_s >= SETTLED_S:
                    return
                ailment = ailing.ailment_of(pod)
                last = ailment.what if ailment is not None else "it is starting"
                _refuse_to_wait(cluster, pod, ailment, one)
        except TransientDriverError as error:
            last = f"{error.what}: {error.why}"
        sleep(POLL_S)
    why = "" if pod is None else ailing.quotes(cluster, pod, None, container)
    raise OutcomeUnknownError(f"after {one['timeout_s']:.0f} s no new pod runs: {last}", where=worker, why=why)


def await_none(cluster: Cluster, one: Mapping[str, Any], end_s: float) -> None:
    """Wait until a worker has no pod, not even one that is ending. An API server that is away meanwhile is waited for, too."""
    why = ""
    while monotonic() < end_s:
        try:
            if _pod_now(cluster, one, min(REQUEST_S, left(end_s)))[0] is None:
                return
        except TransientDriverError as error:
            why = f"{error.what}: {error.why}"
        sleep(POLL_S)
    raise OutcomeUnknownError("it was told to end and is still there", where=one["worker"], why=why)


def _pod_now(cluster: Cluster, one: Mapping[str, Any], timeout_s: float) -> tuple[Object | None, bool]:
    """Return a worker's pod, and whether it is the one that is waited for: another one, and of a Deployment one of its template."""
    if deployment_in(one["set"]) is None:
        pod = cluster.get(PODS, one["pod"], timeout_s)
        return pod, pod is not None and uid_of(pod) != one["uid"] and not is_going(pod)
    deployment = cluster.get(DEPLOYMENTS, deployment_in(one["set"]) or "", timeout_s)
    if deployment is None:
        raise PermanentDriverError("somebody has deleted it meanwhile", where=one["set"])
    every = pods_of_deployment(cluster, deployment, timeout_s)
    if len([pod for pod, _ in every if not is_going(pod)]) > 1:
        raise TransientDriverError(f"{called(deployment)} has several pods at once", where=one["worker"], why="somebody else rolls it")
    made = {uid_of(pod): fresh for pod, fresh in every}
    pod = the_one([pod for pod, _ in every])
    return pod, pod is not None and uid_of(pod) != one["uid"] and not is_going(pod) and made[uid_of(pod)] and len(every) == 1


def _refuse_to_wait(cluster: Cluster, pod: Object, ailment: ailing.Ailment | None, one: Mapping[str, Any]) -> None:
    """Raise PermanentDriverError, with what the pod said last and what was said of it, where waiting doesn't help."""
    if ailment is not None and ailment.final:
        why = ailing.quotes(cluster, pod, ailment, one["container"])
        raise PermanentDriverError(f"the new pod doesn't run: {ailment.what}", where=one["worker"], why=why)


def _held_back(cluster: Cluster, pod: Object, one: Mapping[str, Any]) -> Object:
    """Keep out of traffic what was out before: a new pod has its template's label, which lets it in."""
    if one.get("admitted") != OUT or label(pod, ADMITTED) in {None, OUT}:
        return pod
    try:
        return cluster.patch(PODS, name_of(pod), labelled(pod, OUT, cluster.now_s()), MERGE, REQUEST_S)
    except ConflictError:
        return pod
