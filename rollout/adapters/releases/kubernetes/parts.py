"""
What is ours in a workload's template, and which release that is.

A template is a release if it is what was written down of it, to the letter. One of which nothing was is a release too, the one that
somebody else put there: known by its images and by everything else in the templates, and called by the version of its image. But not while
a workload is taken over by us: what isn't known then is somebody's edit in the middle of a rollout.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout.adapters.kubernetes.cluster import Object
from rollout.adapters.kubernetes.objects import RELEASE, annotation, digest, images_in, managers_of
from rollout.adapters.kubernetes.objects import rest_of as rest_of_template
from rollout.adapters.kubernetes.places import key_of
from rollout.adapters.kubernetes.told import is_taken_over
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.model.ids import ReleaseId
from rollout.model.release import Release, make_release


@dataclass(frozen=True, slots=True)
class Part:
    """A release in one workload: *images* by container, our annotation (*mark*, None if there is none), and a digest of the *rest*."""

    images: dict[str, str]
    mark: str | None
    rest: str


@dataclass(frozen=True, slots=True)
class Record:
    """A release, and what of it is in which workload, by its key (places.key_of)."""

    release: Release
    parts: dict[str, Part]


Records = Mapping[ReleaseId, Record]


def part_of(workload: Object, settings: ReleasesSettings) -> Part | None:
    """Return what a workload's template is now; None for one in which nothing is the homeserver's."""
    return part_in(workload["spec"]["template"], settings)


def part_in(template: Object, settings: ReleasesSettings) -> Part | None:
    """Return what a template is; None for one in which nothing is the homeserver's."""
    ours = {name: image for name, image in images_in(template).items() if settings.version_in(image) is not None}
    return Part(ours, annotation(template, RELEASE), rest_of_template(template)) if ours else None


def with_image(part: Part, release: ReleaseId, image: str) -> Part:
    """Return the part of another release in the same workload."""
    return Part(dict.fromkeys(part.images, image), mark=release, rest=part.rest)


def parts_of(workloads: Iterable[Object], settings: ReleasesSettings) -> dict[str, Part]:
    found = {key_of(one): part_of(one, settings) for one in workloads}
    return {name: part for name, part in found.items() if part is not None}


def lock_of(image: str) -> str:
    return hashlib.sha256(f"kubernetes {image}".encode()).hexdigest()


def config_of(parts: Mapping[str, Part]) -> str:
    """Name the configuration of a homeserver, as far as its templates say it."""
    return digest(sorted((name, part.rest) for name, part in parts.items()))


def adopted(workloads: Sequence[Object], known: Records, settings: ReleasesSettings) -> dict[ReleaseId, Record]:
    """Name the releases that somebody else has put into templates, and of which nothing is *known*."""
    every = parts_of(workloads, settings)
    config = config_of(every)
    ours = {key_of(one) for one in workloads if is_taken_over(one)}
    found: dict[ReleaseId, Record] = {}
    for name, part in every.items():
        if name in ours or any(record.parts.get(name) == part for record in known.values()):
            continue
        release = _release_in(part, config, settings)
        before = found.get(release.id)
        found[release.id] = Record(release, {**(before.parts if before is not None else {}), name: part})
    return found


def _release_in(part: Part, config: str, settings: ReleasesSettings) -> Release:
    image = next(iter(part.images.values()))
    return make_release(settings.version_in(image) or "unknown", lock_of(image), config)


def which(workload: Object, part: Part, records: Records) -> ReleaseId:
    """Return the release that a template is; one that is nobody's is named by who has edited it."""
    name = key_of(workload)
    return next((release for release, record in records.items() if record.parts.get(name) == part), edited(workload, part))


def edited(workload: Object, part: Part) -> ReleaseId:
    """Name what somebody else has made of a template, so that whoever reads it knows whom to ask."""
    latest = managers_of(workload)
    who = f"by-{latest[0][0]}-at-{latest[0][1]}" if latest else "by-somebody"
    return ReleaseId(f"edited-{who}-{digest([part.images, part.mark, part.rest])[:8]}")
