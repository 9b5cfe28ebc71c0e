"""
Workers as pods of StatefulSets: a look is one list of each, however many there are.

A pod is not stopped and started, it is replaced (ports.workers.Replaces): its StatefulSet makes the next one whenever the last is gone.
Only one that is alone in its StatefulSet can be stopped, by scaling that to nothing.

Kubernetes knows starts in whole seconds. What is told is the end of that second, or when we first saw it run, if that was earlier; what a
worker runs isn't told by it (docs/decisions/0017-kubernetes.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.adapters.kubernetes import acts, ailing
from rollout.adapters.kubernetes.access import ClusterSettings, read_settings
from rollout.adapters.kubernetes.cluster import PATIENCE_S, Object
from rollout.adapters.kubernetes.grants import not_granted, sets_of
from rollout.adapters.kubernetes.kinds import PODS, STATEFUL_SETS
from rollout.adapters.kubernetes.looking import Looking, looking
from rollout.adapters.kubernetes.objects import ADMITTED, homes, images_in, label, name_of, seconds, state_of, statuses_of, uid_of
from rollout.model.errors import DriverError, PermanentDriverError
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.ports.acts import Acts
from rollout.ports.privileges import Grant

WHERE = "workers_driver"
LINES_TIMEOUT_S = 5.0
ASK_S = 10.0
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
        sets = homes(self._looking.all_of(STATEFUL_SETS, self._settings.selector, timeout_s))
        pods = self._pods(timeout_s)
        names = {worker: self._settings.pod_of(worker) for worker in workers}
        return {worker: self._process(pods.get(name), sets[name]) for worker, name in names.items() if name in sets}

    def replace(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers.Replaces. A budget that forbids it is waited for; its words are in the error if it still does at the end."""
        acts.run(self._looking.cluster, self.replace_acts(worker, timeout_s))

    def replace_acts(self, worker: WorkerId, timeout_s: float) -> Acts:
        """See ports.acts. For the pod that is there now: another one is left alone."""
        return (acts.act("replace", timeout_s, **self._target(worker)),)

    def stop(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers. PermanentDriverError for one of several in its StatefulSet, which brings it back at once."""
        self._scale(worker, 0, timeout_s)

    def start(self, worker: WorkerId, timeout_s: float) -> None:
        """See ports.workers. Its last lines and events are in the error when it ends at once."""
        self._scale(worker, 1, timeout_s)

    def last_lines(self, worker: WorkerId, lines_max: int) -> tuple[str, ...]:
        """See ports.workers. Of one whose container has ended, what that wrote."""
        try:
            pod = self._looking.cluster.get(PODS, self._settings.pod_of(worker), LINES_TIMEOUT_S)
        except DriverError:
            return ()
        if pod is None:
            return ()
        ailment = ailing.ailment_of(pod)
        crashed = ailment.crashed if ailment is not None else ""
        return ailing.last_words(self._looking.cluster, pod, crashed or self._container(pod), lines_max)

    def grants(self) -> tuple[Grant, ...]:
        """See ports.privileges."""
        here, pods = self._settings.namespace, tuple(map(self._settings.pod_of, self._workers))
        return (
            Grant(here, "apps", "statefulsets", ("list",)),
            Grant(here, "apps", "statefulsets", ("get", "patch"), sets_of(pods)),
            Grant(here, "", "pods", ("get", "list")),
            Grant(here, "", "pods", ("patch", "delete"), pods),
            Grant(here, "", "pods/eviction", ("create",), pods),
            Grant(here, "", "pods/log", ("get",)),
            Grant(here, "", "events", ("list",)),
        )

    def not_granted(self, timeout_s: float) -> tuple[str, ...]:
        """See ports.privileges."""
        return not_granted(self._looking.cluster, self.grants(), timeout_s)

    def _scale(self, worker: WorkerId, replicas: int, timeout_s: float) -> None:
        target = self._target(worker)
        cluster = self._looking.cluster
        found = cluster.get(STATEFUL_SETS, target["set"], min(ASK_S, timeout_s))
        many = int((found or {"spec": {}})["spec"].get("replicas", 1))
        if many > 1:
            what = f"one of {many} pods of StatefulSet {target['set']} can't be stopped: it brings that back at once"
            raise PermanentDriverError(what, where=worker, remedy="it is replaced instead")
        if replicas == 0 and many == 0 and not target["uid"]:
            return
        acts.run(cluster, (acts.act("scale", timeout_s, replicas=replicas, **target),))

    def _target(self, worker: WorkerId) -> dict[str, Any]:
        """Say which pod a worker is now, and what it belongs to."""
        name = self._settings.pod_of(worker)
        cluster = self._looking.cluster
        found = homes(cluster.all_of(STATEFUL_SETS, PATIENCE_S, labels=self._settings.selector)).get(name)
        if found is None:
            remedy = "`pods` in the workers_driver says which pod a worker is, if its name is another"
            raise PermanentDriverError(f"no StatefulSet in {cluster.where} has a pod {name}", where=worker, remedy=remedy)
        pod = cluster.get(PODS, name, PATIENCE_S)
        return {
            "worker": worker,
            "set": name_of(found),
            "pod": name,
            "uid": "" if pod is None else uid_of(pod),
            "container": self._container(found["spec"]["template"]),
            "admitted": None if pod is None else label(pod, ADMITTED),
        }

    def _container(self, pod_or_template: Object) -> str:
        return self._settings.container or next(iter(images_in(pod_or_template)), "")

    def _pods(self, timeout_s: float) -> dict[str, Object]:
        return {name_of(pod): pod for pod in self._looking.all_of(PODS, self._settings.selector, timeout_s)}

    def _process(self, pod: Object | None, home: Object) -> Process:
        container = self._container(home["spec"]["template"])
        if pod is None or not acts.is_running(pod, container):
            return Process(running=False, started_at_s=None)
        status = statuses_of(pod)[container]
        second_s = seconds((state_of(status, "running") or {}).get("startedAt"))
        if second_s is None:
            return Process(running=True, started_at_s=None)
        key = uid_of(pod), str(status.get("containerID") or status.get("restartCount"))
        latest_s = min(second_s + SECOND_S, max(second_s, self._looking.cluster.now_s()))
        return Process(running=True, started_at_s=self._starts.setdefault(key, latest_s))
