"""
StatefulSets.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/; pkg/controller/statefulset/stateful_set_control.go and
stateful_set_utils.go in kubernetes/kubernetes. Functions here name those there that they follow.
"""

import re
from dataclasses import dataclass

from tests.kubernetes.controllers.common import (
    MANAGER,
    POD,
    available_in_s,
    delete,
    from_template,
    hashed,
    is_ready,
    is_terminating,
    make,
    owned,
    record,
    reference,
    scaled,
    soonest,
)
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, copied, labels_of, name_of, namespace_of
from tests.kubernetes.server.resources import Resources

_SET, _REVISION, _CLAIM = BY_NAME["StatefulSet"], BY_NAME["ControllerRevision"], BY_NAME["PersistentVolumeClaim"]
_COMPONENT = "statefulset-controller"
REVISION_LABEL = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class _Revisions:
    current: Object
    update: Object


def stateful_sets(resources: Resources) -> float | None:
    return soonest([_sync(resources, one) for one in resources.store.all(_SET)])


def _sync(resources: Resources, stateful_set: Object) -> float | None:
    revisions = _revisions(resources, stateful_set)
    # Before it acts, as there: what it creates and deletes in this round is counted in the next.
    pods = owned(resources, stateful_set, POD)
    _set_status(resources, stateful_set, revisions, pods)
    if not is_terminating(stateful_set):
        _act(resources, stateful_set, revisions, pods)
    _truncate(resources, stateful_set, revisions, pods)
    minimum = stateful_set["spec"].get("minReadySeconds") or 0
    return soonest([due or None for one in pods if (due := available_in_s(one, minimum)) is not None])


def _revisions(resources: Resources, stateful_set: Object) -> _Revisions:
    """
    Find or make the revision of the template as it is now. getStatefulSetRevisions.

    A template that was there before gets its old revision back, as the newest.
    """
    data = {"spec": {"template": {**copied(stateful_set["spec"]["template"]), "$patch": "replace"}}}
    known = sorted(owned(resources, stateful_set, _REVISION), key=lambda one: one["revision"])
    highest = known[-1]["revision"] if known else 0
    update = next((one for one in reversed(known) if one["data"] == data), None)
    if update is None:
        word = hashed(data)
        metadata = {
            "name": f"{name_of(stateful_set)}-{word}",
            "labels": {**(at(stateful_set, "spec", "template", "metadata", "labels") or {}), "controller.kubernetes.io/hash": word},
            "ownerReferences": [reference(stateful_set)],
        }
        new = {"metadata": metadata, "data": data, "revision": highest + 1}
        update = resources.create(_REVISION, namespace_of(stateful_set), new, MANAGER)
    elif update["revision"] != highest:
        update = resources.change(_REVISION, update, lambda obj: obj.update(revision=highest + 1), MANAGER) or update
    named = at(stateful_set, "status", "currentRevision")
    current = next((one for one in known if name_of(one) == named), update)
    return _Revisions(current, update)


def _replicas(stateful_set: Object) -> int:
    return int(stateful_set["spec"]["replicas"])


def _first(stateful_set: Object) -> int:
    return int(at(stateful_set, "spec", "ordinals", "start") or 0)


def ordinal(pod: Object) -> int:
    found = re.search(r"-(\d+)$", name_of(pod))
    return int(found[1]) if found else -1


def _is_unavailable(pod: Object | None, min_ready_s: int) -> bool:
    return pod is None or not _runs(pod) or available_in_s(pod, min_ready_s) != 0 or is_terminating(pod)


def _runs(pod: Object) -> bool:
    return at(pod, "status", "phase") == "Running" and is_ready(pod)


def revision_of(pod: Object) -> str:
    return labels_of(pod).get(REVISION_LABEL, "")


def _act(resources: Resources, stateful_set: Object, revisions: _Revisions, pods: list[Object]) -> None:
    """Create, scale, update: updateStatefulSet."""
    first, count = _first(stateful_set), _replicas(stateful_set)
    places: dict[int, Object | None] = dict.fromkeys(range(first, first + count))
    places |= {ordinal(pod): pod for pod in pods if ordinal(pod) in places}
    condemned = sorted((pod for pod in pods if ordinal(pod) not in places), key=ordinal, reverse=True)
    one_by_one = stateful_set["spec"]["podManagementPolicy"] == "OrderedReady"
    minimum = stateful_set["spec"].get("minReadySeconds") or 0
    if _fill(resources, stateful_set, revisions, places, one_by_one=one_by_one):
        return
    if _scale_down(resources, stateful_set, condemned, places, one_by_one=one_by_one):
        return
    # https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#update-strategies: OnDelete leaves it to whoever deletes.
    if at(stateful_set, "spec", "updateStrategy", "type") == "OnDelete":
        return
    lowest = int(at(stateful_set, "spec", "updateStrategy", "rollingUpdate", "partition") or 0)
    # Rounded down, but never to nobody: getStatefulSetMaxUnavailable.
    most = max(1, scaled(at(stateful_set, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable") or 1, count, up=False))
    for place in sorted(places, reverse=True):
        pod = places[place]
        if place < lowest or pod is None:
            continue
        if revision_of(pod) != name_of(revisions.update) and not is_terminating(pod):
            out = sum(_is_unavailable(one, minimum) for one in places.values())
            # One more may go out; one that is out already does no harm by going.
            if out < most or _is_unavailable(pod, minimum):
                _delete(resources, stateful_set, pod)
            return
        if _is_unavailable(pod, minimum):
            return


def _fill(resources: Resources, stateful_set: Object, revisions: _Revisions, places: dict[int, Object | None], *, one_by_one: bool) -> bool:
    """
    Create what is missing, in order; say whether to go no further. processReplica.

    With OrderedReady a pod that isn't ready blocks all else, and so does one of a broken revision after the template has been put right: it
    isn't deleted for the new template before it is ready. That is https://github.com/kubernetes/kubernetes/issues/67250, and documented at
    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback.
    """
    minimum = stateful_set["spec"].get("minReadySeconds") or 0
    waits = False
    for place, pod in sorted(places.items()):
        if pod is not None and at(pod, "status", "phase") in {"Succeeded", "Failed"}:
            if not is_terminating(pod):
                _delete(resources, stateful_set, pod)
            waits = True
        elif pod is None:
            _create(resources, stateful_set, revisions, place)
            waits = True
        elif one_by_one and _is_unavailable(pod, minimum):
            waits = True
        if waits and one_by_one:
            return True
    return waits


def _create(resources: Resources, stateful_set: Object, revisions: _Revisions, place: int) -> None:
    """Create a pod, of the old template if its place is below the partition. newVersionedStatefulSetPod."""
    rolling = at(stateful_set, "spec", "updateStrategy", "rollingUpdate")
    lowest = int((rolling or {}).get("partition") or 0)
    revision = revisions.current if rolling is not None and place < _first(stateful_set) + lowest else revisions.update
    pod = from_template(stateful_set, revision["data"]["spec"]["template"])
    name = f"{name_of(stateful_set)}-{place}"
    more = {
        "statefulset.kubernetes.io/pod-name": name,
        "apps.kubernetes.io/pod-index": str(place),
        REVISION_LABEL: name_of(revision),
    }
    pod["metadata"] |= {"name": name, "labels": {**(pod["metadata"].get("labels") or {}), **more}}
    pod["spec"]["hostname"] = name
    if service := stateful_set["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = service
    _claims(resources, stateful_set, pod, name)
    make(resources, stateful_set, pod, POD, _COMPONENT)


def _claims(resources: Resources, stateful_set: Object, pod: Object, name: str) -> None:
    """Give a pod its volumes, which outlive it. https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#stable-storage."""
    for template in stateful_set["spec"].get("volumeClaimTemplates") or []:
        volume = template["metadata"]["name"]
        claim = f"{volume}-{name}"
        others = [one for one in pod["spec"].get("volumes") or [] if one["name"] != volume]
        pod["spec"]["volumes"] = [{"name": volume, "persistentVolumeClaim": {"claimName": claim}}, *others]
        if resources.store.get(_CLAIM, namespace_of(stateful_set), claim) is None:
            metadata = {"name": claim, "labels": dict(at(stateful_set, "spec", "selector", "matchLabels") or {})}
            resources.create(_CLAIM, namespace_of(stateful_set), {"metadata": metadata, "spec": copied(template["spec"])}, MANAGER)


def _scale_down(
    resources: Resources, stateful_set: Object, condemned: list[Object], places: dict[int, Object | None], *, one_by_one: bool
) -> bool:
    """Delete what is too much, from the highest; say whether to go no further. processCondemned."""
    minimum = stateful_set["spec"].get("minReadySeconds") or 0
    everybody = [*(places[place] for place in sorted(places)), *reversed(condemned)]
    sick = next((pod for pod in everybody if _is_unavailable(pod, minimum)), None)
    for pod in condemned:
        if one_by_one and (is_terminating(pod) or (_is_unavailable(pod, minimum) and pod is not sick)):
            return True
        if not is_terminating(pod):
            _delete(resources, stateful_set, pod)
            if one_by_one:
                return True
    return False


def _delete(resources: Resources, stateful_set: Object, pod: Object) -> None:
    delete(resources, pod)
    said = f"delete Pod {name_of(pod)} in StatefulSet {name_of(stateful_set)} successful"
    record(resources, stateful_set, "Normal", "SuccessfulDelete", said, _COMPONENT)


def _set_status(resources: Resources, stateful_set: Object, revisions: _Revisions, pods: list[Object]) -> None:
    """ComputeReplicaStatus and completeRollingUpdate: with OnDelete the current revision never becomes the new one."""
    minimum = stateful_set["spec"].get("minReadySeconds") or 0
    alive = [pod for pod in pods if not is_terminating(pod)]
    count = {
        "readyReplicas": sum(_runs(pod) for pod in pods),
        "currentReplicas": sum(revision_of(pod) == name_of(revisions.current) for pod in alive),
        "updatedReplicas": sum(revision_of(pod) == name_of(revisions.update) for pod in alive),
    }
    current = name_of(revisions.current)
    rolls = at(stateful_set, "spec", "updateStrategy", "type") == "RollingUpdate"
    if rolls and count["updatedReplicas"] == count["readyReplicas"] == len(pods) == _replicas(stateful_set):
        count["currentReplicas"], current = count["updatedReplicas"], name_of(revisions.update)
    status: Object = {
        "observedGeneration": stateful_set["metadata"]["generation"],
        "replicas": len(pods),
        **{key: value for key, value in count.items() if value},
        "availableReplicas": sum(_runs(pod) and available_in_s(pod, minimum) == 0 for pod in pods),
        "currentRevision": current,
        "updateRevision": name_of(revisions.update),
        "collisionCount": at(stateful_set, "status", "collisionCount") or 0,
    }
    if status != stateful_set["status"]:
        resources.set_status(_SET, stateful_set, status, MANAGER.manager)


def _truncate(resources: Resources, stateful_set: Object, revisions: _Revisions, pods: list[Object]) -> None:
    """Forget old revisions beyond the limit. truncateHistory."""
    alive = {name_of(revisions.current), name_of(revisions.update), *(revision_of(pod) for pod in pods)}
    alive.add(at(stateful_set, "status", "currentRevision") or "")
    known = sorted(owned(resources, stateful_set, _REVISION), key=lambda one: one["revision"])
    old = [one for one in known if name_of(one) not in alive]
    for one in old[: max(0, len(old) - int(stateful_set["spec"]["revisionHistoryLimit"]))]:
        delete(resources, one)
