"""What is asked of releases on hosts in the same way, however they are made there."""

from collections.abc import Sequence

from rollout.adapters.releases.configuration import pools_in, settings_in
from rollout.adapters.releases.on_hosts.site import Site
from rollout.model.errors import PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.release import Release
from rollout.ports.releases import Activation


class LookingOnHosts:
    """The part of ports.releases and ports.acts.ReleasesActs that only looks. For use by several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def prepared(self) -> dict[ReleaseId, Release]:
        """See ports.releases."""
        return self._site.prepared()

    def link_of(self, worker: WorkerId) -> str:
        """See ports.acts. On the worker's host."""
        return str(self._site.target / "current" / worker)

    def activations(self, workers: Sequence[WorkerId]) -> dict[WorkerId, Activation]:
        """See ports.releases. One host that can't be asked makes the whole look fail."""
        return self._site.activations(workers)

    def connections(self, release: Release, workers: Sequence[WorkerId]) -> dict[WorkerId, int]:
        """See ports.releases."""
        try:
            return pools_in(self._site.configuration(release.config_digest), workers, self._site.where)
        except PermanentDriverError:
            return {}

    def close(self) -> None:
        """End the connections that no other driver uses."""
        self._site.close()

    def _shared(self, config: str) -> dict[str, object]:
        """Return what homeserver.yaml of a configuration says."""
        return settings_in(self._site.configuration(config), f"configuration {config[:12]}")
