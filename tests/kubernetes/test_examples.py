"""The manifests in examples/kubernetes, as the API server takes them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils import create_from_dict

from rollout.adapters.documents.read import read_inventory
from tests.kubernetes.bed import ControlPlane

EXAMPLES = Path(__file__).parents[2] / "examples/kubernetes"


def _here(name: str, plane: ControlPlane) -> list[dict[str, Any]]:
    text = (EXAMPLES / name).read_text().replace("namespace: synapse", f"namespace: {plane.namespace}")
    return [one for one in yaml.safe_load_all(text.replace('namespace: "synapse"', f"namespace: {plane.namespace}")) if one]


@pytest.mark.parametrize("name", ["statefulsets.yaml", "deployments.yaml", "rbac.yaml", "job.yaml"])
def test_every_manifest_is_accepted(control_plane: ControlPlane, name: str) -> None:
    kinds = []
    with control_plane.api() as api:
        for one in _here(name, control_plane):
            if one["kind"] != "PersistentVolumeClaim":
                create_from_dict(api, one, namespace=control_plane.namespace)  # type: ignore[no-untyped-call]
            kinds.append(one["kind"])
    assert kinds


def test_inventory_and_manifests_speak_of_the_same(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker is a pod of a StatefulSet, and every pool a Service that chooses by the label which its template has."""
    monkeypatch.setenv("ROLLOUT_DSN", "postgresql://nobody@127.0.0.1:1/none")
    inventory = read_inventory(EXAMPLES / "inventory.yaml")
    manifests = _here("statefulsets.yaml", control_plane)
    sets = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "StatefulSet"}
    services = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "Service"}
    assert {f"{name}-{number}" for name, spec in sets.items() for number in range(spec["replicas"])} == set(inventory.workers)
    for spec in sets.values():
        assert "rollout.internal/admitted" not in services[spec["serviceName"]]["selector"]
        assert services[spec["serviceName"]]["publishNotReadyAddresses"] is True
    for worker, entry in inventory.workers.items():
        if entry.pool is not None:
            selector = services[inventory.pools[entry.pool].backend]["selector"]
            labels = sets[worker.rpartition("-")[0]]["template"]["metadata"]["labels"]
            assert selector["rollout.internal/admitted"] == "true"
            assert selector.items() <= labels.items()


def test_deployments_and_their_inventory_speak_of_the_same(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker is the one pod of a Deployment, with a Service of its own that chooses whatever the label says."""
    monkeypatch.setenv("ROLLOUT_DSN", "postgresql://nobody@127.0.0.1:1/none")
    inventory = read_inventory(EXAMPLES / "inventory-deployments.yaml")
    manifests = _here("deployments.yaml", control_plane)
    deployments = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "Deployment"}
    services = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "Service"}
    pods = inventory.workers_driver.settings()["pods"]
    assert isinstance(pods, dict)
    assert list(pods) == list(inventory.workers)
    assert [place.removeprefix("deployment/") for place in pods.values()] == list(deployments)
    for worker, entry in inventory.workers.items():
        name = pods[worker].removeprefix("deployment/")
        spec = deployments[name]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["replicas"] == 1
        assert "rollout.internal/admitted" not in spec["selector"]["matchLabels"]
        assert entry.url == f"http://{name}:8080"
        assert services[name]["publishNotReadyAddresses"] is True
        assert services[name]["selector"].items() <= labels.items()
        assert "rollout.internal/admitted" not in services[name]["selector"]
        assert entry.pool is not None
        selector = services[inventory.pools[entry.pool].backend]["selector"]
        assert selector["rollout.internal/admitted"] == "true"
        assert selector.items() <= labels.items()
