"""
Reading workloads and pods.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/ (names and ordinals),
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/ (phases, conditions, container states).
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime

from rollout.adapters.kubernetes.cluster import Object

PREFIX = "rollout.internal"
# On a template and on the pods that were made from it: which release that is.
RELEASE = f"{PREFIX}/release"
# On a workload: its strategy before we took it over, and what each of its pods was told to run.
TAKEN_OVER, TOLD = f"{PREFIX}/taken-over", f"{PREFIX}/told"
# On a pod, a label: whether its Service may choose it; and, in an annotation, since when that is so.
ADMITTED, SINCE = f"{PREFIX}/admitted", f"{PREFIX}/since"
IN, OUT = "true", "false"

REVISION = "controller-revision-hash"


def name_of(thing: Object) -> str:
    return str(thing["metadata"]["name"])


def uid_of(thing: Object) -> str:
    return str(thing["metadata"].get("uid", ""))


def version_of(thing: Object) -> str:
    """Return the resourceVersion."""
    return str(thing["metadata"].get("resourceVersion", ""))


def annotation(thing: Object, name: str) -> str | None:
    """Return an annotation of an object, or of a template."""
    found = ((thing.get("metadata") or {}).get("annotations") or {}).get(name)
    return None if found is None else str(found)


def label(thing: Object, name: str) -> str | None:
    found = ((thing.get("metadata") or {}).get("labels") or {}).get(name)
    return None if found is None else str(found)


def pods_of(stateful_set: Object) -> list[str]:
    """Name the pods that a StatefulSet has, or should have."""
    spec = stateful_set["spec"]
    first = int((spec.get("ordinals") or {}).get("start", 0))
    return [f"{name_of(stateful_set)}-{first + one}" for one in range(int(spec.get("replicas", 1)))]


def images_in(template_or_pod: Object) -> dict[str, str]:
    """Return container -> image."""
    containers = (template_or_pod.get("spec") or {}).get("containers") or []
    return {str(one["name"]): str(one.get("image", "")) for one in containers}


def rest_of(template: Object) -> str:
    """Name everything in a template that is not ours: equal exactly when it is equal."""
    metadata = {name: value for name, value in (template.get("metadata") or {}).items() if name in {"labels", "annotations"}}
    annotations = {name: value for name, value in (metadata.pop("annotations", None) or {}).items() if name != RELEASE}
    spec = dict(template.get("spec") or {})
    spec["containers"] = [{**one, "image": ""} for one in spec.get("containers") or []]
    return digest([metadata, annotations, spec])


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def seconds(timestamp: object) -> float | None:
    """Read RFC 3339; seconds since the epoch."""
    if not isinstance(timestamp, str):
        return None
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError:
        return None


def since_of(pod: Object) -> float | None:
    """Return since when a pod is in or out by our label, in seconds since the epoch; None when that was somebody else's doing."""
    try:
        return float(annotation(pod, SINCE) or "")
    except ValueError:
        return None


def is_going(pod: Object) -> bool:
    """Tell whether a pod is being deleted: its containers may still end what they have begun."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in (pod.get("status") or {}).get("conditions") or [])


def statuses_of(pod: Object) -> dict[str, Object]:
    """Return the status of each container, the init containers' first."""
    status = pod.get("status") or {}
    every = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return {str(one["name"]): one for one in every}


def state_of(status: Mapping[str, object] | None, name: str) -> Object | None:
    """Return a container's state of that name (running, waiting, terminated), if it is in it."""
    state = (status or {}).get("state")
    found = state.get(name) if isinstance(state, dict) else None
    return found if isinstance(found, dict) else None


def has_ended(pod: Object) -> bool:
    """Tell whether the kubelet has said of every container of a pod that none of them runs: waiting to be started again, or over."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return bool(statuses) and all(any(state_of(one, name) is not None for name in ("waiting", "terminated")) for one in statuses)


def managers_of(thing: Object) -> list[tuple[str, str]]:
    """Name who has changed an object's own fields but us, and when; the latest first. A status is nobody's edit."""
    entries = [
        (str(one.get("time", "")), str(one.get("manager", "")))
        for one in thing["metadata"].get("managedFields") or []
        if not one.get("subresource") and one.get("manager") != "rollout"
    ]
    return [(manager, at) for at, manager in sorted(entries, reverse=True)]
