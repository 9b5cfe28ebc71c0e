"""What a pod runs that nobody can tell, and templates that the API server wouldn't take."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rollout.adapters.kubernetes.objects import TOLD
from rollout.adapters.releases.kubernetes.driver import KubernetesReleases
from rollout.adapters.releases.kubernetes.settings import ReleasesSettings
from rollout.adapters.releases.kubernetes.trying import TRIED_MAX
from rollout.model.codec import to_plain
from rollout.model.errors import DriverError, PermanentDriverError
from rollout.model.ids import ReleaseId, WorkerId
from tests.adapters.kubernetes.canned import Answer, Canned, canned, listed, no_such

IMAGE = "example.org/synapse:v{version}"
SYNC0 = WorkerId("sync-0")


class Place:
    """
    StatefulSets by their names, with the labels of their templates, and *others*, that aren't the homeserver's; the one that is there at
    first has a pod, and nothing was prepared. *patching* is what a patch is answered, and *allowed* what a review of it is.
    """

    def __init__(self) -> None:
        self.sets: dict[str, dict[str, str]] = {"sync": {}}
        self.image = "example.org/synapse:v1.0.0"
        self.annotations: dict[str, str] = {}
        self.patching: Answer = 200, {}
        self.others: tuple[str, ...] = ()
        self.allowed = False
        self.store: Answer = no_such("rollout-releases")
        self.server: Canned

    def answer(self, method: str, path: str, _: dict[str, Any]) -> Answer:
        if method == "PATCH":
            return self.patching
        if "/configmaps/" in path:
            return self.store
        if "accessreviews" in path:
            return 200, {"status": {"allowed": self.allowed}}
        spec = {"containers": [{"name": "synapse", "image": "example.org/synapse:v1.0.0"}]}
        if "/pods" in path:
            metadata = {"name": "sync-0", "uid": "second", "creationTimestamp": "2026-01-01T00:00:00Z"}
            return listed({"metadata": metadata, "spec": {"containers": [{"name": "synapse", "image": self.image}]}, "status": {}})
        about: dict[str, Any] = {"resourceVersion": "7", "annotations": self.annotations}
        templates = {name: {"metadata": {"labels": labels}, "spec": spec} for name, labels in self.sets.items()}
        made = [
            {"metadata": {**about, "name": name}, "spec": {"replicas": number, "template": template}, "status": {}}
            for number, (name, template) in enumerate(templates.items(), 1)
        ]
        other = {"spec": {"containers": [{"name": "other", "image": "example.org/other:v1"}]}}
        apart = {name: {**other, "metadata": {"labels": {"shard": name}}} for name in self.others}
        others = [{"metadata": {"name": name}, "spec": {"template": template}} for name, template in apart.items()]
        return listed(*others, *made)

    @property
    def releases(self) -> KubernetesReleases:
        return KubernetesReleases(ReleasesSettings.model_validate({**self.server.settings, "image": IMAGE}), SYNC0, [SYNC0])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    it = Place()
    with canned(tmp_path, it.answer) as server:
        it.server = server
        yield it


def _told(place: Place) -> ReleaseId:
    """Have the pod of before been told to run what the template is."""
    (base,) = place.releases.prepared()
    place.annotations = {TOLD: json.dumps({SYNC0: {"release": base, "at_s": 1000.0, "uid": "first"}})}
    return base


def test_a_younger_pod_of_the_told_release_runs_it(place: Place) -> None:
    base = _told(place)
    found = place.releases.activations([SYNC0])[SYNC0]
    assert (found.release, found.at_s) == (base, 1000.0)


def test_a_younger_pod_of_which_nobody_knows_the_release_is_not_taken_for_the_told_one(place: Place) -> None:
    """Neither has it a revision, nor has the StatefulSet: those aren't equal, either."""
    _told(place)
    place.image = "example.org/else:v1"
    assert place.releases.activations([SYNC0])[SYNC0].release is None


def test_who_may_not_write_may_still_plan(place: Place) -> None:
    (base,) = place.releases.prepared()
    place.patching = 403, {"kind": "Status", "reason": "Forbidden", "message": "no"}
    assert place.releases.identify("2.0.0", None, base, next_generation=False).version == "2.0.0"


def test_of_templates_that_are_alike_a_plan_asks_about_one(place: Place) -> None:
    """But for their names, and how many pods they have."""
    place.sets = {**{name: {"app": name} for name in ("sync", "client", "media")}, "main": {"app": "main", "role": "main"}}
    (base,) = place.releases.prepared()
    place.releases.identify("2.0.0", None, base, next_generation=False)
    assert place.server.did("PATCH") == ["sync", "main"]


def test_of_many_templates_a_plan_asks_about_some(place: Place) -> None:
    place.sets = {f"sync-{number}": {"shard": str(number)} for number in range(25)}
    (base,) = place.releases.prepared()
    place.releases.identify("2.0.0", None, base, next_generation=False)
    assert len(place.server.did("PATCH")) == TRIED_MAX


def test_what_is_not_the_homeservers_is_not_asked_about(place: Place) -> None:
    place.others = tuple(f"postgresql-{number}" for number in range(TRIED_MAX))
    (base,) = place.releases.prepared()
    place.releases.identify("2.0.0", None, base, next_generation=False)
    assert place.server.did("PATCH") == ["sync"]


def test_a_policy_that_forbids_the_template_is_not_taken_for_a_lack_of_rights(place: Place) -> None:
    (base,) = place.releases.prepared()
    place.patching, place.allowed = (403, {"kind": "Status", "reason": "Forbidden", "message": "denied: that image isn't signed"}), True
    with pytest.raises(PermanentDriverError, match="the template of StatefulSet sync would not be accepted") as told:
        place.releases.identify("2.0.0", None, base, next_generation=False)
    assert "that image isn't signed" in told.value.why


def test_whoever_prepares_asks_about_each_template(place: Place) -> None:
    place.sets = {f"sync-{number}": {} for number in range(25)}
    (base,) = place.releases.prepared()
    release = place.releases.identify("2.0.0", None, base, next_generation=False)
    before = len(place.server.did("PATCH"))
    # The answers have no Job whose log would say what the image is.
    with pytest.raises(DriverError):
        place.releases.prepare(release, 1.0)
    assert (before, sorted(place.server.did("PATCH")[before:])) == (1, sorted(place.sets))


def test_a_release_that_was_prepared_before_is_tried_again(place: Place) -> None:
    """What the cluster would take may have changed since."""
    (base,) = place.releases.prepared()
    release = replace(place.releases.identify("2.0.0", None, base, next_generation=False), schema_version=90)
    part = {"images": {"synapse": IMAGE.format(version="2.0.0")}, "mark": release.id, "rest": "…"}
    entry = json.dumps({"release": to_plain(release), "parts": {"statefulset/sync": part}})
    place.store = 200, {"metadata": {"name": "rollout-releases"}, "data": {release.id: entry}}
    assert place.releases.prepare(release, 1.0) == release
    place.patching = 422, {"kind": "Status", "reason": "Invalid", "message": "policy: that image isn't signed"}
    with pytest.raises(PermanentDriverError, match="the template of StatefulSet sync would not be accepted"):
        place.releases.prepare(release, 1.0)


def test_a_template_that_is_refused_is_refused_whatever_numbers_are_in_it(place: Place) -> None:
    (base,) = place.releases.prepared()
    place.patching = 422, {"kind": "Status", "reason": "Invalid", "message": "policy: example.org/synapse:v1.403.0 isn't signed"}
    with pytest.raises(PermanentDriverError, match="the template of StatefulSet sync would not be accepted"):
        place.releases.identify("1.403.0", None, base, next_generation=False)


def test_how_many_connections_a_worker_may_open_is_what_the_inventory_says(place: Place) -> None:
    """Configurations lie in Secrets: without a word in the inventory it isn't known of anybody, and a preflight refuses."""
    (base,) = place.releases.prepared().values()
    assert place.releases.connections(base, [SYNC0]) == {}
    settings = ReleasesSettings.model_validate({**place.server.settings, "image": IMAGE, "cp_max": 10})
    assert KubernetesReleases(settings, SYNC0, [SYNC0]).connections(base, [SYNC0]) == {SYNC0: 10}
