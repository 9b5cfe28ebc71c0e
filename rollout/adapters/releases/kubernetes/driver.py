"""
The port `releases` in a cluster.

What a worker was told is kept beside its workload's template, with the uid of the pod that was there then: a pod of another uid was made
since. So which of two came first is told without comparing two clocks, and without fractions of a second, which Kubernetes doesn't keep.
Where a moment must be named that only came "after this pod's start", it is that start and a second.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rollout.adapters.kubernetes import acts
from rollout.adapters.kubernetes.access import read_settings
from rollout.adapters.kubernetes.cluster import PATIENCE_S, Object
from rollout.adapters.kubernetes.grants import not_granted, workload_grants
from rollout.adapters.kubernetes.kinds import CONFIG_MAPS, REPLICA_SETS, Kind
from rollout.adapters.kubernetes.looking import looking
from rollout.adapters.kubernetes.objects import (
    RELEASE,
    REVISION,
    annotation,
    label,
    managers_of,
    name_of,
    seconds,
    state_of,
    statuses_of,
    uid_of,
)
from rollout.adapters.kubernetes.places import (
    ListOf,
    homes,
    is_deployment,
    key_of,
    kind_of,
    nobody_at,
    owner_uid_of,
    pod_at,
    pods_at,
    template_of,
    workloads,
)
from rollout.adapters.kubernetes.told import Told, fingerprint, is_taken_over, told_in
from rollout.adapters.releases.identifying import base_of, identified
from rollout.adapters.releases.kubernetes import jobs, records, trying
from rollout.adapters.releases.kubernetes.parts import (
    Record,
    adopted,
    lock_of,
    part_in,
    part_of,
    parts_of,
    which,
    with_image,
)
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.adapters.wording import shortened
from rollout.model.conditions import Room
from rollout.model.errors import DriverError, PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.release import Release
from rollout.ports.acts import Acts
from rollout.ports.privileges import Grant
from rollout.ports.releases import Activation

WHERE = "releases_driver"
LOOK_S = 5.0
MAIN = "main"
# Two moments of which one is known to be after the other, though Kubernetes may say the same second of both.
AFTER_S = 2.0
FACTS = 4


def build(settings: Mapping[str, object], inventory: Inventory) -> "KubernetesReleases":
    """Open the driver; nothing is connected yet."""
    workers = list(inventory.workers)
    main = next((worker for worker in workers if inventory.workers[worker].role == MAIN), workers[0])
    return KubernetesReleases(read_settings(ReleasesSettings, settings, inventory, WHERE), main, workers)


class KubernetesReleases:
    """See ports.releases. For use by several threads. Jobs are like the pods of *main*, one of the inventory's *workers*."""

    def __init__(self, settings: ReleasesSettings, main: WorkerId, workers: Sequence[WorkerId] = ()) -> None:
        self._workers = tuple(workers)
        self._settings = settings
        self._main = main
        self._looking = looking(settings)
        self._cluster = self._looking.cluster

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """See ports.releases. Where we may write, the API server is asked whether it would take templates (`dryRun=All`)."""
        if config_from is not None:
            what = "a configuration is not ours to change in a cluster"
            raise PermanentDriverError(what, where=WHERE, remedy="apply it with what manages the cluster, and roll it by --restart")
        known = self._known()
        old = base_of({name: record.release for name, record in known.items()}, base, self._cluster.where)
        wanted = version or old.version
        image = self._image_of(wanted) if version is not None else next(iter(self._images_of(known[base])), "")
        releases = {name: record.release for name, record in known.items()}
        same = identified(old, wanted, lock_of(image), old.config_digest, {}, releases, next_generation=next_generation)
        # The configuration is the base's, whatever it is.
        found = replace(same, topology=old.topology)
        trying.try_some(self._cluster, self._settings, self._workloads(), found.id, image)
        return found

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """
        See ports.releases.

        A Job runs the image and has it say what it is; the API server is asked whether it would take each template; and what all of it is
        in each workload is written down, with what is there now, so that the way back is known to whoever comes after us.
        """
        known = self._known()
        image = self._image_of_release(release, known)
        trying.try_all(self._cluster, self._settings, self._workloads(), release.id, image)
        if release.id in known and known[release.id].release.schema_version is not None:
            return known[release.id].release
        done = self._with_facts(release, image, timeout_s)
        parts = parts_of(self._workloads(), self._settings)
        before = {name: record for name, record in known.items() if any(part == parts.get(one) for one, part in record.parts.items())}
        before = {name: self._learned(record, timeout_s) for name, record in before.items() if name != release.id}
        # One that somebody else has put there stays as it is; of any other the templates are made by us.
        made = {name: with_image(part, done.id, image) for name, part in parts.items()}
        ours = known[release.id].parts if release.id in known else made
        records.keep(self._cluster, self._settings.store, {**before, done.id: Record(done, ours)}, self._is_needed)
        return done

    def prepared(self) -> dict[ReleaseId, Release]:
        """See ports.releases. One that somebody else has put into the templates is there, too."""
        return {name: record.release for name, record in self._known().items()}

    def migrate(self, release: ReleaseId) -> None:
        """See ports.releases. A Job of the release's own image; one that is there already is the one that is waited for."""
        known = self._known()
        if release not in known:
            raise self._not_prepared(release)
        image = next(iter(self._images_of(known[release])))
        jobs.migrated(self._cluster, self._job("migrate", release, image, self._settings.migrate))

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """See ports.releases."""
        acts.run(self._cluster, self.activate_acts(worker, release))

    def activate_acts(self, worker: WorkerId, release: ReleaseId) -> Acts:
        """See ports.acts. PermanentDriverError when it isn't prepared, or when somebody else has edited what is ours in the template."""
        known, place = self._kept(PATIENCE_S), self._settings.pod_of(worker)
        found = homes(self._workloads_now()).get(place)
        if found is None:
            raise nobody_at(place, self._cluster.where, worker, self._settings.selector)
        part, now = (known[release].parts.get(key_of(found)) if release in known else None), part_of(found, self._settings)
        if part is None:
            raise self._not_prepared(release)
        if now is None or which(found, now, known) not in known:
            raise _edited(worker, found)
        if told_in(found).get(place, Told(ReleaseId(""), 0.0, "")).release == release and now == part:
            return ()
        there = pod_at(self._cluster, place, self._settings.selector, PATIENCE_S)
        return (
            acts.act(
                "tell",
                PATIENCE_S,
                worker=worker,
                set=key_of(found),
                at=place,
                release=release,
                at_s=self._cluster.now_s(),
                uid="" if there is None else uid_of(there),
                images=part.images,
                mark=part.mark,
                expect=fingerprint(found),
            ),
        )

    def activations(self, workers: Sequence[WorkerId]) -> dict[WorkerId, Activation]:
        """See ports.releases."""
        found, pods = homes(self._workloads()), pods_at(self._list, self._settings.deployments)
        places = {worker: self._settings.pod_of(worker) for worker in workers}
        known = self._known()
        return {worker: self._activation(at, found[at], pods.get(at), known) for worker, at in places.items() if at in found}

    def room(self, release: Release) -> Room:
        """See ports.releases. That an image has no room on a node is seen when it is prepared."""
        del release
        # How much room is free nobody knows; that none is needed is told by the second figure.
        return Room(1, 0, "nodes make room for images by themselves; PREPARE shows whether one could")

    def connections(self, release: Release, workers: Sequence[WorkerId]) -> dict[WorkerId, int]:
        """See ports.releases. Configurations lie in Secrets, which are not ours to read: the inventory says it, of all alike."""
        del release
        most = self._settings.cp_max
        return {} if most is None else dict.fromkeys(workers, most)

    def grants(self) -> tuple[Grant, ...]:
        """See ports.privileges."""
        here = self._settings.namespace
        return (
            *workload_grants(self._settings, self._workers),
            Grant(here, "", "pods", ("get", "list")),
            Grant(here, "", "pods/log", ("get",)),
            Grant(here, "", "events", ("list",)),
            Grant(here, "", "configmaps", ("create",)),
            Grant(here, "", "configmaps", ("get", "update"), (self._settings.store,)),
            Grant(here, "batch", "jobs", ("get", "create", "delete")),
        )

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking, self.grants(), timeout_s, thorough=thorough)

    def _activation(self, place: str, found: Object, there: Object | None, known: Mapping[ReleaseId, Record]) -> Activation:
        part = part_of(found, self._settings)
        if part is None:
            return Activation(None, None)
        says = which(found, part, known)
        if says not in known:
            return Activation(says, self._cluster.now_s())
        told = told_in(found).get(place)
        carries = self._carried(found, there, says, known)
        if told is None:
            # Nobody has told this one anything: it is what its pod is, or, where others roll the workload, what its next one will be.
            if there is None or is_taken_over(found) or carries == says:
                return Activation(says if there is None else carries, _made_at(there))
            return Activation(says, _after(there))
        if there is None or uid_of(there) == told.uid:
            return Activation(told.release, told.at_s if there is None else max(told.at_s, _after(there)))
        # Another one was made since: as it was told, or before its turn, by whoever deleted the last one.
        return Activation(carries, min(told.at_s, _made_at(there) or told.at_s))

    def _carried(self, found: Object, there: Object | None, says: ReleaseId, known: Mapping[ReleaseId, Record]) -> ReleaseId | None:
        """Return the release that a pod was made from; None when nobody knows."""
        if there is None:
            return None
        if (named := annotation(there, RELEASE)) is not None:
            return ReleaseId(named)
        if is_deployment(found):
            return self._carried_in(found, there, known)
        if label(there, REVISION) == (found.get("status") or {}).get("updateRevision", ""):
            return says
        images = {one["name"]: one.get("image") for one in there["spec"]["containers"]}
        for release, record in known.items():
            part = record.parts.get(key_of(found))
            if part is not None and part.mark is None and all(images.get(name) == image for name, image in part.images.items()):
                return release
        return None

    def _carried_in(self, found: Object, there: Object, known: Mapping[ReleaseId, Record]) -> ReleaseId | None:
        """Return the release of a Deployment's pod: its ReplicaSet still has the template that it was made from."""
        sets = {uid_of(one): one for one in self._list(REPLICA_SETS)}
        of = sets.get(owner_uid_of(there))
        part = None if of is None else part_in(template_of(of), self._settings)
        return next((release for release, record in known.items() if part is not None and record.parts.get(key_of(found)) == part), None)

    def _known(self) -> dict[ReleaseId, Record]:
        """Return what was written down, and what somebody else has put into templates where that isn't."""
        kept = self._kept()
        return {**adopted(self._workloads(), kept, self._settings), **kept}

    def _kept(self, timeout_s: float = LOOK_S) -> dict[ReleaseId, Record]:
        store = self._looking.get(CONFIG_MAPS, self._settings.store, timeout_s)
        return records.records_in(store, f"ConfigMap {self._settings.store} in {self._cluster.where}")

    def _list(self, kind: Kind) -> list[Object]:
        return self._looking.all_of(kind, self._settings.selector, LOOK_S)

    def _workloads(self, list_of: ListOf | None = None) -> list[Object]:
        every = list_of or self._list
        return workloads(every, self._settings.deployments, sets=self._settings.has_sets(self._workers))

    def _workloads_now(self) -> list[Object]:
        """Return them as they are at this moment: what is written goes by it."""
        return self._workloads(lambda kind: self._cluster.all_of(kind, PATIENCE_S, labels=self._settings.selector))

    def _is_needed(self, release: ReleaseId) -> bool:
        every = self._workloads()
        named = {annotation(one["spec"]["template"], RELEASE) for one in every}
        return release in named or any(told.release == release for one in every for told in told_in(one).values())

    def _image_of(self, version: str) -> str:
        image = self._settings.image_of(version)
        if image is None:
            known = ", ".join(sorted(self._settings.images))
            raise PermanentDriverError(f"there is no image for {version}", where=WHERE, why=f"images: {known}", remedy="add it to `images`")
        return image

    def _images_of(self, record: Record) -> list[str]:
        return [image for part in record.parts.values() for image in part.images.values()]

    def _image_of_release(self, release: Release, known: Mapping[ReleaseId, Record]) -> str:
        """Return the image that a release was identified with."""
        images = [self._settings.image_of(release.version), *(one for record in known.values() for one in self._images_of(record))]
        for image in images:
            if image is not None and lock_of(image) == release.artefact_lock:
                return image
        what = f"release {release.id} was identified with another image than {release.version} has now"
        raise PermanentDriverError(what, where=WHERE, remedy="plan again")

    def _with_facts(self, release: Release, image: str, timeout_s: float) -> Release:
        lines = jobs.prepared(self._cluster, self._job("prepare", release.id, image, self._settings.facts), timeout_s)
        try:
            facts = json.loads(lines[-1]) if lines else None
        except ValueError:
            facts = None
        version, schema, compat, deltas = facts if isinstance(facts, list) and len(facts) == FACTS else (None, None, None, ())
        if version is None:
            why = shortened(lines[-1]) if lines else "it wrote nothing"
            raise PermanentDriverError(f"{image} doesn't say what it is", where=WHERE, why=why, remedy="`facts` in the releases_driver")
        if version != release.version:
            raise PermanentDriverError(f"{image} says that it is {shortened(str(version))}, not {release.version}", where=WHERE)
        return replace(release, schema_version=schema, schema_compat_version=compat, deltas=tuple(deltas))

    def _learned(self, record: Record, timeout_s: float) -> Record:
        """Have a release that somebody else has put there say what it is, too: whether there is a way back to it depends on that."""
        if record.release.schema_version is not None:
            return record
        try:
            return Record(self._with_facts(record.release, self._images_of(record)[0], timeout_s), record.parts)
        except DriverError:
            return record

    def _job(self, what: str, release: ReleaseId, image: str, argv: Sequence[str]) -> Object:
        found = homes(self._workloads()).get(self._settings.pod_of(self._main))
        part = None if found is None else part_of(found, self._settings)
        if found is None or part is None:
            raise PermanentDriverError(f"no StatefulSet or Deployment has the pod of {self._main}", where=self._cluster.where)
        return jobs.job_of(jobs.name_for(what, release), found, image, next(iter(part.images)), argv)

    def _not_prepared(self, release: ReleaseId) -> PermanentDriverError:
        return PermanentDriverError(f"release {release} is not prepared", where=self._cluster.where, remedy="let PREPARE end first")


def _made_at(pod: Object | None) -> float | None:
    return None if pod is None else seconds(pod["metadata"].get("creationTimestamp"))


def _after(pod: Object) -> float:
    """Name a moment after a pod's containers began."""
    began = (seconds((state_of(status, "running") or {}).get("startedAt")) for status in statuses_of(pod).values())
    return max((at for at in (*began, _made_at(pod)) if at is not None), default=0.0) + AFTER_S


def _edited(worker: WorkerId, found: Object) -> PermanentDriverError:
    latest = managers_of(found)
    why = "; ".join(f"{manager} at {at}" for manager, at in latest[:3]) or "managedFields name nobody"
    kind = kind_of(key_of(found)).name.lower()
    remedy = f"kubectl get {kind} {name_of(found)} -o yaml --show-managed-fields; undo that edit, or plan again once nothing is ours there"
    return PermanentDriverError("somebody else has edited its template since this was planned", where=worker, why=why, remedy=remedy)
