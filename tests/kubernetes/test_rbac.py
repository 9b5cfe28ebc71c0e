"""`rollout rbac`: what it prints is what is needed, asked of the API server itself."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rollout.adapters.documents.read import read_inventory
from rollout.engine.drivers import Drivers, open_drivers
from rollout.interfaces.cli import cli
from rollout.ports.privileges import Granted
from tests.kubernetes.bed import ControlPlane

INVENTORY = """\
homeserver: example.org
workers:
  main-0: {{role: main, url: "http://127.0.0.1:1", metrics: "http://127.0.0.1:1/m"}}
  sync-0: {{role: sync, pool: sync, url: "http://127.0.0.1:2", metrics: "http://127.0.0.1:2/m"}}
  sync-1: {{role: sync, pool: sync, url: "http://127.0.0.1:3", metrics: "http://127.0.0.1:3/m"}}
pools: {{sync: {{backend: sync}}}}
workers_driver: {{driver: kubernetes, namespace: {namespace}, kubeconfig: {kubeconfig}}}
releases_driver: {{driver: kubernetes, image: "example.org/synapse:v{{version}}"}}
traffic_driver: {{driver: kubernetes}}
ledger_driver: {{driver: kubernetes}}
"""


OF_DEPLOYMENTS = """\
homeserver: example.org
workers:
  main: {{role: main, url: "http://127.0.0.1:1", metrics: "http://127.0.0.1:1/m"}}
  sync0: {{role: sync, pool: sync, url: "http://127.0.0.1:2", metrics: "http://127.0.0.1:2/m"}}
pools: {{sync: {{backend: sync}}}}
workers_driver:
  driver: kubernetes
  namespace: {namespace}
  kubeconfig: {kubeconfig}
  pods: {{main: deployment/synapse-main, sync0: deployment/synapse-sync0}}
releases_driver: {{driver: kubernetes, image: "example.org/synapse:v{{version}}"}}
traffic_driver: {{driver: kubernetes}}
ledger_driver: {{driver: kubernetes}}
"""

BEHIND_HAPROXY = INVENTORY.replace(
    "traffic_driver: {{driver: kubernetes}}", "traffic_driver: {{driver: haproxy, pods: {{selector: app=haproxy}}}}"
)


def _drivers(plane: ControlPlane, kubeconfig: Path, place: Path, inventory: str = INVENTORY) -> Drivers:
    place.write_text(inventory.format(namespace=plane.namespace, kubeconfig=kubeconfig))
    return open_drivers(read_inventory(place))


def _missing(drivers: Drivers) -> set[str]:
    """Return what isn't granted, by what the API server lists as by what it says of each."""
    every = (drivers.workers, drivers.releases, drivers.traffic, drivers.ledger, drivers.lease)
    granted = [one for one in every if isinstance(one, Granted)]
    assert len(granted) == len(every)
    quickly, thoroughly = ({line for one in granted for line in one.not_granted(20, thorough=how)} for how in (False, True))
    assert quickly == thoroughly
    return thoroughly


@pytest.fixture(params=[INVENTORY, OF_DEPLOYMENTS, BEHIND_HAPROXY], ids=["stateful_sets", "deployments", "haproxy"])
def inventory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rules(control_plane: ControlPlane, tmp_path: Path, inventory: str) -> list[dict[str, list[str]]]:
    _drivers(control_plane, control_plane.kubeconfig, tmp_path / "inventory.yaml", inventory)
    said = CliRunner().invoke(cli, ["rbac", "-i", str(tmp_path / "inventory.yaml")], catch_exceptions=False)
    account, role, binding = yaml.safe_load_all(said.stdout)
    assert [one["kind"] for one in (account, role, binding)] == ["ServiceAccount", "Role", "RoleBinding"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "rollout", "namespace": control_plane.namespace}]
    return list(role["rules"])


def test_what_it_prints_is_enough(control_plane: ControlPlane, rules: list[dict[str, list[str]]], tmp_path: Path, inventory: str) -> None:
    kubeconfig = control_plane.account("rollout", rules)
    assert _missing(_drivers(control_plane, kubeconfig, tmp_path / "mine.yaml", inventory)) == set()


def test_every_rule_of_it_is_needed(control_plane: ControlPlane, rules: list[dict[str, list[str]]], tmp_path: Path, inventory: str) -> None:
    """Without any one of them something is missed, and named."""
    for number, rule in enumerate(rules):
        kubeconfig = control_plane.account(f"without-{number}", [one for one in rules if one is not rule])
        missing = _missing(_drivers(control_plane, kubeconfig, tmp_path / f"{number}.yaml", inventory))
        assert missing, rule
        assert all(rule["resources"][0] in line for line in missing)


@pytest.mark.parametrize("inventory", [OF_DEPLOYMENTS])
def test_of_deployments_it_is_the_named_ones_and_no_pod_is_deleted(rules: list[dict[str, list[str]]]) -> None:
    """Their pods have no names that could be written down; nothing of StatefulSets is asked for where there are none."""
    apps = {(*rule["resources"], *rule["verbs"]): rule.get("resourceNames") for rule in rules if rule["apiGroups"] == ["apps"]}
    assert apps == {
        ("deployments", "list"): None,
        ("deployments", "get", "patch"): ["synapse-main", "synapse-sync0"],
        ("replicasets", "list"): None,
    }
    pods = {(rule["resources"][0], verb) for rule in rules for verb in rule["verbs"] if rule["resources"][0].startswith("pods")}
    assert pods == {("pods", "get"), ("pods", "list"), ("pods", "patch"), ("pods/eviction", "create"), ("pods/log", "get")}


@pytest.mark.parametrize("inventory", [INVENTORY])
def test_objects_of_others_are_not_touched(rules: list[dict[str, list[str]]]) -> None:
    """What changes something names the object, wherever that can be said; nothing of Secrets is asked for."""
    changing = [rule for rule in rules if not {"patch", "delete", "update"}.isdisjoint(rule["verbs"]) and rule["resources"] != ["jobs"]]
    assert changing
    assert all(rule.get("resourceNames") for rule in changing)
    assert {resource for rule in rules for resource in rule["resources"]} == {
        "statefulsets",
        "pods",
        "pods/eviction",
        "pods/log",
        "events",
        "configmaps",
        "jobs",
        "services",
        "endpointslices",
        "leases",
    }
