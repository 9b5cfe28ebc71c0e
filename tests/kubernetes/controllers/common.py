"""What the controllers have in common."""

import hashlib
import json
import time
from datetime import UTC, datetime

from tests.kubernetes.server import deleting
from tests.kubernetes.server.deleting import Options
from tests.kubernetes.server.kinds import BY_NAME, Kind
from tests.kubernetes.server.objects import Object, Value, at, condition, controller_of, copied, is_true, name_of, namespace_of, now, parsed
from tests.kubernetes.server.refusals import RefusedError
from tests.kubernetes.server.resources import Resources, Writer, letters

MANAGER = Writer("kube-controller-manager")
POD = BY_NAME["Pod"]


def owned(resources: Resources, owner: Object, kind: Kind) -> list[Object]:
    """Return those of a kind whose controller is *owner*."""
    uid = owner["metadata"]["uid"]
    found = resources.store.all(kind, namespace_of(owner))
    return [one for one in found if (ref := controller_of(one)) is not None and ref["uid"] == uid]


def reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": name_of(owner),
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def from_template(owner: Object, template: Object) -> Object:
    """Return a pod as a template wants it, without a name of its own."""
    metadata = template.get("metadata") or {}
    kept = {key: copied(metadata[key]) for key in ("labels", "annotations", "finalizers") if metadata.get(key)}
    metadata = {"generateName": f"{name_of(owner)}-", "ownerReferences": [reference(owner)], **kept}
    return {"metadata": metadata, "spec": copied(template["spec"])}


def is_active(pod: Object) -> bool:
    return at(pod, "status", "phase") not in {"Succeeded", "Failed"} and not pod["metadata"].get("deletionTimestamp")


def active_pods(resources: Resources, owner: Object) -> list[Object]:
    """Return the pods of an owner that run or are to run."""
    return [pod for pod in owned(resources, owner, POD) if is_active(pod)]


def is_terminating(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    return is_true(pod, "Ready")


def available_in_s(pod: Object, min_ready_s: int) -> float | None:
    """Return in how many seconds a pod will have been ready for long enough, 0 if it has been, or None if it isn't ready."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return None
    if not min_ready_s:
        return 0.0
    since_s = (datetime.now(UTC) - parsed(found["lastTransitionTime"])).total_seconds()
    return max(0.0, min_ready_s - since_s)


def hashed(value: Value) -> str:
    """Return a short word for a value: another one for another value, and of letters that make no words."""
    digest = int.from_bytes(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:8], "big")
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    word = ""
    for _ in range(10):
        digest, place = divmod(digest, len(alphabet))
        word += alphabet[place]
    return word


def delete(resources: Resources, obj: Object, propagation: str | None = None) -> None:
    """Delete one object if it is still that one."""
    kind = BY_NAME[obj["kind"]]
    options = Options(uid=obj["metadata"]["uid"], propagation=propagation)
    try:
        deleting.delete(resources, kind, namespace_of(obj), name_of(obj), options)
    except RefusedError as refused:
        if refused.code not in {404, 409}:
            raise


def record(resources: Resources, about: Object, sort: str, reason: str, message: str, component: str) -> None:
    """Write an event, as a controller's recorder does."""
    at_time = now()
    event = {
        "metadata": {"name": f"{name_of(about)}.{time.time_ns():x}{letters(2)}"},
        "involvedObject": {
            "kind": about["kind"],
            "namespace": namespace_of(about),
            "name": name_of(about),
            "uid": about["metadata"]["uid"],
            "apiVersion": about["apiVersion"],
            "resourceVersion": about["metadata"]["resourceVersion"],
        },
        "type": sort,
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": "",
        "firstTimestamp": at_time,
        "lastTimestamp": at_time,
        "eventTime": None,
        "count": 1,
    }
    resources.create(BY_NAME["Event"], namespace_of(about), event, MANAGER)


def make(resources: Resources, owner: Object, obj: Object, kind: Kind, component: str) -> bool:
    """Make something for an owner, and say so in an event; an owner whose objects are refused says that."""
    try:
        made = resources.create(kind, namespace_of(owner), obj, MANAGER)
    except RefusedError as refused:
        if refused.code == 409:
            return False
        named = obj["metadata"].get("name") or obj["metadata"]["generateName"]
        record(resources, owner, "Warning", "FailedCreate", f'Error creating: {kind.plural} "{named}": {refused.message}', component)
        return False
    if owner["kind"] == "StatefulSet":
        said = f"create Pod {name_of(made)} in StatefulSet {name_of(owner)} successful"
    else:
        said = f"Created {kind.name.lower()}: {name_of(made)}"
    record(resources, owner, "Normal", "SuccessfulCreate", said, component)
    return True


def scaled(value: Value, of: int, *, up: bool) -> int:
    """Return a number, or a percentage of *of*: intstr.GetScaledValueFromIntOrPercent of k8s.io/apimachinery."""
    if not isinstance(value, str):
        return int(value)
    share = int(value.removesuffix("%")) * of
    return -(-share // 100) if up else share // 100


def with_condition(conditions: list[Object], new: Object) -> list[Object]:
    """Return conditions with a new one; its time of transition is kept while its status is."""
    old = next((one for one in conditions if one["type"] == new["type"]), None)
    since = old["lastTransitionTime"] if old is not None and old["status"] == new["status"] else now()
    return [*(one for one in conditions if one["type"] != new["type"]), new | {"lastTransitionTime": since}]


def soonest(times: list[float | None]) -> float | None:
    given = [one for one in times if one is not None]
    return min(given) if given else None
