"""Giving workloads back to whoever owns them, as they were."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic, sleep  # noqa: TID251  (it is the cluster that is waited for)

from rollout.adapters.kubernetes.awaiting import POLL_S, REQUEST_S, pods_of_deployment, selector_of
from rollout.adapters.kubernetes.cluster import MERGE, Cluster, Object
from rollout.adapters.kubernetes.kinds import PODS
from rollout.adapters.kubernetes.objects import REVISION, TAKEN_OVER, annotation, is_going, label, name_of, pods_of, version_of
from rollout.adapters.kubernetes.places import deployment_in, is_deployment, kind_of
from rollout.adapters.kubernetes.told import giving_back, is_taken_over
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError

# How long the controller may take to see a template of ours, before the strategy is given back another time.
GIVE_BACK_S = 5.0
_log = logging.getLogger(__name__)


def give_back(cluster: Cluster, key: str) -> bool:
    """
    Restore a workload's strategy once all of its pods are what its template says. Returns whether it is nobody's but its owner's now.

    Never raises, since the pod was replaced, and it is done again after the next replacement. That may have been the last one, so what
    is in the way is a warning.
    """
    end_s = monotonic() + GIVE_BACK_S
    why = "its controller has not yet seen its template"
    while monotonic() < end_s:
        try:
            if (done := _given_back(cluster, key)) is not None:
                return done
        except (TransientDriverError, OutcomeUnknownError) as error:
            # What came of it is seen next.
            why = str(error)
        except DriverError as error:
            why = str(error)
            break
        sleep(POLL_S)
    ours = "OnDelete" if deployment_in(key) is None else "Recreate"
    what = f"{kind_of(key).name} {deployment_in(key) or key} may stay {ours}"
    _log.warning("%s, what it was is in its annotation %s: %s", what, TAKEN_OVER, why)
    return False


def give_back_others(cluster: Cluster, keys: Iterable[str]) -> None:
    """Try once for workloads that an earlier replacement has left ours: whoever did that was killed, or wasn't answered. Never raises."""
    for key in keys:
        with suppress(DriverError):
            _given_back(cluster, key)


def _given_back(cluster: Cluster, key: str) -> bool | None:
    """Try once; None when its controller has yet to see its template. Raises DriverError."""
    name = deployment_in(key) or key
    found = cluster.get(kind_of(key), name, REQUEST_S)
    if found is None or not is_taken_over(found):
        return True
    body = giving_back(found)
    if body is None:
        raise PermanentDriverError("what it was isn't understood", where=key, why=str(annotation(found, TAKEN_OVER)))
    if (found.get("status") or {}).get("observedGeneration") != found["metadata"].get("generation"):
        return None
    if not _all_are(cluster, found):
        return False
    body["metadata"] = {**body["metadata"], "resourceVersion": version_of(found)}
    cluster.patch(kind_of(key), name, body, MERGE, REQUEST_S)
    return True


def _all_are(cluster: Cluster, workload: Object) -> bool:
    """Tell whether all pods that a workload should have are there, and are what its template says, and no other one is."""
    if is_deployment(workload):
        every = pods_of_deployment(cluster, workload, REQUEST_S)
        return len(every) == workload["spec"].get("replicas", 1) and all(fresh and not is_going(pod) for pod, fresh in every)
    names, revision = pods_of(workload), str((workload.get("status") or {}).get("updateRevision"))
    pods = {name_of(pod): pod for pod in cluster.all_of(PODS, REQUEST_S, labels=selector_of(workload))}
    return all(name in pods and not is_going(pods[name]) and label(pods[name], REVISION) == revision for name in names)
