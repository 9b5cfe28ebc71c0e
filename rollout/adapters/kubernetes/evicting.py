"""Asking whether a pod may go, as far as its disruption budget lets it."""

from collections.abc import Mapping
from time import monotonic, sleep  # noqa: TID251  (it is the cluster that is waited for)
from typing import Any

from rollout.adapters.kubernetes.awaiting import POLL_S, left
from rollout.adapters.kubernetes.cluster import Cluster, ConflictError, NotFoundError, TooManyError
from rollout.adapters.kubernetes.kinds import PODS
from rollout.adapters.kubernetes.objects import is_ready, uid_of
from rollout.model.errors import TransientDriverError


def evict(cluster: Cluster, one: Mapping[str, Any], end_s: float, *, dry_run: bool = False) -> None:
    """
    Ask for it until it is allowed. A pod of another uid, or none, means that this one has gone already.

    *dry_run* asks only: whoever ends a pod by its workload asks no budget otherwise.
    """
    while True:
        try:
            cluster.evict(one["pod"], one["uid"], left(end_s), dry_run=dry_run)
        except (TooManyError, ConflictError) as error:
            budget = isinstance(error, TooManyError)
            if _needs_no_eviction(cluster, one, end_s, budget=budget, dry_run=dry_run):
                return
            again_s = error.retry_after_s if isinstance(error, TooManyError) else POLL_S
            if monotonic() + again_s >= end_s:
                why = f"it was asked for {one['timeout_s']:.0f} s: {error.why}"
                raise TransientDriverError("its eviction isn't allowed", where=one["worker"], why=why) from error
            sleep(again_s)
        except NotFoundError:
            return
        else:
            return


def _needs_no_eviction(cluster: Cluster, one: Mapping[str, Any], end_s: float, *, budget: bool, dry_run: bool) -> bool:
    """
    Tell whether a pod that wasn't evicted is another one now, or none: a 409 may be about something else, too.

    One that a *budget* holds although it isn't Ready counts for nobody as one that is there: it may go, and is deleted unless we only ask.
    """
    pod = cluster.get(PODS, one["pod"], left(end_s))
    if pod is None or uid_of(pod) != one["uid"]:
        return True
    # One that is Ready may serve somebody; one that is out by our label is Ready too.
    if not budget or is_ready(pod):
        return False
    if dry_run:
        return True
    try:
        cluster.delete(PODS, one["pod"], left(end_s), uid=one["uid"])
    except ConflictError:
        return False
    return True
