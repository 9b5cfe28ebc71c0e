"""
Why a pod doesn't run: what of it can't be mended by waiting, and what may.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states and
https://kubernetes.io/docs/concepts/containers/images/#imagepullbackoff.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.adapters.kubernetes.cluster import Cluster, Object
from rollout.adapters.kubernetes.kinds import EVENTS
from rollout.adapters.kubernetes.objects import name_of, state_of, statuses_of
from rollout.model.errors import DriverError

EVENTS_SHOWN = 3
LINES_SHOWN = 6
QUOTES_TIMEOUT_S = 3.0
# The first failure may be a registry's hiccup; Kubernetes says BackOff from the second on.
_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NO_IMAGE_YET = frozenset({"ErrImagePull"})
_NO_CONTAINER = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, slots=True)
class Ailment:
    """*what* is a sentence; *final*: waiting alone won't mend it. *crashed* names the container that ended, for its last lines."""

    what: str
    final: bool
    crashed: str = ""


def ailment_of(pod: Object) -> Ailment | None:
    """Say what is wrong with a pod; None when nothing is, or when it has only just begun."""
    for name, status in statuses_of(pod).items():
        if (found := _of_container(name, status)) is not None:
            return found
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Failed":
        reason = (pod["status"].get("reason") or "Failed", pod["status"].get("message") or "")
        return Ailment(f"the pod has failed: {': '.join(one for one in reason if one)}", final=True)
    if phase == "Pending":
        return _of_pending(pod)
    return None


def quotes(cluster: Cluster, pod: Object, ailment: Ailment | None, container: str) -> str:
    """Return the last log lines and events of a pod, a line each; nothing of what can't be had."""
    lines = events_of(cluster, name_of(pod))
    who = ailment.crashed if ailment is not None and ailment.crashed else _at_work(pod, container)
    return "\n".join([*last_words(cluster, pod, who, LINES_SHOWN), *lines])


def last_words(cluster: Cluster, pod: Object, container: str, lines: int) -> tuple[str, ...]:
    """Return what a container wrote last; what the one before it wrote, if it has not yet been started again."""
    status = statuses_of(pod).get(container)
    ended = state_of(status, "running") is None and int((status or {}).get("restartCount", 0)) > 0
    for previous in (ended, not ended):
        try:
            found = cluster.log(name_of(pod), container, lines, QUOTES_TIMEOUT_S, previous=previous)
        except DriverError:
            continue
        if found:
            return found
    return ()


def events_of(cluster: Cluster, pod: str) -> list[str]:
    """Return the last warnings about a pod."""
    try:
        found = cluster.all_of(EVENTS, QUOTES_TIMEOUT_S, fields=f"involvedObject.name={pod},type=Warning")
    except DriverError:
        return []
    ordered = sorted(found, key=_when)[-EVENTS_SHOWN:]
    return [f"event {one.get('reason', '')}: {str(one.get('message', '')).strip()}" for one in ordered]


def _at_work(pod: Object, container: str) -> str:
    """Name who has something to say: an init container while it runs, since nothing else has begun then."""
    statuses = statuses_of(pod)
    init = [
        str(one["name"]) for one in (pod.get("status") or {}).get("initContainerStatuses") or [] if state_of(one, "running") is not None
    ]
    return init[-1] if init and state_of(statuses.get(container), "running") is None else container


def _when(event: Object) -> str:
    times: Iterable[object] = (event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return next((str(one) for one in times if one), "")


def _of_container(name: str, status: Object) -> Ailment | None:
    if (waiting := state_of(status, "waiting")) is not None:
        return _of_waiting(name, status, str(waiting.get("reason") or ""), str(waiting.get("message") or ""))
    if (ended := state_of(status, "terminated")) is not None and ended.get("exitCode") != 0:
        return Ailment(_ended(name, ended), final=True, crashed=name)
    return None


def _of_waiting(name: str, status: Object, reason: str, message: str) -> Ailment | None:
    said = f": {message}" if message else ""
    if reason == "CrashLoopBackOff":
        last = (status.get("lastState") or {}).get("terminated") or {}
        many = int(status.get("restartCount", 0))
        return Ailment(f"{_ended(name, last)}; it was started {many + 1} times (CrashLoopBackOff)", final=True, crashed=name)
    if reason in _NO_IMAGE:
        return Ailment(f"its image {status.get('image') or ''} can't be pulled ({reason}){said}", final=True)
    if reason in _NO_IMAGE_YET:
        return Ailment(f"its image {status.get('image') or ''} could not be pulled at first ({reason}){said}", final=False)
    if reason in _NO_CONTAINER:
        return Ailment(f"container {name} can't be made ({reason}){said}", final=reason != "CreateContainerConfigError")
    return None


def _ended(name: str, ended: Object) -> str:
    code, reason = ended.get("exitCode"), ended.get("reason")
    how = "" if code is None else f" with status {code}"
    return f"container {name} ended{how}{f' ({reason})' if reason and reason != 'Error' else ''}"


def _of_pending(pod: Object) -> Ailment:
    for one in (pod.get("status") or {}).get("conditions") or []:
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return Ailment(f"no node takes it ({one.get('reason', 'pending')}): {one.get('message', '')}", final=False)
    spec = pod.get("spec") or {}
    return Ailment(
        "it is pending" + (f" on node {spec['nodeName']}" if spec.get("nodeName") else ": nobody has chosen a node for it"), final=False
    )
