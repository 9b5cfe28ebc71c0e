"""Which cluster, as whom, and which namespace."""

from collections.abc import Collection, Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from rollout.adapters.kubernetes.places import PREFIX, deployment_in
from rollout.adapters.settings import FilePath, Settings, check, refused
from rollout.model.inventory import Inventory

DRIVER = "kubernetes"
# What a driver takes from another one's settings, so that it is written once.
_DOOR = ("namespace", "context", "kubeconfig")
_SHARED = (*_DOOR, "selector", "pods")


def _are_places(pods: dict[str, str]) -> dict[str, str]:
    for worker, place in pods.items():
        if "/" in (deployment_in(place) or place) or place == PREFIX:
            what = f"{place} is no pod that worker {worker} could be"
            raise refused(what, f"the name of a pod of a StatefulSet, or {PREFIX}NAME for the one pod of a Deployment")
    twice = {place for place in pods.values() if deployment_in(place) is not None and list(pods.values()).count(place) > 1}
    if twice:
        what = f"{min(twice)} is named for several workers, and its pods can't be told apart"
        raise refused(what, "a Deployment of one replica for each worker, or one StatefulSet for all of them")
    return pods


class ClusterSettings(Settings):
    """
    *namespace*: where the homeserver is. *kubeconfig* and *context*: how the cluster is reached, as kubectl reaches it; inside a cluster,
    and without either, by the pod's own service account. *selector*: labels that all workloads and pods of the homeserver have. *pods*:
    the pods of workers whose name is another; `deployment/NAME` is the one pod of a Deployment.
    """

    namespace: str = Field(min_length=1)
    kubeconfig: FilePath | None = None
    context: str | None = None
    selector: str = ""
    pods: Annotated[dict[str, str], AfterValidator(_are_places)] = Field(default={})

    def pod_of(self, worker: str) -> str:
        """Return where a worker is: the name of its pod, or the Deployment whose one pod it is (places.py)."""
        return self.pods.get(worker, worker)

    @property
    def deployments(self) -> frozenset[str]:
        """Name the Deployments whose one pod is a worker."""
        return frozenset(name for place in self.pods.values() if (name := deployment_in(place)) is not None)

    def has_sets(self, workers: Collection[str]) -> bool:
        """Tell whether any of *workers*, or one of whom nothing is said, may be a pod of a StatefulSet."""
        return not workers or any(deployment_in(self.pod_of(worker)) is None for worker in workers)


_Checked = TypeVar("_Checked", bound=ClusterSettings)


def read_settings(kind: type[_Checked], settings: Mapping[str, object], inventory: Inventory, where: str) -> _Checked:
    """Check settings; what they don't say of the cluster is what another driver of this inventory says. Raises InvalidSettingsError."""
    return check(kind, {**said_by_others(inventory, _SHARED), **settings}, where)


def said_by_others(inventory: Inventory, names: Collection[str] = _DOOR) -> dict[str, object]:
    """Return what the first driver of this inventory that names a cluster says of it."""
    others = (inventory.workers_driver, inventory.releases_driver, inventory.traffic_driver, inventory.ledger_driver)
    its = next((other.settings() for other in others if other.driver == DRIVER and "namespace" in other.settings()), {})
    return {name: value for name, value in its.items() if name in names}
