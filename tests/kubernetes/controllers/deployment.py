"""
Deployments.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/; {sync,rolling,recreate,progress}.go of
pkg/controller/deployment and its util/deployment_util.go in kubernetes/kubernetes. Functions here name those there that they follow.
"""

from datetime import UTC, datetime

from tests.kubernetes.controllers.common import (
    MANAGER,
    POD,
    delete,
    hashed,
    is_active,
    is_terminating,
    owned,
    record,
    reference,
    scaled,
    with_condition,
)
from tests.kubernetes.controllers.replica_set import SET
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, condition, copied, name_of, namespace_of, now, parsed
from tests.kubernetes.server.resources import Resources

_DEPLOYMENT = BY_NAME["Deployment"]
_COMPONENT = "deployment-controller"
_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
_DESIRED, _MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
# annotationsToSkip of deployment_util.go: all others of a Deployment are copied to its newest ReplicaSet, and stay there.
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        _REVISION,
        "deployment.kubernetes.io/revision-history",
        _DESIRED,
        _MOST,
        "deprecated.deployment.rollback.to",
    }
)


def deployments(resources: Resources) -> float | None:
    for one in resources.store.all(_DEPLOYMENT):
        _sync(resources, one)
    # A progress deadline may pass without anything changing.
    return 1.0


def _sync(resources: Resources, deployment: Object) -> None:
    sets = owned(resources, deployment, SET)
    new = _newest(deployment, sets)
    if is_terminating(deployment):
        return
    if deployment["spec"].get("paused"):
        # https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pausing-and-resuming-a-deployment: it is only scaled.
        _scale(resources, deployment, sets, new)
    else:
        new = _new_set(resources, deployment, sets, new)
        old = [one for one in owned(resources, deployment, SET) if one["metadata"]["uid"] != new["metadata"]["uid"]]
        if _was_scaled(deployment, [*old, new]):
            _scale(resources, deployment, [*old, new], new)
        elif deployment["spec"]["strategy"]["type"] == "Recreate":
            _recreate(resources, deployment, old, new)
        else:
            _roll(resources, deployment, old, new)
        _clean_up(resources, deployment, old)
    _set_status(resources, deployment)


def _plain(template: Object) -> Object:
    """Return a template without the label that tells ReplicaSets apart."""
    plain = copied(template)
    labels = at(plain, "metadata", "labels") or {}
    labels.pop(_HASH, None)
    return plain  # type: ignore[no-any-return]


def _newest(deployment: Object, sets: list[Object]) -> Object | None:
    """Return the ReplicaSet of the template as it is, the oldest if there are several. FindNewReplicaSet."""
    same = [one for one in sets if _plain(one["spec"]["template"]) == deployment["spec"]["template"]]
    return min(same, key=lambda one: (one["metadata"]["creationTimestamp"], name_of(one)), default=None)


def _number(obj: Object, annotation: str) -> int:
    return int((obj["metadata"].get("annotations") or {}).get(annotation, 0))


def _new_set(resources: Resources, deployment: Object, sets: list[Object], new: Object | None) -> Object:
    """Find or make the ReplicaSet of the template, and number it. getNewReplicaSet."""
    highest = max((_number(one, _REVISION) for one in sets if one is not new), default=0)
    if new is None:
        word = hashed([deployment["spec"]["template"], at(deployment, "status", "collisionCount") or 0])
        template = copied(deployment["spec"]["template"])
        template["metadata"]["labels"] = {**(template["metadata"].get("labels") or {}), _HASH: word}
        selector = copied(deployment["spec"]["selector"])
        selector["matchLabels"] = {**(selector.get("matchLabels") or {}), _HASH: word}
        spec = {"replicas": 0, "selector": selector, "template": template}
        if minimum := deployment["spec"].get("minReadySeconds"):
            spec["minReadySeconds"] = minimum
        metadata = {
            "name": f"{name_of(deployment)}-{word}",
            "labels": dict(template["metadata"]["labels"]),
            "annotations": _copied(deployment) | _annotations(deployment) | {_REVISION: str(highest + 1)},
            "ownerReferences": [reference(deployment)],
        }
        new = resources.create(SET, namespace_of(deployment), {"metadata": metadata, "spec": spec}, MANAGER)
    else:
        more = _copied(deployment) | ({_REVISION: str(highest + 1)} if _number(new, _REVISION) <= highest else {})
        if more.items() - (new["metadata"].get("annotations") or {}).items():
            new = _annotated(resources, new, more)
    if _number(deployment, _REVISION) != _number(new, _REVISION):
        _annotated(resources, deployment, {_REVISION: str(_number(new, _REVISION))})
    return new


def _copied(deployment: Object) -> dict[str, str]:
    """Return what is copied: copyDeploymentAnnotationsToReplicaSet."""
    return {name: value for name, value in (deployment["metadata"].get("annotations") or {}).items() if name not in _NOT_COPIED}


def _annotations(deployment: Object) -> dict[str, str]:
    replicas = int(deployment["spec"]["replicas"])
    return {_DESIRED: str(replicas), _MOST: str(replicas + _surge(deployment))}


def _annotated(resources: Resources, obj: Object, more: dict[str, str]) -> Object:
    def change(new: Object) -> None:
        new["metadata"]["annotations"] = {**(new["metadata"].get("annotations") or {}), **more}

    return resources.change(BY_NAME[obj["kind"]], obj, change, MANAGER) or obj


def _surge(deployment: Object) -> int:
    if deployment["spec"]["strategy"]["type"] != "RollingUpdate":
        return 0
    return scaled(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], int(deployment["spec"]["replicas"]), up=True)


def _out(deployment: Object) -> int:
    """Return how many may be out: ResolveFenceposts; when neither surge nor absence is allowed, one may be absent."""
    if deployment["spec"]["strategy"]["type"] != "RollingUpdate":
        return 0
    replicas = int(deployment["spec"]["replicas"])
    most = scaled(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], replicas, up=False)
    return min(replicas, most if most or _surge(deployment) else 1)


def _size(one: Object) -> int:
    return int(one["spec"]["replicas"])


def _available(one: Object) -> int:
    return int(at(one, "status", "availableReplicas") or 0)


def _resize(resources: Resources, deployment: Object, one: Object, size: int) -> bool:
    if _size(one) == size:
        return False

    def change(new: Object) -> None:
        new["spec"]["replicas"] = size
        new["metadata"]["annotations"] = {**(new["metadata"].get("annotations") or {}), **_annotations(deployment)}

    resources.change(SET, one, change, MANAGER)
    way = "up" if size > _size(one) else "down"
    said = f"Scaled {way} replica set {name_of(one)} from {_size(one)} to {size}"
    record(resources, deployment, "Normal", "ScalingReplicaSet", said, _COMPONENT)
    return True


def _was_scaled(deployment: Object, sets: list[Object]) -> bool:
    """isScalingEvent: an active ReplicaSet was sized for another number of replicas."""
    wanted = int(deployment["spec"]["replicas"])
    return any(_size(one) and _number(one, _DESIRED) != wanted for one in sets)


def _scale(resources: Resources, deployment: Object, sets: list[Object], new: Object | None) -> None:
    """Change the size without changing who runs what. scale (sync.go); what is more or less goes to the largest."""
    wanted = int(deployment["spec"]["replicas"])
    active = [one for one in sets if _size(one)]
    if len(active) <= 1:
        one = active[0] if active else new
        if one is not None:
            _resize(resources, deployment, one, wanted)
            _annotated(resources, one, _annotations(deployment))
        return
    # In mid-roll: all together come to what is wanted, with what may be more.
    more = wanted + _surge(deployment) - sum(_size(one) for one in active)
    largest = max(active, key=_size)
    _resize(resources, deployment, largest, max(0, _size(largest) + more))
    for one in active:
        _annotated(resources, one, _annotations(deployment))


def _recreate(resources: Resources, deployment: Object, old: list[Object], new: Object) -> None:
    """rolloutRecreate: nobody new before all old ones have gone."""
    resized = [_resize(resources, deployment, one, 0) for one in old]
    if any(resized):
        return
    if any(pod for one in old for pod in owned(resources, one, POD) if is_active(pod) or is_terminating(pod)):
        return
    _resize(resources, deployment, new, int(deployment["spec"]["replicas"]))


def _roll(resources: Resources, deployment: Object, old: list[Object], new: Object) -> None:
    """rolloutRolling: scale up if that is allowed, else down if that is; one of the two in a round."""
    wanted = int(deployment["spec"]["replicas"])
    total = _size(new) + sum(map(_size, old))
    if _size(new) > wanted:
        _resize(resources, deployment, new, wanted)
        return
    if _size(new) < wanted:
        # NewRSNewReplicas.
        room = wanted + _surge(deployment) - total
        if room > 0 and _resize(resources, deployment, new, min(wanted, _size(new) + room)):
            return
    if not sum(map(_size, old)):
        return
    # reconcileOldReplicaSets: those of the new one that aren't available yet count as out.
    least = wanted - _out(deployment)
    may_go = total - least - (_size(new) - _available(new))
    if may_go <= 0:
        return
    old = sorted(old, key=lambda one: str(one["metadata"]["creationTimestamp"]))
    sizes = {name_of(one): _size(one) for one in old}
    for one in old:
        # cleanupUnhealthyReplicas: the sick go first.
        sick = min(may_go, _size(one) - _available(one))
        if sick > 0:
            sizes[name_of(one)] -= sick
            may_go -= sick
    room = _available(new) + sum(map(_available, old)) - least
    for one in old:
        well = min(max(0, room), sizes[name_of(one)])
        sizes[name_of(one)] -= well
        room -= well
    for one in old:
        _resize(resources, deployment, one, sizes[name_of(one)])


def _clean_up(resources: Resources, deployment: Object, old: list[Object]) -> None:
    """Forget old ReplicaSets beyond the limit, once all is done. cleanupDeployment."""
    empty = [one for one in old if not _size(one) and not (at(one, "status", "replicas") or 0)]
    empty.sort(key=lambda one: _number(one, _REVISION))
    for one in empty[: max(0, len(empty) - int(deployment["spec"]["revisionHistoryLimit"]))]:
        delete(resources, one)


def _set_status(resources: Resources, deployment: Object) -> None:
    """CalculateStatus and syncRolloutStatus."""
    fresh = resources.store.get(_DEPLOYMENT, namespace_of(deployment), name_of(deployment))
    if fresh is None:
        return
    sets = owned(resources, fresh, SET)
    new = _newest(fresh, sets)
    wanted = int(fresh["spec"]["replicas"])
    total = {key: sum(at(one, "status", key) or 0 for one in sets) for key in ("replicas", "readyReplicas", "availableReplicas")}
    updated = (at(new, "status", "replicas") or 0) if new is not None else 0
    missing = sum(map(_size, sets)) - total["availableReplicas"]
    count = {**total, "updatedReplicas": updated, "unavailableReplicas": max(0, missing)}
    conditions = copied(at(fresh, "status", "conditions") or [])
    enough = total["availableReplicas"] >= wanted - _out(fresh)
    available = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": "Deployment has minimum availability." if enough else "Deployment does not have minimum availability.",
    }
    conditions = _conditions(conditions, available)
    done = updated == total["replicas"] == total["availableReplicas"] == wanted and new is not None
    conditions = _conditions(conditions, _progress(fresh, new, count, done=done))
    status = {
        "observedGeneration": fresh["metadata"]["generation"],
        **{key: value for key, value in count.items() if value},
        "conditions": conditions,
    }
    if status != fresh["status"]:
        resources.set_status(_DEPLOYMENT, fresh, status, MANAGER.manager)


def _conditions(conditions: list[Object], new: Object) -> list[Object]:
    old = next((one for one in conditions if one["type"] == new["type"]), None)
    if old is not None and all(old.get(key) == new[key] for key in ("status", "reason")) and not new.get("moved"):
        return conditions
    plain = {key: value for key, value in new.items() if key != "moved"}
    return with_condition(conditions, {**plain, "lastUpdateTime": now()})


def _progress(deployment: Object, new: Object | None, count: dict[str, int], *, done: bool) -> Object:
    """progress.go: done, moving, or for too long neither."""
    told = name_of(new) if new is not None else ""
    old = condition(deployment, "Progressing")
    if deployment["spec"].get("paused"):
        return {"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused", "message": "Deployment is paused"}
    if done:
        said = f'ReplicaSet "{told}" has successfully progressed.'
        return {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": said}
    before = deployment["status"]
    moved = any(count[key] > (before.get(key) or 0) for key in ("updatedReplicas", "readyReplicas", "availableReplicas"))
    moved = moved or count["replicas"] - count["updatedReplicas"] < (before.get("replicas") or 0) - (before.get("updatedReplicas") or 0)
    started = old is None or old["reason"] in {"NewReplicaSetAvailable", "DeploymentPaused"}
    if moved or started:
        reason = "ReplicaSetUpdated" if not started else "NewReplicaSetCreated"
        said = f'ReplicaSet "{told}" is progressing.' if not started else f'Created new replica set "{told}"'
        return {"type": "Progressing", "status": "True", "reason": reason, "message": said, "moved": True}
    assert old is not None
    waited_s = (datetime.now(UTC) - parsed(old["lastUpdateTime"])).total_seconds()
    if waited_s > int(deployment["spec"]["progressDeadlineSeconds"]):
        said = f'ReplicaSet "{told}" has timed out progressing.'
        return {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": said}
    return {key: old[key] for key in ("type", "status", "reason", "message")}
