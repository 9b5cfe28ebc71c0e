"""Which images are the homeserver's, and what is run in Jobs."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.releases.artefacts import MIGRATION, PROBE
from rollout.adapters.settings import refused

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
PLACE = "{version}"


def _has_a_place(pattern: str) -> str:
    if pattern.count(PLACE) != 1:
        raise refused("image must say where the version stands, once", f"ghcr.io/element-hq/synapse:v{PLACE}")
    return pattern


class ReleasesSettings(ClusterSettings):
    """
    *image*: how the homeserver's image is called, with {version} in it; containers with other images are left alone. *images*: those of
    versions that are called otherwise, by a digest for instance; if it is there, no other version can be had. *store*: the ConfigMap that
    says which releases were prepared. *facts* prints what an image is, *migrate* brings the database to it: both in a container of the
    image that is as main's. *cp_max*: how many database connections a worker may open, the largest of them, as `database.args.cp_max` has
    it: in a cluster that is in Secrets, which are not ours to read.
    """

    image: Annotated[str, AfterValidator(_has_a_place)]
    images: dict[str, str] = Field(default={})
    store: str = Field(default="rollout-releases", min_length=1)
    cp_max: Annotated[int, Field(ge=1)] | None = None
    facts: tuple[str, ...] = ("python3", "-c", PROBE)
    migrate: tuple[str, ...] = ("python3", *MIGRATION, "--database-config", "/conf/homeserver.yaml", "--run-background-updates")

    def image_of(self, version: str) -> str | None:
        """Return the image of a version; None if there is none."""
        if self.images:
            return self.images.get(version)
        return self.image.replace(PLACE, version)

    def version_in(self, image: str) -> str | None:
        """Return the version that an image is of; None for one that isn't the homeserver's."""
        named: Mapping[str, str] = {one: version for version, one in self.images.items()}
        if image in named:
            return named[image]
        before, _, after = self.image.partition(PLACE)
        text = _DIGEST.sub("", image)
        whole = re.fullmatch(f"{re.escape(before)}([A-Za-z0-9][A-Za-z0-9._+-]*){re.escape(after)}", text)
        return None if whole is None else whole[1]
