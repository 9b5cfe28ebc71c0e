"""
What each pod of a workload was told to run, kept beside its template; and how the workload was before we took it over.

Both are annotations of ours, changed in the same patch as what they speak of: who finds them has all that was in a journal.

A StatefulSet that is taken over is OnDelete: its controller replaces nobody. A Deployment is paused, and Recreate: while it is paused its
controller makes nothing of a new template, and afterwards nobody new before the last one is gone.
"""

import json
from dataclasses import asdict, dataclass

from rollout.adapters.kubernetes.cluster import Object
from rollout.adapters.kubernetes.objects import TAKEN_OVER, TOLD, annotation, digest
from rollout.adapters.kubernetes.places import is_deployment
from rollout.model.ids import ReleaseId

ON_DELETE: Object = {"type": "OnDelete"}
RECREATE: Object = {"type": "Recreate"}


@dataclass(frozen=True, slots=True)
class Told:
    """A pod was told to run *release* at *at_s* (seconds since the epoch, by the tool's clock), when it was the one with *uid*."""

    release: ReleaseId
    at_s: float
    uid: str


def told_in(workload: Object) -> dict[str, Told]:
    """Return what is written down, by place; nothing where it makes no sense, since then nothing is known."""
    try:
        found = json.loads(annotation(workload, TOLD) or "{}")
        return {str(pod): Told(ReleaseId(one["release"]), float(one["at_s"]), str(one["uid"])) for pod, one in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def told_text(told: dict[str, Told]) -> str:
    return json.dumps({pod: asdict(one) for pod, one in told.items()}, sort_keys=True)


def is_taken_over(workload: Object) -> bool:
    """
    Tell whether it is ours to say when a pod is replaced.

    A Deployment whose strategy isn't ours has the annotation from a ReplicaSet: its controller copies annotations there, and
    `kubectl rollout undo` brings them back.
    """
    noted = annotation(workload, TAKEN_OVER) is not None
    return noted and (not is_deployment(workload) or _strategy(workload).get("type") == RECREATE["type"])


def is_held(workload: Object) -> bool:
    """Tell whether a new template of it would be left alone by its controller."""
    return is_taken_over(workload) and (not is_deployment(workload) or bool(workload["spec"].get("paused")))


def taking_over(workload: Object) -> Object:
    """Return the merge patch that takes a workload over, and writes down how it was; or that pauses again one that is ours already."""
    if is_taken_over(workload):
        return {"metadata": {}, "spec": {"paused": True}}
    before = _strategy(workload)
    # A merge patch removes what is null: parameters of another strategy are invalid.
    if is_deployment(workload):
        note: Object = {"strategy": before, "paused": workload["spec"].get("paused")}
        spec: Object = {"strategy": {**dict.fromkeys(before), **RECREATE}, "paused": True}
    else:
        note = {"updateStrategy": before}
        spec = {"updateStrategy": {**dict.fromkeys(before), **ON_DELETE}}
    return {"metadata": {"annotations": {TAKEN_OVER: json.dumps(note, sort_keys=True)}}, "spec": spec}


def giving_back(workload: Object) -> Object | None:
    """Return the merge patch that restores the strategy as it was; None when it isn't ours."""
    note = annotation(workload, TAKEN_OVER)
    if note is None:
        return None
    name = _strategy_name(workload)
    try:
        noted = json.loads(note)
        before = dict(noted[name])
        spec: Object = {name: {**dict.fromkeys(_strategy(workload)), **before}}
        if is_deployment(workload):
            spec["paused"] = noted["paused"]
    except (ValueError, TypeError, KeyError):
        return None
    return {"metadata": {"annotations": {TAKEN_OVER: None}}, "spec": spec}


def fingerprint(workload: Object) -> str:
    """Name everything about a workload that an act of ours goes by; its status moves all the time, and is left out."""
    spec = workload["spec"]
    ours = [spec.get("paused"), spec.get("replicas", 1)] if is_deployment(workload) else []
    return digest([spec.get("template"), _strategy(workload), *ours, *(annotation(workload, name) for name in (TAKEN_OVER, TOLD))])


def _strategy_name(workload: Object) -> str:
    return "strategy" if is_deployment(workload) else "updateStrategy"


def _strategy(workload: Object) -> Object:
    # What the API server writes where nothing is said.
    return dict(workload["spec"].get(_strategy_name(workload)) or {"type": "RollingUpdate"})
