"""
What effects do to objects of a cluster, as data. Each act carries what it was written for (a uid, a fingerprint), so that one which
comes after somebody else has acted is refused by the API server, or by us before we send it.

```
{"do": "tell",    "set": …, "pod": …, "release": …, "at_s": …, "images": {container: image}, "mark": …, "expect": FINGERPRINT}
{"do": "replace", "set": …, "pod": …, "uid": …, "container": …}
{"do": "scale",   "set": …, "replicas": 0 | 1, …}                  a StatefulSet of one pod
{"do": "admit",   "pod": …, "uid": …, "admitted": "true" | "false"}
```
"""

import logging
from collections.abc import Callable, Mapping
from time import monotonic, sleep  # noqa: TID251  (it is the cluster that is waited for)
from typing import Any

from rollout.adapters.kubernetes import ailing
from rollout.adapters.kubernetes.cluster import APPLY, MERGE, PATIENCE_S, Cluster, ConflictError, NotFoundError, Object, TooManyError
from rollout.adapters.kubernetes.kinds import PODS, STATEFUL_SETS
from rollout.adapters.kubernetes.objects import (
    ADMITTED,
    OUT,
    RELEASE,
    REVISION,
    SINCE,
    TAKEN_OVER,
    TOLD,
    annotation,
    is_going,
    is_ready,
    label,
    name_of,
    pods_of,
    since_of,
    state_of,
    statuses_of,
    uid_of,
    version_of,
)
from rollout.adapters.kubernetes.told import Told, fingerprint, giving_back, is_taken_over, taking_over, told_in, told_text
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.ports.acts import Act, Acts

KIND = "kubernetes"
# Acts name it as their host: no agent of a host's is asked to do them.
HOST = "the cluster"
POLL_S = 0.2
# A container that ends at once is seen to run for a moment; the node tells of its end a little later.
SETTLED_S = 2.0
# One request among several of an act that is done in any case.
REQUEST_S = 10.0
# A status that moves under our hands is read again; more often than this it is somebody who writes without end.
TRIES_MAX = 20
# How long the controller may take to see a template of ours, before the strategy is given back another time.
GIVE_BACK_S = 5.0
_log = logging.getLogger(__name__)


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
    Take the StatefulSet over, and make its template that of a release.

    TransientDriverError when it isn't as it was when this was written down, but for its status.
    """
    end_s = monotonic() + one["timeout_s"]
    found = _read_set(cluster, one["set"], end_s)
    for _ in range(TRIES_MAX):
        if fingerprint(found) != one["expect"]:
            raise _meanwhile(one["worker"])
        try:
            if not is_taken_over(found):
                body = {**taking_over(found)}
                body["metadata"] = {**body["metadata"], "resourceVersion": version_of(found)}
                found = cluster.patch(STATEFUL_SETS, one["set"], body, MERGE, _left(end_s))
                one = {**one, "expect": fingerprint(found)}
            cluster.patch(STATEFUL_SETS, one["set"], applied(found, one), APPLY, _left(end_s))
        except ConflictError:
            found = _read_set(cluster, one["set"], end_s)
        else:
            return
    raise TransientDriverError("it changes faster than it can be patched", where=one["set"])


def applied(found: Object, one: Mapping[str, Any]) -> Object:
    """Return all that is ours of a StatefulSet, for server-side apply; what isn't in it and was ours is removed."""
    told = {**told_in(found), one["pod"]: Told(one["release"], one["at_s"], one["uid"])}
    template: Object = {"spec": {"containers": [{"name": name, "image": image} for name, image in sorted(one["images"].items())]}}
    if one["mark"] is not None:
        template["metadata"] = {"annotations": {RELEASE: one["mark"]}}
    return {
        "metadata": {"name": name_of(found), "resourceVersion": version_of(found), "annotations": {TOLD: told_text(told)}},
        "spec": {"template": template},
    }


def replace(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    Evict a pod, and return once another one of its name runs.

    TransientDriverError with the budget's own words when it isn't allowed in time; PermanentDriverError, with the new pod's last lines and
    events, when that ends at once or has no image; OutcomeUnknownError when it doesn't run in time.
    """
    end_s = monotonic() + one["timeout_s"]
    _evict(cluster, one, end_s)
    _await_another(cluster, one, end_s)
    give_back(cluster, one["set"])


def give_back(cluster: Cluster, name: str) -> bool:
    """
    Restore a StatefulSet's strategy once all of its pods are what its template says. Returns whether it is nobody's but its owner's now.

    Never raises, since the pod was replaced, and it is done again after the next replacement. That may have been the last one, so what
    is in the way is a warning.
    """
    end_s = monotonic() + GIVE_BACK_S
    why = "its controller has not yet seen its template"
    while monotonic() < end_s:
        try:
            if (done := _given_back(cluster, name)) is not None:
                return done
        except (TransientDriverError, OutcomeUnknownError) as error:
            # What came of it is seen next.
            why = str(error)
        except DriverError as error:
            why = str(error)
            break
        sleep(POLL_S)
    _log.warning("StatefulSet %s may stay OnDelete, what it was is in its annotation %s: %s", name, TAKEN_OVER, why)
    return False


def _given_back(cluster: Cluster, name: str) -> bool | None:
    """Try once; None when its controller has yet to see its template. Raises DriverError."""
    found = cluster.get(STATEFUL_SETS, name, REQUEST_S)
    if found is None or not is_taken_over(found):
        return True
    body = giving_back(found)
    if body is None:
        raise PermanentDriverError("what it was isn't understood", where=name, why=str(annotation(found, TAKEN_OVER)))
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"].get("generation"):
        return None
    if not _all_are(cluster, found, str(status.get("updateRevision"))):
        return False
    body["metadata"] = {**body["metadata"], "resourceVersion": version_of(found)}
    cluster.patch(STATEFUL_SETS, name, body, MERGE, REQUEST_S)
    return True


def scale(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    Give a StatefulSet of one pod no pod, or its one pod again, and wait for that.

    A budget is asked first, by an eviction that is only tried (`dryRun`): scaling asks nobody.
    """
    end_s = monotonic() + one["timeout_s"]
    if one["replicas"] == 0 and one["uid"]:
        _evict(cluster, one, end_s, dry_run=True)
    for _ in range(TRIES_MAX):
        found = _read_set(cluster, one["set"], end_s)
        if found["spec"].get("replicas", 1) == one["replicas"]:
            break
        body = {"metadata": {"resourceVersion": version_of(found)}, "spec": {"replicas": one["replicas"]}}
        try:
            cluster.patch(STATEFUL_SETS, one["set"], body, MERGE, _left(end_s))
            break
        except ConflictError:
            continue
    if one["replicas"]:
        _await_another(cluster, {**one, "uid": ""}, end_s)
        return
    while cluster.get(PODS, one["pod"], _left(end_s)) is not None:
        if monotonic() >= end_s:
            raise OutcomeUnknownError("it was told to end and is still there", where=one["worker"])
        sleep(POLL_S)


def admit(cluster: Cluster, one: Mapping[str, Any]) -> None:
    """
    Let a pod's Service choose it, or not.

    TransientDriverError when the pod is another one than this was written for: that one has nothing of it.
    """
    end_s = monotonic() + one["timeout_s"]
    for _ in range(TRIES_MAX):
        pod = cluster.get(PODS, one["pod"], _left(end_s))
        if pod is None or uid_of(pod) != one["uid"] or label(pod, ADMITTED) not in {one["was"], one["admitted"]}:
            raise _meanwhile(one["worker"])
        if label(pod, ADMITTED) == one["admitted"] and (one["admitted"] != OUT or since_of(pod) is not None):
            return
        body = _labelled(pod, one["admitted"], cluster.now_s())
        try:
            cluster.patch(PODS, one["pod"], body, MERGE, _left(end_s))
        except ConflictError:
            continue
        return
    raise TransientDriverError("it changes faster than it can be patched", where=one["worker"])


def is_running(pod: Object, container: str) -> bool:
    """Tell whether a pod's container runs, and the pod isn't on its way out."""
    return not is_going(pod) and state_of(statuses_of(pod).get(container), "running") is not None


def _labelled(pod: Object, value: str, at_s: float) -> Object:
    metadata = {"resourceVersion": version_of(pod), "uid": uid_of(pod), "labels": {ADMITTED: value}, "annotations": {SINCE: f"{at_s:.3f}"}}
    return {"metadata": metadata}


def _read_set(cluster: Cluster, name: str, end_s: float) -> Object:
    found = cluster.get(STATEFUL_SETS, name, _left(end_s))
    if found is None:
        raise PermanentDriverError(f"there is no StatefulSet {name}", where=cluster.where)
    return found


def _meanwhile(where: str) -> TransientDriverError:
    # Whoever still may will look again and be asked for the number again; whoever has been taken over from is refused then.
    why = "what was seen of it before its number was compared with the ledger is not so any more"
    return TransientDriverError("somebody has changed it meanwhile", where=where, why=why)


def _evict(cluster: Cluster, one: Mapping[str, Any], end_s: float, *, dry_run: bool = False) -> None:
    """Ask for it until it is allowed. A pod of another uid, or none, means that this one has gone already."""
    while True:
        try:
            cluster.evict(one["pod"], one["uid"], _left(end_s), dry_run=dry_run)
        except (TooManyError, ConflictError) as error:
            budget = isinstance(error, TooManyError)
            if _is_gone(cluster, one, end_s, delete_unready=budget and not dry_run):
                return
            again_s = error.retry_after_s if isinstance(error, TooManyError) else POLL_S
            if monotonic() + again_s >= end_s:
                why = f"it was asked for {one['timeout_s']:.0f} s: {error.why}"
                raise TransientDriverError("its eviction isn't allowed", where=one["worker"], why=why) from error
            sleep(again_s)
        except NotFoundError:
            return
        else:
            return


def _is_gone(cluster: Cluster, one: Mapping[str, Any], end_s: float, *, delete_unready: bool) -> bool:
    """
    Tell whether a pod that wasn't evicted is another one now, or none: a 409 may be about something else, too.

    *delete_unready*: one that a budget holds although it isn't Ready is deleted, since it counts for nobody as one that is there.
    """
    pod = cluster.get(PODS, one["pod"], _left(end_s))
    if pod is None or uid_of(pod) != one["uid"]:
        return True
    # One that is Ready may serve somebody; one that is out by our label is Ready too.
    if not delete_unready or is_ready(pod):
        return False
    try:
        cluster.delete(PODS, one["pod"], _left(end_s), uid=one["uid"])
    except ConflictError:
        return False
    return True


def _await_another(cluster: Cluster, one: Mapping[str, Any], end_s: float) -> None:
    """Wait until a pod with another uid runs. An API server that is away meanwhile is waited for, too."""
    name, container, worker = one["pod"], one["container"], one["worker"]
    last = "nothing was seen of it"
    pod: Object | None = None
    runs_since_s: float | None = None
    while monotonic() < end_s:
        try:
            pod = cluster.get(PODS, name, min(REQUEST_S, _left(end_s)))
            if pod is None:
                last = "it is gone, and no other one has been made"
            elif uid_of(pod) == one["uid"] or is_going(pod):
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
        return cluster.patch(PODS, name_of(pod), _labelled(pod, OUT, cluster.now_s()), MERGE, REQUEST_S)
    except ConflictError:
        return pod


def _all_are(cluster: Cluster, stateful_set: Object, revision: str) -> bool:
    names = pods_of(stateful_set)
    pods = {name_of(pod): pod for pod in cluster.all_of(PODS, REQUEST_S, labels=_selector(stateful_set))}
    return all(name in pods and not is_going(pods[name]) and label(pods[name], REVISION) == revision for name in names)


def _selector(stateful_set: Object) -> str:
    wanted = (stateful_set["spec"].get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(wanted.items()))


def _left(end_s: float) -> float:
    return max(0.1, min(PATIENCE_S, end_s - monotonic()))


_PRIMITIVES: Mapping[str, Callable[[Cluster, Mapping[str, Any]], None]] = {
    "tell": tell,
    "replace": replace,
    "scale": scale,
    "admit": admit,
}
