"""
What each pod of a StatefulSet was told to run, kept beside its template; and how the StatefulSet was before we took it over.

Both are annotations of ours, changed in the same patch as what they speak of: who finds them has all that was in a journal.
"""

import json
from dataclasses import asdict, dataclass

from rollout.adapters.kubernetes.cluster import Object
from rollout.adapters.kubernetes.objects import TAKEN_OVER, TOLD, annotation, digest
from rollout.model.ids import ReleaseId

ON_DELETE: Object = {"type": "OnDelete"}


@dataclass(frozen=True, slots=True)
class Told:
    """A pod was told to run *release* at *at_s* (seconds since the epoch, by the tool's clock), when it was the one with *uid*."""

    release: ReleaseId
    at_s: float
    uid: str


def told_in(stateful_set: Object) -> dict[str, Told]:
    """Return what is written down; nothing where it makes no sense, since then nothing is known."""
    try:
        found = json.loads(annotation(stateful_set, TOLD) or "{}")
        return {str(pod): Told(ReleaseId(one["release"]), float(one["at_s"]), str(one["uid"])) for pod, one in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def told_text(told: dict[str, Told]) -> str:
    return json.dumps({pod: asdict(one) for pod, one in told.items()}, sort_keys=True)


def is_taken_over(stateful_set: Object) -> bool:
    return annotation(stateful_set, TAKEN_OVER) is not None


def taking_over(stateful_set: Object) -> Object:
    """Return the merge patch that takes a StatefulSet over, and writes down how it was."""
    before = stateful_set["spec"].get("updateStrategy") or {"type": "RollingUpdate"}
    note = json.dumps({"updateStrategy": before}, sort_keys=True)
    return {
        "metadata": {"annotations": {TAKEN_OVER: note}},
        # A merge patch removes what is null: OnDelete with the parameters of another strategy is invalid.
        "spec": {"updateStrategy": {**dict.fromkeys(before), **ON_DELETE}},
    }


def giving_back(stateful_set: Object) -> Object | None:
    """Return the merge patch that restores the strategy as it was; None when it isn't ours."""
    note = annotation(stateful_set, TAKEN_OVER)
    if note is None:
        return None
    try:
        before = dict(json.loads(note)["updateStrategy"])
    except (ValueError, TypeError, KeyError):
        return None
    now = stateful_set["spec"].get("updateStrategy") or {}
    return {"metadata": {"annotations": {TAKEN_OVER: None}}, "spec": {"updateStrategy": {**dict.fromkeys(now), **before}}}


def fingerprint(stateful_set: Object) -> str:
    """Name everything about a StatefulSet that an act of ours goes by; its status moves all the time, and is left out."""
    spec = stateful_set["spec"]
    return digest([spec.get("template"), spec.get("updateStrategy"), *(annotation(stateful_set, name) for name in (TAKEN_OVER, TOLD))])
