"""
Workers as pods of StatefulSets and of Deployments: a look is one list of each kind, however many there are.

A pod is not stopped and started, it is replaced (ports.workers.Replaces): its workload makes the next one whenever the last is gone.
Only one that is alone in its workload can be stopped, by scaling that to nothing.

Kubernetes knows starts in whole seconds. What is told is the end of that second, or when we first saw it run, if that was earlier; what a
worker runs isn't told by it (docs/decisions/0017-kubernetes.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.adapters.kubernetes import acts, ailing
from rollout.adapters.kubernetes.access import ClusterSettings, read_settings
from rollout.adapters.kubernetes.awaiting import is_running
from rollout.adapters.kubernetes.cluster import PATIENCE_S, Object
from rollout.adapters.kubernetes.grants import not_granted, pod_grants, workload_grants
from rollout.adapters.kubernetes.looking import Looking, looking
from rollout.adapters.kubernetes.objects import ADMITTED, images_in, label, name_of, seconds, state_of, statuses_of, uid_of
from rollout.adapters.kubernetes.places import ListOf, called, homes, key_of, nobody_at, pod_at, pods_at, workloads
from rollout.adapters.kubernetes.told import is_taken_over
from rollout.model.errors import DriverError, PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.ports.acts import Acts
from rollout.ports.privileges import Grant

WHERE = "workers_driver"
LINES_TIMEOUT_S = 5.0
# Of a start that is known to the second, the latest moment.
SECOND_S = 0.999


class WorkersSettings(ClusterSettings):
    """*container*: the one that is the worker, in each pod; the first if absent. For the others see access.ClusterSettings."""

    container: str | None = None


def build(settings: Mapping[str, object], inventory: Inventory) -> "KubernetesWorkers":
    """Open the driver; nothing is connected yet."""
    return KubernetesWorkers(read_settings(WorkersSettings, settings, inventory, WHERE), tuple(inventory.workers))


@dataclass(frozen=True, slots=True)
class Process:
    """See ports.workers.ProcessState."""

    running: bool
    started_at_s: float | None


class KubernetesWorkers:
    """See ports.workers. *workers* are those of the inventory. For use by several threads."""

    def __init__(self, settings: WorkersSettings, workers: Sequence[WorkerId] = ()) -> None:
        self._workers = tuple(workers)
        self._settings = settings
        self._looking: Looking = looking(settings)
        self._starts: dict[tuple[str, str], float] = {}

    def look(self, workers: Sequence[WorkerId], timeout_s: float) -> dict[WorkerId, Process]:
        """See ports.workers."""
        if not workers:
            return {}
        list_of = self._lists(timeout_s)
        found, pods = self._homes(list_of), pods_at(list_of, self._settings.deployments)
        places = {worker: self._settings.pod_of(worker) for worker in workers}
        return {worker: self._process(pods.get(place), found[place]) for worker, place in places.items() if place in found}

    def replace(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers.Replaces. A budget that forbids it is waited for; its words are in the error if it still does at the end."""
        acts.run(self._looking.cluster, self.replace_acts(worker, timeout_s))

    def replace_acts(self, worker: WorkerId, timeout_s: float) -> Acts:
        """See ports.acts. For the pod that is there now: another one is left alone."""
        return (acts.act("replace", timeout_s, **self._target(worker)[1]),)

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers. PermanentDriverError for one of several in its workload, which brings it back at once."""
        self._scale(worker, 0, timeout_s)

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers. Its last lines and events are in the error when it ends at once."""
        self._scale(worker, 1, timeout_s)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers. Of one whose container has ended, what that wrote."""
        try:
            pod = pod_at(self._looking.cluster, self._settings.pod_of(worker), self._settings.selector, LINES_TIMEOUT_S)
        except DriverError:
            return ()
        if pod is None:
            return ()
        ailment = ailing.ailment_of(pod)
        crashed = ailment.crashed if ailment is not None else ""
        return ailing.last_words(self._looking.cluster, pod, crashed or self._container(pod), lines_max)

    def grants(self) -> tuple[Grant, ...]:
        """See ports.privileges."""
        here, workers = self._settings.namespace, self._workers
        return (
            *workload_grants(self._settings, workers),
            Grant(here, "", "pods", ("get", "list")),
            *pod_grants(self._settings, workers, "pods", ("patch",)),
            *pod_grants(self._settings, workers, "pods", ("delete",), of_deployments=False),
            *pod_grants(self._settings, workers, "pods/eviction", ("create",)),
            Grant(here, "", "pods/log", ("get",)),
            Grant(here, "", "events", ("list",)),
        )

    def not_granted(self, timeout_s: float, *, thorough: bool) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking, self.grants(), timeout_s, thorough=thorough)

    def _scale(self, worker: WorkerId, replicas: int, timeout_s: float) -> None:
        found, target = self._target(worker)
        many = int(found["spec"].get("replicas", 1))
        if many > 1:
            what = f"one of {many} pods of {called(found)} can't be stopped: it brings that back at once"
            raise PermanentDriverError(what, where=worker, remedy="it is replaced instead")
        if replicas == 0 and many == 0 and not target["uid"]:
            return
        acts.run(self._looking.cluster, (acts.act("scale", timeout_s, replicas=replicas, **target),))

    def _target(self, worker: WorkerId) -> tuple[Object, dict[str, Any]]:
        """Return what a worker belongs to, and which pod it is now. Nothing of it was seen before this moment."""
        place, cluster, selector = self._settings.pod_of(worker), self._looking.cluster, self._settings.selector
        every = self._homes(lambda kind: cluster.all_of(kind, PATIENCE_S, labels=selector))
        found = every.get(place)
        if found is None:
            raise nobody_at(place, cluster.where, worker, selector)
        pod = pod_at(cluster, place, selector, PATIENCE_S)
        return found, {
            "worker": worker,
            "set": key_of(found),
            "pod": place if pod is None else name_of(pod),
            "uid": "" if pod is None else uid_of(pod),
            "container": self._container(found["spec"]["template"]),
            "admitted": None if pod is None else label(pod, ADMITTED),
            "others": sorted({key_of(one) for one in every.values() if is_taken_over(one)} - {key_of(found)}),
        }

    def _homes(self, list_of: ListOf) -> dict[str, Object]:
        return homes(workloads(list_of, self._settings.deployments, sets=self._settings.has_sets(self._workers)))

    def _lists(self, timeout_s: float) -> ListOf:
        """See what the other drivers of this moment see."""
        return lambda kind: self._looking.all_of(kind, self._settings.selector, timeout_s)

    def _container(self, pod_or_template: Object) -> str:
        return self._settings.container or next(iter(images_in(pod_or_template)), "")

    def _process(self, pod: Object | None, home: Object) -> Process:
        container = self._container(home["spec"]["template"])
        if pod is None or not is_running(pod, container):
            return Process(running=False, started_at_s=None)
        status = statuses_of(pod)[container]
        second_s = seconds((state_of(status, "running") or {}).get("startedAt"))
        if second_s is None:
            return Process(running=True, started_at_s=None)
        key = uid_of(pod), str(status.get("containerID") or status.get("restartCount"))
        latest_s = min(second_s + SECOND_S, max(second_s, self._looking.cluster.now_s()))
        return Process(running=True, started_at_s=self._starts.setdefault(key, latest_s))
