"""Which cluster, as whom, and which namespace."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import Field

from rollout.adapters.settings import FilePath, Settings, check
from rollout.model.inventory import DriverSettings, Inventory

DRIVER = "kubernetes"
# What a driver takes from another one's settings, so that it is written once.
_SHARED = ("namespace", "context", "kubeconfig", "selector", "pods")


class ClusterSettings(Settings):
    """
    *namespace*: where the homeserver is. *kubeconfig* and *context*: how the cluster is reached, as kubectl reaches it; inside a cluster,
    and without either, by the pod's own service account. *selector*: labels that all workloads and pods of the homeserver have. *pods*:
    the pods of workers whose name is another.
    """

    namespace: str = Field(min_length=1)
    kubeconfig: FilePath | None = None
    context: str | None = None
    selector: str = ""
    pods: dict[str, str] = Field(default={})

    def pod_of(self, worker: str) -> str:
        """Return the name of a worker's pod."""
        return self.pods.get(worker, worker)


_Checked = TypeVar("_Checked", bound=ClusterSettings)


def read_settings(kind: type[_Checked], settings: Mapping[str, object], inventory: Inventory, where: str) -> _Checked:
    """Check settings; what they don't say of the cluster is what another driver of this inventory says. Raises InvalidSettingsError."""
    others = (inventory.workers_driver, inventory.releases_driver, inventory.traffic_driver, inventory.ledger_driver)
    shared = next((_shared(other) for other in others if other.driver == DRIVER and "namespace" in other.settings()), {})
    return check(kind, {**shared, **settings}, where)


def _shared(driver: DriverSettings) -> dict[str, object]:
    return {name: value for name, value in driver.settings().items() if name in _SHARED}
