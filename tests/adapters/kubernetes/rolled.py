"""A homeserver of small pods, with the drivers that roll it."""

from dataclasses import dataclass

from rollout.adapters.releases.kubernetes.driver import KubernetesReleases
from rollout.adapters.workers.kubernetes import KubernetesWorkers
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from tests.kubernetes.homeserver import Homeserver

TIMEOUT_S = 60.0


@dataclass(slots=True)
class Rolled:
    """*base* is what runs at first."""

    site: Homeserver
    workers: KubernetesWorkers
    releases: KubernetesReleases
    base: ReleaseId

    def has(self, version: str) -> Release:
        return self.releases.prepare(self.releases.identify(version, None, self.base, next_generation=False), TIMEOUT_S)

    def roll(self, worker: WorkerId, release: ReleaseId, timeout_s: float = TIMEOUT_S) -> None:
        self.releases.activate(worker, release)
        self.workers.replace(worker, timeout_s)
