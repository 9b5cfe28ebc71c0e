"""Whole rollouts of real Synapse workers in pods, with PostgreSQL, Valkey and users."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from rollout.lab.load.records import Outcome, Record
from tests.kubernetes.bed import standing
from tests.kubernetes.homeserver import ADMITTED
from tests.kubernetes.kubelet.node import node
from tests.kubernetes.rolling import watched
from tests.kubernetes.rolling_synapse import RollingSynapse
from tests.kubernetes.synapse import BAD, CLIENT, MAIN, NEW, OLD, PODS, REPLICAS, SYNC, image_of, synapse

# Seven to nine minutes together on two busy cores, once the three releases are installed, and 0.9 GB of memory.
pytestmark = pytest.mark.long
ROLLOUT_S = 1500
# What main answers itself, or writes for others: a Service holds nobody's requests while it restarts.
OF_MAIN = {"login_flows", "pushers", "account_data", "send"}


@pytest.fixture(scope="module")
def rolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RollingSynapse]:
    """Five workers on the older release. The test that leaves them on the newer one comes last."""
    place = tmp_path_factory.mktemp("pods")
    with (
        standing(place) as plane,
        node(plane.kubeconfig, plane.namespace, place / "node") as kubelet,
        synapse(plane, kubelet, place) as it,
    ):
        rolling = RollingSynapse(it.site, place, synapse=it, patience_s=ROLLOUT_S)
        rolling.install()
        yield rolling


def _made_of(rolling: RollingSynapse) -> dict[str, tuple[dict[str, Any], str]]:
    """Return every template and strategy, as plain objects."""
    api = rolling.site.apps.api_client
    found = {name: rolling.site.set(name) for name in REPLICAS}
    return {name: (api.sanitize_for_serialization(one.spec.template), one.spec.update_strategy.type) for name, one in found.items()}


def _assert_settled(rolling: RollingSynapse, version: str) -> None:
    """Everybody runs it by its own word and by its pod's, and is in."""
    assert rolling.synapse.versions() == dict.fromkeys(PODS, version)
    pods = {pod: rolling.site.pod(pod) for pod in PODS}
    assert {pod: one.spec.containers[0].image for pod, one in pods.items()} == dict.fromkeys(PODS, image_of(version))
    assert {pod: one.metadata.labels[ADMITTED] for pod, one in pods.items()} == dict.fromkeys(PODS, "true")
    assert all("rollout.internal/taken-over" not in (rolling.site.set(name).metadata.annotations or {}) for name in REPLICAS)


def _unhappy(records: list[Record]) -> list[Record]:
    """Return what wasn't answered as it should. There must have been requests of every kind."""
    count = Counter(one.kind for one in records if one.outcome is Outcome.OK)
    assert {"sync", "sync_initial", "sliding_sync", "messages", "members", "joined_rooms"} | OF_MAIN <= set(count), count
    return [one for one in records if one.outcome not in {Outcome.OK, Outcome.ENDED}]


def test_a_release_with_errors_goes_back_by_itself_and_nobody_is_cut(rolling: RollingSynapse) -> None:
    """The gate sees them in what the first pod itself counts; only that one ever ran it, and templates are as before to the letter."""
    before = _made_of(rolling)
    with rolling.load() as reports, watched(rolling.site, SYNC, CLIENT) as seen:
        done = rolling.run("deploy", "--to", BAD, "--yes")
    assert done.code == 3, done.text
    assert "errors" in done.text
    assert set(rolling.restarted()) == {f"{CLIENT}-0"}
    assert seen.ready_min == {SYNC: 2, CLIENT: 1}
    unhappy = _unhappy(reports[0].records)
    assert [one for one in unhappy if one.outcome is not Outcome.RELEASE_ERROR] == []
    # The faults that the release has, where it was let in.
    assert {one.pool for one in unhappy} == {"client"}
    assert reports[0].lost_events == 0
    _assert_settled(rolling, OLD)
    assert _made_of(rolling) == before


def test_real_workers_are_rolled_one_pod_at_a_time_and_only_main_is_missed(rolling: RollingSynapse) -> None:
    """
    Order by role, one out of each pool, the schema by a Job of the new image, and no request cut but main's while it restarts.

    Nothing can hold those with Services (docs/kubernetes.md): they are counted apart, and there must be none outside that time.
    """
    before = _made_of(rolling)
    with rolling.load() as reports, watched(rolling.site, SYNC, CLIENT) as seen:
        done = rolling.run("deploy", "--to", NEW, "--yes")
    assert done.code == 0, done.text
    assert rolling.restarted() == [f"{CLIENT}-0", f"{CLIENT}-1", f"{SYNC}-0", f"{SYNC}-1", f"{MAIN}-0"]
    assert seen.ready_min == {SYNC: 1, CLIENT: 1}
    _assert_settled(rolling, NEW)
    jobs: Any = client.BatchV1Api(rolling.site.apps.api_client).list_namespaced_job(rolling.site.plane.namespace)
    migrated = {
        one.metadata.name: one.status.succeeded for one in jobs.items if one.spec.template.spec.containers[0].image == image_of(NEW)
    }
    assert list(migrated.values()) == [1]
    assert next(iter(migrated)).startswith("rollout-migrate-")

    from_s, to_s = rolling.was_away(f"{MAIN}-0")
    unhappy = _unhappy(reports[0].records)
    missed = [one for one in unhappy if one.kind in OF_MAIN and one.ended_s >= from_s and one.began_s <= to_s]
    assert [one for one in unhappy if one not in missed] == []
    assert {one.outcome for one in missed} == {Outcome.CUT}
    assert any(one.pool == "main" for one in missed)
    assert (reports[0].lost_events, reports[0].duplicate_events) == (0, 0)
    assert reports[0].sent_events > 0

    for name, (template, strategy) in _made_of(rolling).items():
        earlier, earlier_strategy = before[name]
        assert strategy == earlier_strategy
        assert template.pop("metadata")["labels"] == earlier.pop("metadata")["labels"]
        assert template["spec"]["containers"][0].pop("image") == image_of(NEW)
        assert earlier["spec"]["containers"][0].pop("image") == image_of(OLD)
        assert template == earlier
