"""What an inventory says of HAProxy in pods: how the cluster is reached is said once, and what can't be meant is refused with its place."""

import subprocess
from pathlib import Path

import pytest

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.traffic import haproxy
from rollout.adapters.traffic.haproxy_pods import HaproxiesInPods
from rollout.engine.drivers import open_drivers
from rollout.interfaces.report.advice import by_hand
from rollout.model.errors import InvalidFileError
from rollout.model.ids import WorkerId
from rollout.model.inventory import DriverSettings
from rollout.ports.acts import TrafficActs
from rollout.ports.privileges import Grant

INVENTORY = """\
homeserver: example.org
workers:
  sync-0: {role: sync, pool: sync, url: "http://127.0.0.1:2", metrics: "http://127.0.0.1:2/m"}
pools: {sync: {backend: sync}}
workers_driver: WORKERS
releases_driver: {driver: kubernetes, namespace: synapse, image: "example.org/synapse:v{version}"}
traffic_driver: TRAFFIC
ledger_driver: {driver: kubernetes, namespace: synapse}
"""
IN_PODS = "{driver: haproxy, pods: {selector: app=haproxy%s}}"


def _opened(
    place: Path, traffic: str, workers: str = "{driver: kubernetes, namespace: synapse, selector: part-of=synapse}"
) -> HaproxiesInPods:
    (place / "inventory.yaml").write_text(INVENTORY.replace("WORKERS", workers).replace("TRAFFIC", traffic))
    found = open_drivers(read_inventory(place / "inventory.yaml")).traffic
    assert isinstance(found, HaproxiesInPods)
    return found


@pytest.mark.parametrize(("more", "namespace"), [("", "synapse"), (", namespace: ingress", "ingress")])
def test_it_is_looked_for_where_the_workers_are_unless_that_is_said(tmp_path: Path, more: str, namespace: str) -> None:
    """And nothing else is taken from there: the workers' own labels are none that HAProxy has."""
    traffic = _opened(tmp_path, IN_PODS % more)
    assert traffic.grants() == (Grant(namespace, "", "pods", ("list",)), Grant(namespace, "", "pods/portforward", ("get", "create")))
    assert not isinstance(traffic, TrafficActs), "no agent may be handed an act that is for a pod"


@pytest.mark.parametrize(
    ("traffic", "what"),
    [
        ("{driver: haproxy, pods: {port: 1999}}", "selector"),
        ("{driver: haproxy, pods: {selector: ''}}", "selector"),
        (IN_PODS % ", port: 0", "port"),
        (IN_PODS % ', port: "1999"', "port"),
        (IN_PODS % ", ports: 1999", "ports"),
        ("{driver: haproxy, pods: haproxy-0}", "pods"),
        ("{driver: haproxy, sockets: [/run/a.sock], pods: {selector: app=haproxy}}", "sockets"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, traffic: str, what: str) -> None:
    with pytest.raises(InvalidFileError, match=what):
        _opened(tmp_path, traffic)


def test_without_a_cluster_anywhere_a_namespace_is_asked_for(tmp_path: Path) -> None:
    _opened(tmp_path, IN_PODS % "")
    inventory = read_inventory(tmp_path / "inventory.yaml")
    elsewhere = DriverSettings(driver="command")
    without = inventory.model_copy(update={f"{name}_driver": elsewhere for name in ("workers", "releases", "ledger")})
    with pytest.raises(InvalidFileError, match="namespace"):
        haproxy.build({"pods": {"selector": "app=haproxy"}}, without)


def test_what_a_person_types_tells_every_pod(tmp_path: Path) -> None:
    """With nothing but kubectl and socat, which here write down what they are told."""
    _opened(tmp_path, IN_PODS % ", port: 1234", "{driver: kubernetes, namespace: synapse, context: there, pods: {sync-0: synapse-sync-0}}")
    (command,) = by_hand(read_inventory(tmp_path / "inventory.yaml"), WorkerId("sync-0"))
    programs = {
        "kubectl": 'echo "kubectl $*" >> said; case "$*" in *" get pods "*) echo pod/one; echo pod/two;; *) exec /bin/sleep 60;; esac',
        "socat": '{ echo "socat $*"; cat; } >> said',
        # As long as it takes until the one in the background has begun.
        "sleep": 'while [ "$(grep -c port-forward said)" -le "$(grep -c ^socat said)" ]; do /bin/sleep 0.05; done',
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True, timeout=60, capture_output=True)
    said = (tmp_path / "said").read_text().splitlines()
    assert said[0] == "kubectl --context there -n synapse get pods -l app=haproxy --field-selector status.phase=Running -o name"
    assert {f"kubectl --context there -n synapse port-forward pod/{pod} 19990:1234" for pod in ("one", "two")} < set(said)
    told = "set server sync/sync-0 weight 100%; set server sync/sync-0 state ready"
    assert [line for line in said if not line.startswith("kubectl")] == ["socat - TCP:127.0.0.1:19990", told] * 2
