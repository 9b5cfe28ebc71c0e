"""What an inventory says of HAProxy in pods: how the cluster is reached is said once, and what can't be meant is refused with its place."""

from pathlib import Path

import pytest

from rollout.adapters.documents.read import read_inventory
from rollout.adapters.traffic import haproxy
from rollout.adapters.traffic.haproxy_pods import HaproxiesInPods
from rollout.engine.drivers import open_drivers
from rollout.model.errors import InvalidFileError
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
