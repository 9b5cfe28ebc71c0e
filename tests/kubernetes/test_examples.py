"""The manifests in examples/kubernetes, as the API server takes them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils import create_from_dict

from rollout.adapters.documents.read import read_inventory
from rollout.engine.drivers import open_drivers
from rollout.lab.programs import haproxy_binary
from tests.contracts.proxy import HOLD_LUA
from tests.kubernetes.bed import ControlPlane

EXAMPLES = Path(__file__).parents[2] / "examples/kubernetes"


def _here(name: str, plane: ControlPlane) -> list[dict[str, Any]]:
    text = (EXAMPLES / name).read_text().replace("namespace: synapse", f"namespace: {plane.namespace}")
    return [one for one in yaml.safe_load_all(text.replace('namespace: "synapse"', f"namespace: {plane.namespace}")) if one]


@pytest.mark.parametrize("name", ["statefulsets.yaml", "deployments.yaml", "haproxy.yaml", "rbac.yaml", "job.yaml"])
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


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("inventory*.yaml")), ids=lambda path: path.stem)
def test_whoever_has_a_database_says_how_many_connections_a_worker_opens(path: Path) -> None:
    """Without it every rollout is refused: nobody knows whether there is room for a restart."""
    said = yaml.safe_load(path.read_text())
    assert said["database_driver"]
    assert said["releases_driver"]["cp_max"] > 0


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


def test_haproxy_and_its_inventory_speak_of_the_same(control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each worker of a pool is a server of its backend by the name of its pod, and HAProxy itself accepts its configuration."""
    monkeypatch.setenv("ROLLOUT_DSN", "postgresql://nobody@127.0.0.1:1/none")
    inventory = read_inventory(EXAMPLES / "inventory-haproxy.yaml")
    manifests = {(one["kind"], one["metadata"]["name"]): one for one in _here("haproxy.yaml", control_plane)}
    deployment = manifests["Deployment", "synapse-haproxy"]["spec"]
    text = manifests["ConfigMap", "synapse-haproxy"]["data"]["haproxy.cfg"]
    servers: dict[str, dict[str, str]] = {}
    for line in map(str.split, text.splitlines()):
        if line[:1] == ["backend"]:
            servers[line[1]] = {}
        elif line[:1] == ["server"]:
            servers[list(servers)[-1]][line[1]] = line[2]
    named = {
        pool: {
            worker: f"{worker}.{worker.rpartition('-')[0]}.synapse.svc.cluster.local:8008"
            for worker, its in inventory.workers.items()
            if its.pool == pool
        }
        for pool in inventory.pools
    }
    assert servers == {entry.backend: named[pool] for pool, entry in inventory.pools.items()}
    pods = inventory.traffic_driver.settings()["pods"]
    assert isinstance(pods, dict)
    wanted = dict([pods["selector"].split("=")])
    assert wanted == deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert manifests["Service", "synapse-haproxy"]["spec"]["selector"] == wanted
    assert f"stats socket ipv4@127.0.0.1:{pods['port']} level admin" in text
    grants = [one for one in open_drivers(inventory).traffic.grants() if one.resource == "pods/portforward"]  # type: ignore[attr-defined]
    assert [one.verbs for one in grants] == [("get", "create")]
    mounts = {one["name"]: one["mountPath"] for one in deployment["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert f"lua-load {mounts['hold']}/hold.lua" in text
    (tmp_path / "haproxy.cfg").write_text(text.replace(f"{mounts['hold']}/hold.lua", str(HOLD_LUA)))
    checked = subprocess.run([haproxy_binary(), "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "WARNING" not in checked.stderr
