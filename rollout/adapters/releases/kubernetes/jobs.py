"""
Preparing and migrating: Jobs with the pod template of main's workload, the new image, and a command of ours.

A Job is watched and never killed: it has no deadline, and is tried once. Its name says what it does for which release, so that who comes
after a crash, or beside another tool, finds the one that is under way instead of beginning a second. What a preparation writes is its
result, so its Job is read once and removed; of a migration nothing is read unless it fails, and it stays as the sign that it was done.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/ (conditions Complete and Failed; backoffLimit; restartPolicy Never).
"""

import copy
import logging
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep  # noqa: TID251  (it is the cluster that is waited for)

from rollout.adapters.kubernetes import ailing
from rollout.adapters.kubernetes.cluster import Cluster, ConflictError, Object
from rollout.adapters.kubernetes.kinds import JOBS, PODS
from rollout.adapters.kubernetes.objects import PREFIX, images_in, name_of, uid_of
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import ReleaseId

ASK_S = 10.0
POLL_S = 0.5
LINES = 2000
# Long enough to read its log by hand the next morning.
KEPT_FOR_S = 86_400
_log = logging.getLogger(__name__)
# What belongs to a server, and not to a command that ends.
_OF_SERVERS = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "ports", "args")


def job_of(name: str, workload: Object, image: str, container: str, argv: Sequence[str]) -> Object:
    """Return a Job that runs *argv* as *container* of a workload's pods would run, in another image."""
    spec = copy.deepcopy(workload["spec"]["template"]["spec"])
    worker = next(one for one in spec["containers"] if one["name"] == container)
    for part in _OF_SERVERS:
        worker.pop(part, None)
    worker |= {"image": image, "command": list(argv)}
    spec |= {"containers": [worker], "restartPolicy": "Never"}
    # A claim of main's may be on another node, and isn't needed: what is in a volume of that name is empty here.
    spec["volumes"] = [
        {"name": one["name"], "emptyDir": {}} if "persistentVolumeClaim" in one else one for one in spec.get("volumes") or []
    ]
    known = {one["name"] for one in spec["volumes"]}
    for one in (*spec["containers"], *(spec.get("initContainers") or [])):
        one["volumeMounts"] = [mount for mount in one.get("volumeMounts") or [] if mount["name"] in known]
    labels = {f"{PREFIX}/job": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": KEPT_FOR_S, "template": template},
    }


def name_for(what: str, release: ReleaseId) -> str:
    return f"rollout-{what}-{release}".lower().replace("_", "-").replace("+", "-")[:63].rstrip("-.")


def prepared(cluster: Cluster, job: Object, timeout_s: float) -> tuple[str, ...]:
    """
    Have a Job done, return the last lines that it wrote, and remove it.

    One that is there already is waited for; one that has failed is made anew. PermanentDriverError with its own words when it fails, or
    has no image; OutcomeUnknownError when *timeout_s* passes.
    """
    name = _begun(cluster, job)
    _watched(cluster, name, timeout_s)
    try:
        return _lines(cluster, name)
    finally:
        # If its pod is gone it says nothing more, and whoever asks again shall have another.
        with suppress(DriverError):
            cluster.delete(JOBS, name, ASK_S)


def migrated(cluster: Cluster, job: Object) -> None:
    """
    Have a Job done, however long it takes, whatever seems to be in its way: what was begun here isn't said to have failed before it has.

    For the rest as `prepared`.
    """
    _watched(cluster, _begun(cluster, job), None)


def _begun(cluster: Cluster, job: Object) -> str:
    name = str(job["metadata"]["name"])
    found = cluster.get(JOBS, name, ASK_S)
    if found is not None and _condition(found, "Failed"):
        cluster.delete(JOBS, name, ASK_S, uid=uid_of(found))
        _await_gone(cluster, name)
        found = None
    if found is None:
        # Somebody else may begin it in this moment.
        with suppress(ConflictError):
            cluster.create(JOBS, job, ASK_S)
    return name


def _watched(cluster: Cluster, name: str, timeout_s: float | None) -> None:
    """Return when it is done. With *timeout_s* only as long, and not for a pod that won't run; with None that is said, and waited for."""
    end_s = None if timeout_s is None else monotonic() + timeout_s
    last = "nothing was seen of it"
    while end_s is None or monotonic() < end_s:
        try:
            if _has_ended(cluster, name):
                return
            now, why = _look(cluster, name)
            if why is not None and end_s is not None:
                raise PermanentDriverError(f"the Job can't run: {now}", where=name, why=why)
            if why is not None and now != last:
                _log.warning("%s waits: %s", name, now)
            last = now
        except TransientDriverError as error:
            # It goes on without us.
            last = f"{error.what}: {error.why}"
        sleep(POLL_S)
    raise OutcomeUnknownError(f"the Job has not ended within {timeout_s:.0f} s: {last}", where=name)


def _has_ended(cluster: Cluster, name: str) -> bool:
    """Tell whether it is done. Raises PermanentDriverError when it has failed, OutcomeUnknownError when somebody has deleted it."""
    found = cluster.get(JOBS, name, ASK_S)
    if found is None:
        what = "the Job was deleted while it was watched: whether it has ended is not known"
        raise OutcomeUnknownError(what, where=name, remedy="look what the database's schema is")
    if failed := _condition(found, "Failed"):
        raise PermanentDriverError(f"the Job failed ({failed})", where=name, why=_words(cluster, name))
    return bool(_condition(found, "Complete"))


def _look(cluster: Cluster, name: str) -> tuple[str, str | None]:
    """Say how it stands; and, of a pod that hasn't begun and maybe never will (no image), which no Job counts as a failure, its events."""
    pod = _pod_of(cluster, name)
    if pod is None:
        return "it has no pod yet", None
    ailment = ailing.ailment_of(pod)
    if ailment is not None and ailment.final and not ailment.crashed:
        return ailment.what, "\n".join(ailing.events_of(cluster, name_of(pod)))
    return "it runs" if ailment is None else ailment.what, None


def _pod_of(cluster: Cluster, name: str) -> Object | None:
    pods = cluster.all_of(PODS, ASK_S, labels=f"{PREFIX}/job={name}")
    return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


def _lines(cluster: Cluster, name: str) -> tuple[str, ...]:
    pod = _pod_of(cluster, name)
    if pod is None:
        return ()
    return cluster.log(name_of(pod), next(iter(images_in(pod))), LINES, ASK_S)


def _words(cluster: Cluster, name: str) -> str:
    try:
        pod = _pod_of(cluster, name)
    except DriverError:
        return ""
    return "" if pod is None else ailing.quotes(cluster, pod, ailing.ailment_of(pod), next(iter(images_in(pod))))


def _condition(job: Object, kind: str) -> str:
    for one in (job.get("status") or {}).get("conditions") or []:
        if one.get("type") == kind and one.get("status") == "True":
            return str(one.get("reason") or kind)
    return ""


def _await_gone(cluster: Cluster, name: str) -> None:
    end_s = monotonic() + ASK_S
    while monotonic() < end_s and cluster.get(JOBS, name, ASK_S) is not None:
        sleep(POLL_S)
