"""
What effects do to objects of a cluster, as data. Each act carries what it was written for (a uid, a fingerprint), so that one which
comes after somebody else has acted is refused by the API server, or by us before we send it.

```
{"do": "tell",    "set": …, "at": …, "release": …, "at_s": …, "images": {container: image}, "mark": …, "expect": FINGERPRINT}
{"do": "replace", "set": …, "pod": …, "uid": …, "container": …, "others": [workloads that are ours already]}
{"do": "scale",   "set": …, "replicas": 0 | 1, …}                  a workload of one pod
{"do": "admit",   "pod": …, "uid": …, "admitted": "true" | "false"}
```

*set* is a workload by its key, *at* the place of a worker in it (places.py), *pod* the name of the pod that was there.
"""

from collections.abc import Callable, Mapping
from time import monotonic  # noqa: TID251  (it is the cluster that is waited for)
from typing import Any

from rollout.adapters.kubernetes.awaiting import await_another, await_none, labelled, left, pods_of_deployment, read_workload
from rollout.adapters.kubernetes.cluster import APPLY, MERGE, Cluster, ConflictError, Object
from rollout.adapters.kubernetes.evicting import evict
from rollout.adapters.kubernetes.kinds import PODS
from rollout.adapters.kubernetes.objects import (
    ADMITTED,
    OUT,
    RELEASE,
    TOLD,
    is_going,
    label,
    name_of,
    since_of,
    uid_of,
    version_of,
)
from rollout.adapters.kubernetes.places import deployment_in, is_deployment, kind_of
from rollout.adapters.kubernetes.returning import give_back, give_back_others
from rollout.adapters.kubernetes.told import Told, fingerprint, is_held, is_taken_over, taking_over, told_in, told_text
from rollout.model.errors import DriverError, TransientDriverError
from rollout.ports.acts import Act, Acts

KIND = "kubernetes"
# Acts name it as their host: no agent of a host's is asked to do them.
HOST = "the cluster"
# A status that moves under our hands is read again; more often than this it is somebody who writes without end.
TRIES_MAX = 20


def act(do: str, timeout_s: float, **more: object) -> Act:
    """Write an act down."""
    return {"kind": KIND, "host": HOST, "do": do, "timeout_s": timeout_s, **more}


def are_ours(acts: Acts | None) -> bool:
    """Tell whether all of it is done by this module."""
    return acts is not None and all(one.get("kind") == KIND for one in acts)


def run(cluster: Cluster, acts: Acts) -> None:
    """Do one after the other. Raises DriverError."""
    for one in acts:
        _PRIMITIVES[one["do"]](cluster, one)


def tell(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    Take the workload over, and make its template that of a release. Nothing is replaced by that.

    TransientDriverError when it isn't as it was when this was written down, but for its status.
    """
    end_s = monotonic() + one["timeout_s"]
    kind, found = kind_of(one["set"]), read_workload(cluster, one["set"], end_s)
    for _ in range(TRIES_MAX):
        if fingerprint(found) != one["expect"]:
            raise _meanwhile(one["worker"])
        try:
            if not is_held(found):
                found = cluster.patch(kind, name_of(found), _if_unchanged(taking_over(found), found), MERGE, left(end_s))
                one = {**one, "expect": fingerprint(found)}
            cluster.patch(kind, name_of(found), applied(found, one), APPLY, left(end_s))
        except ConflictError:
            found = read_workload(cluster, one["set"], end_s)
        else:
            return
    raise _too_fast(one["set"])


def applied(found: Object, one: Mapping[str, Any]) -> Object:
    """Return all that is ours of a workload, for server-side apply; what isn't in it and was ours is removed."""
    told = {**told_in(found), one["at"]: Told(one["release"], one["at_s"], one["uid"])}
    template: Object = {"spec": {"containers": [{"name": name, "image": image} for name, image in sorted(one["images"].items())]}}
    if one["mark"] is not None:
        template["metadata"] = {"annotations": {RELEASE: one["mark"]}}
    return {
        "metadata": {"name": name_of(found), "resourceVersion": version_of(found), "annotations": {TOLD: told_text(told)}},
        "spec": {"template": template},
    }


def replace(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    End a pod, and return once another one runs in its place.

    TransientDriverError with the budget's own words when it isn't allowed in time; PermanentDriverError, with the new pod's last lines and
    events, when that ends at once or has no image; OutcomeUnknownError when it doesn't run in time.
    """
    end_s = monotonic() + one["timeout_s"]
    if deployment_in(one["set"]) is None:
        evict(cluster, one, end_s)
    else:
        _recreate(cluster, one, end_s)
    await_another(cluster, one, end_s)
    give_back(cluster, one["set"])
    give_back_others(cluster, one.get("others", ()))


def _recreate(cluster: Cluster, one: Mapping[str, Any], end_s: float) -> None:
    """
    Have a Deployment's controller end its pod, and make the next one when that has gone.

    A pod that is evicted isn't waited for: its ReplicaSet makes another one while it ends, and two would be one worker. So the budget is
    asked, and it is the strategy Recreate that waits. One that was made from the template as it is has nothing to be recreated for, and is
    scaled away and back.
    """
    for _ in range(TRIES_MAX):
        found = read_workload(cluster, one["set"], end_s)
        if not found["spec"].get("replicas", 1):
            # Somebody has died between the two halves of what follows.
            _scale(cluster, {**one, "replicas": 1}, end_s)
            return
        pods = [(pod, fresh) for pod, fresh in pods_of_deployment(cluster, found, left(end_s)) if not is_going(pod)]
        mine = [fresh for pod, fresh in pods if uid_of(pod) == one["uid"]]
        if mine == [True]:
            _scale(cluster, {**one, "replicas": 0}, end_s)
            _scale(cluster, {**one, "replicas": 1}, end_s)
            return
        if mine:
            evict(cluster, one, end_s, dry_run=True)
        elif not all(fresh for _, fresh in pods):
            raise _meanwhile(one["worker"])
        elif pods and not found["spec"].get("paused"):
            return
        body = {"metadata": {}, "spec": {}} if is_taken_over(found) else taking_over(found)
        body["spec"] = {**body["spec"], "paused": None}
        try:
            cluster.patch(kind_of(one["set"]), name_of(found), _if_unchanged(body, found), MERGE, left(end_s))
        except ConflictError:
            continue
        return
    raise _too_fast(one["set"])


def scale(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    Give a workload of one pod no pod, or its one pod again, and wait for that.

    A budget is asked first, by an eviction that is only tried (`dryRun`): scaling asks nobody.
    """
    _scale(cluster, one, monotonic() + one["timeout_s"])


def _scale(cluster: Cluster, one: Mapping[str, Any], end_s: float) -> None:
    if one["replicas"] == 0 and one["uid"]:
        evict(cluster, one, end_s, dry_run=True)
    for _ in range(TRIES_MAX):
        found = read_workload(cluster, one["set"], end_s)
        if found["spec"].get("replicas", 1) == one["replicas"]:
            break
        spec: Object = {"replicas": one["replicas"]}
        if one["replicas"] and is_deployment(found) and is_taken_over(found):
            # A paused one that is scaled up makes its pod from an earlier template, if of this one there has been none.
            spec["paused"] = None
        body = {"metadata": {"resourceVersion": version_of(found)}, "spec": spec}
        try:
            cluster.patch(kind_of(one["set"]), name_of(found), body, MERGE, left(end_s))
            break
        except ConflictError:
            continue
    if one["replicas"]:
        await_another(cluster, {**one, "uid": ""}, end_s)
    else:
        await_none(cluster, one, end_s)


def admit(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    Let a pod's Service choose it, or not.

    TransientDriverError when the pod is another one than this was written for: that one has nothing of it.
    """
    end_s = monotonic() + one["timeout_s"]
    for _ in range(TRIES_MAX):
        pod = cluster.get(PODS, one["pod"], left(end_s))
        if pod is None or uid_of(pod) != one["uid"] or label(pod, ADMITTED) not in {one["was"], one["admitted"]}:
            raise _meanwhile(one["worker"])
        if label(pod, ADMITTED) == one["admitted"] and (one["admitted"] != OUT or since_of(pod) is not None):
            return
        body = labelled(pod, one["admitted"], cluster.now_s())
        try:
            cluster.patch(PODS, one["pod"], body, MERGE, left(end_s))
        except ConflictError:
            continue
        return
    raise _too_fast(one["worker"])


def _if_unchanged(body: Object, found: Object) -> Object:
    return {**body, "metadata": {**body["metadata"], "resourceVersion": version_of(found)}}


def _too_fast(where: str) -> DriverError:
    return TransientDriverError("it changes faster than it can be patched", where=where)


def _meanwhile(where: str) -> TransientDriverError:
    # Whoever still may will look again and be asked for the number again; whoever has been taken over from is refused then.
    why = "what was seen of it before its number was compared with the ledger is not so any more"
    return TransientDriverError("somebody has changed it meanwhile", where=where, why=why)


_PRIMITIVES: Mapping[str, Callable[[Cluster, Mapping[str, Any]], None]] = {
    "tell": tell,
    "replace": replace,
    "scale": scale,
    "admit": admit,
}
