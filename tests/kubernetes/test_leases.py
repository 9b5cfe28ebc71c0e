"""What a Lease is to us: one holder at a time, by the resourceVersion alone. https://kubernetes.io/docs/concepts/architecture/leases/."""

import pytest

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import hand, refused
from tests.kubernetes.kubelet.api import Object

_TIME = "2026-01-01T00:00:00.000001Z"


def _lease(name: str, holder: str, **more: object) -> Object:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": _TIME, "acquireTime": _TIME, "leaseTransitions": 0}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec | more}


def test_of_two_takers_the_second_is_refused(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    seen = it.create(_lease("a", "nobody"))
    version = {"metadata": seen["metadata"]}
    taken = it.put(_lease("a", "first", leaseTransitions=1) | version)
    assert taken["spec"]["holderIdentity"] == "first"
    with refused(409, "Conflict"):
        it.put(_lease("a", "second", leaseTransitions=1) | version)
    assert it.get("Lease", "a")["spec"]["holderIdentity"] == "first"


def test_lease_is_not_written_blindly(control_plane: ControlPlane) -> None:
    """A PUT without a version is refused where most other kinds take it; one of a Lease that isn't there makes it."""
    it = hand(control_plane)
    it.put(_lease("a", "first"))
    with refused(422, "Invalid") as told:
        it.put(_lease("a", "second"))
    assert told["details"]["causes"][0]["field"] == "metadata.resourceVersion"
    assert it.get("Lease", "a")["spec"]["holderIdentity"] == "first"


def test_times_have_six_digits_and_are_given_back_in_utc(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    made = it.create(_lease("a", "x", renewTime="2026-01-01T02:00:00.250000+02:00"))
    assert made["spec"]["renewTime"] == "2026-01-01T00:00:00.250000Z"
    with refused(400, "BadRequest"):
        it.create(_lease("b", "x", renewTime="2026-01-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("more", "field"),
    [({"leaseDurationSeconds": 0}, "spec.leaseDurationSeconds"), ({"leaseTransitions": -1}, "spec.leaseTransitions")],
)
def test_impossible_leases(control_plane: ControlPlane, more: dict[str, object], field: str) -> None:
    it = hand(control_plane)
    with refused(422, "Invalid") as told:
        it.create(_lease("a", "x", **more))
    assert told["details"]["causes"][0]["field"] == field
