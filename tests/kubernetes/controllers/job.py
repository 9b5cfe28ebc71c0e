"""
Jobs.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/; pkg/controller/job/job_controller.go and backoff_utils.go in
kubernetes/kubernetes.
"""

from datetime import UTC, datetime

from tests.kubernetes.controllers.common import (
    MANAGER,
    POD,
    active_pods,
    delete,
    from_template,
    is_active,
    is_ready,
    is_terminating,
    make,
    owned,
    record,
    soonest,
)
from tests.kubernetes.server.kinds import BY_NAME
from tests.kubernetes.server.objects import Object, at, copied, now, parsed
from tests.kubernetes.server.resources import Resources

_JOB = BY_NAME["Job"]
_COMPONENT = "job-controller"
# A pod stays until it has been counted: https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-tracking-with-finalizers.
_TRACKED = "batch.kubernetes.io/job-tracking"
# DefaultJobPodFailureBackOff and MaxJobPodFailureBackOff.
_BACKOFF_S, _BACKOFF_MAX_S = 10.0, 600.0


def jobs(resources: Resources) -> float | None:
    return soonest([_sync(resources, one) for one in resources.store.all(_JOB)])


def _ended(job: Object) -> Object | None:
    return next(
        (one for one in at(job, "status", "conditions") or [] if one["type"] in {"Complete", "Failed"} and one["status"] == "True"), None
    )


def _sync(resources: Resources, job: Object) -> float | None:
    pods = owned(resources, job, POD)
    if _ended(job):
        for pod in pods:
            _release(resources, pod)
        return _outlived(resources, job)
    status = copied(job["status"])
    status.setdefault("startTime", now())
    done = [
        pod
        for pod in pods
        if at(pod, "status", "phase") in {"Succeeded", "Failed"} and _TRACKED in (pod["metadata"].get("finalizers") or [])
    ]
    succeeded = (status.get("succeeded") or 0) + sum(at(pod, "status", "phase") == "Succeeded" for pod in done)
    failed = (status.get("failed") or 0) + sum(at(pod, "status", "phase") == "Failed" for pod in done)
    active = [pod for pod in pods if is_active(pod)]
    again = None
    end = _end(job, succeeded, failed, pods, status["startTime"])
    if end is not None:
        for pod in active:
            delete(resources, pod)
        active = []
        _finish(resources, job, status, end)
    elif job["spec"].get("suspend"):
        status.pop("startTime")
        for pod in active:
            delete(resources, pod)
    else:
        again = _fill(resources, job, active, pods, succeeded, failed)
        active = active_pods(resources, job)
    count = {
        "active": len(active),
        "ready": sum(is_ready(pod) for pod in active),
        "succeeded": succeeded,
        "failed": failed,
        "terminating": sum(is_terminating(pod) for pod in pods),
    }
    status |= count | {"uncountedTerminatedPods": {}}
    status = {key: value for key, value in status.items() if value or key in {"ready", "terminating", "uncountedTerminatedPods"}}
    if status != job["status"]:
        resources.set_status(_JOB, job, status, MANAGER.manager)
    for pod in done:
        _release(resources, pod)
    deadline = job["spec"].get("activeDeadlineSeconds")
    return soonest([again, 0.5 if deadline else None])


def _end(job: Object, succeeded: int, failed: int, pods: list[Object], started: str) -> tuple[str, str, str] | None:
    """Return type, reason and message of the condition that ends it."""
    spec = job["spec"]
    wanted = spec.get("completions")
    # Restarts in place count as failures where a pod's containers are restarted: exceedsBackoffLimit's pastBackoffLimitOnFailure.
    restarts = 0
    if at(spec, "template", "spec", "restartPolicy") == "OnFailure":
        restarts = sum(one.get("restartCount", 0) for pod in pods for one in at(pod, "status", "containerStatuses") or [])
    if failed > int(spec["backoffLimit"]) or (restarts and restarts >= int(spec["backoffLimit"])):
        return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    deadline = spec.get("activeDeadlineSeconds")
    if deadline and (datetime.now(UTC) - parsed(started)).total_seconds() >= deadline:
        return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
    if wanted is not None and succeeded >= wanted:
        return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
    return None


def _finish(resources: Resources, job: Object, status: Object, end: tuple[str, str, str]) -> None:
    sort, reason, message = end
    at_time = now()
    before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[sort]
    told = {"status": "True", "reason": reason, "message": message, "lastProbeTime": at_time, "lastTransitionTime": at_time}
    status["conditions"] = [*(status.get("conditions") or []), {"type": before, **told}, {"type": sort, **told}]
    if sort == "Complete":
        status["completionTime"] = at_time
        record(resources, job, "Normal", "Completed", "Job completed", _COMPONENT)
    else:
        record(resources, job, "Warning", reason, message, _COMPONENT)


def _fill(resources: Resources, job: Object, active: list[Object], pods: list[Object], succeeded: int, failed: int) -> float | None:
    """Start as many as are missing; after a failure wait first, twice as long each time."""
    wanted = job["spec"].get("completions")
    most = int(job["spec"]["parallelism"])
    room = min(most, wanted - succeeded) if wanted is not None else (0 if succeeded else most)
    # podReplacementPolicy TerminatingOrFailed: one that is being deleted is replaced at once.
    missing = room - len(active)
    if missing <= 0:
        return None
    ended = [_finished_at(pod) for pod in pods if at(pod, "status", "phase") == "Failed"]
    if failed and ended:
        wait_s: float = min(_BACKOFF_MAX_S, _BACKOFF_S * 2 ** (failed - 1)) - (datetime.now(UTC) - max(ended)).total_seconds()
        if wait_s > 0:
            return wait_s
    for _ in range(missing):
        pod = from_template(job, job["spec"]["template"])
        pod["metadata"]["finalizers"] = [*(pod["metadata"].get("finalizers") or []), _TRACKED]
        make(resources, job, pod, POD, _COMPONENT)
    return None


def _finished_at(pod: Object) -> datetime:
    ends = [at(one, "state", "terminated", "finishedAt") for one in at(pod, "status", "containerStatuses") or []]
    known = [parsed(one) for one in ends if one]
    return max(known) if known else datetime.now(UTC)


def _release(resources: Resources, pod: Object) -> None:
    """Let a pod that has been counted go."""
    if at(pod, "status", "phase") not in {"Succeeded", "Failed"} and not is_terminating(pod):
        return
    if _TRACKED not in (pod["metadata"].get("finalizers") or []):
        return

    def change(new: Object) -> None:
        new["metadata"]["finalizers"] = [one for one in new["metadata"]["finalizers"] if one != _TRACKED]

    resources.change(POD, pod, change, MANAGER)


def _outlived(resources: Resources, job: Object) -> float | None:
    """Delete one whose time after its end is over: https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/."""
    left = job["spec"].get("ttlSecondsAfterFinished")
    end = _ended(job)
    if left is None or end is None or is_terminating(job):
        return None
    due_s: float = left - (datetime.now(UTC) - parsed(end["lastTransitionTime"])).total_seconds()
    if due_s > 0:
        return due_s
    delete(resources, job, "Foreground")
    return None
