"""Whether the API server would take the templates of a release: it is asked by a server-side dry run (`dryRun=All`)."""

import json
from collections.abc import Iterable

from rollout.adapters.kubernetes import acts
from rollout.adapters.kubernetes.cluster import APPLY, Cluster, ForbiddenError, Object
from rollout.adapters.kubernetes.grants import may_patch
from rollout.adapters.kubernetes.objects import name_of
from rollout.adapters.kubernetes.places import called, key_of, kind_of
from rollout.adapters.releases.kubernetes.parts import part_of
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId

ASK_S = 10.0
# A plan is soon made, however many templates there are; PREPARE asks about all of them, before anybody is touched.
TRIED_MAX = 6


def try_some(cluster: Cluster, settings: ReleasesSettings, workloads: Iterable[Object], release: ReleaseId, image: str) -> None:
    """As `try_all`, but of those that are alike one, TRIED_MAX in all, and nothing where we may not write."""
    for found in _unlike(one for one in workloads if part_of(one, settings) is not None)[:TRIED_MAX]:
        try:
            try_all(cluster, settings, [found], release, image)
        except ForbiddenError:
            # By a policy of the cluster's, if we may; that is as good as any other refusal.
            if may_patch(cluster, kind_of(key_of(found)), name_of(found), ASK_S):
                raise
            return


def try_all(cluster: Cluster, settings: ReleasesSettings, workloads: Iterable[Object], release: ReleaseId, image: str) -> None:
    """Ask about each of these. PermanentDriverError, in the API server's words, where it would not take one."""
    for found in workloads:
        part = part_of(found, settings)
        if part is None:
            continue
        order = {"at": "", "release": release, "at_s": 0.0, "uid": "", "images": dict.fromkeys(part.images, image), "mark": release}
        body = acts.applied(found, order)
        # What is asked about is the template; whether it has changed meanwhile isn't.
        body["metadata"] = {"name": name_of(found)}
        try:
            cluster.patch(kind_of(key_of(found)), name_of(found), body, APPLY, ASK_S, dry_run=True)
        except PermanentDriverError as error:
            what = f"the template of {called(found)} would not be accepted"
            raise type(error)(what, where=error.where, why=error.why, remedy=error.remedy) from error


def _unlike(workloads: Iterable[Object]) -> list[Object]:
    """Return one of each that are alike but for their names."""
    found: dict[str, Object] = {}
    for one in workloads:
        whole = json.dumps([one["kind"], one["metadata"].get("labels"), one["spec"]["template"]], sort_keys=True)
        found.setdefault(whole.replace(name_of(one), ""), one)
    return list(found.values())
