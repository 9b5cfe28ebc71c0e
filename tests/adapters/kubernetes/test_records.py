"""What is written down of prepared releases, and found again."""

from collections.abc import Iterator

import pytest

from rollout.adapters.kubernetes.cluster import Cluster, Door
from rollout.adapters.kubernetes.kinds import CONFIG_MAPS
from rollout.adapters.releases.kubernetes.parts import Part, Record
from rollout.adapters.releases.kubernetes.records import KEPT_MAX, keep, records_in
from rollout.model.ids import ReleaseId
from rollout.model.release import make_release
from tests.kubernetes.bed import ControlPlane

STORE = "rollout-releases"


@pytest.fixture
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    it = Cluster(Door(control_plane.namespace, str(control_plane.kubeconfig)))
    yield it
    it.close()


def _record(version: str) -> Record:
    return Record(make_release(version, "", ""), {"sync": Part({"synapse": f"example.org/synapse:v{version}"}, None, "")})


def _kept(cluster: Cluster) -> dict[ReleaseId, Record]:
    return records_in(cluster.get(CONFIG_MAPS, STORE, 10.0), STORE)


def test_a_version_may_have_letters_that_no_entry_may_have(cluster: Cluster) -> None:
    record = _record("1.163.2+build~3")
    for _ in range(2):
        keep(cluster, STORE, {record.release.id: record}, lambda _: False)
    assert _kept(cluster) == {record.release.id: record}


def test_of_too_many_those_go_that_nobody_needs(cluster: Cluster) -> None:
    records = {record.release.id: record for record in (_record(f"1.0.0+{number:02}") for number in range(KEPT_MAX))}
    keep(cluster, STORE, records, lambda _: True)
    first, *_, last = records
    one = _record("2.0.0")
    keep(cluster, STORE, {one.release.id: one}, lambda name: name != last)
    assert set(_kept(cluster)) == {*records, one.release.id} - {last}
    assert first in _kept(cluster)
