"""
What it costs to plan a rollout of 500 pods: the looks that a plan is made of, identifying the release, planning, and what is asked before
anybody is told that it could begin.

The API server is the stand-in of the tests, and the account has what `rollout rbac` prints. No two StatefulSets are alike, so as many
templates are tried as a plan ever tries. Pods are Ready because a hand-made status says so, and nobody is in them: health and metrics,
which are no requests to the API server, are answered in this process. *plan s* is all of it; the first time it is with the client's import
and a new connection. *requests* are those that the API server had of it: *lists*, *dry runs*, and others (ConfigMaps, and what our rights
are). *to deploy* are those of the same where `deploy` and `preflight` do it, which ask about each right.
"""

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner
from kubernetes import client

from rollout.adapters.clock.system import SystemClock
from rollout.adapters.documents.read import read_inventory, read_playbook
from rollout.engine.drivers import Drivers, open_drivers
from rollout.engine.readiness import Readiness, Seen
from rollout.interfaces.cli import cli
from rollout.lab.processes import wait_until
from rollout.model.gate import Measured
from rollout.model.ids import WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, steps_of
from rollout.model.playbook import Playbook
from rollout.model.sample import Page, Sample
from rollout.planning.planner import make_plan
from rollout.planning.preflight import Findings
from rollout.ports.probe import Answer
from tests.kubernetes.bed import ControlPlane, standing
from tests.kubernetes.homeserver import ADMITTED, IMAGE, stateful_set
from tests.kubernetes.rolling import PLAYBOOK

SETS, EACH = 25, 20
VERSION, WANTED = "2.0.0", "2.1.0"
TIMES = 4
PLAN_S_MAX, REQUESTS_MAX = 2.0, 20
MADE_S = 300
NODE = "bench"
BEGAN_S = 1_700_000_000.0

Row = dict[str, object]


class Metrics:
    """Pages of workers that nobody runs."""

    def read(self, workers: Collection[WorkerId], prefixes: Collection[str], timeout_s: float) -> dict[WorkerId, Page | str]:
        """See ports.metrics."""
        del prefixes, timeout_s
        samples = (Sample("synapse_build_info", {"version": VERSION}, 1.0), Sample("process_start_time_seconds", {}, BEGAN_S))
        return dict.fromkeys(workers, Page(samples))


class Probe:
    """Health of the same."""

    def health(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, Answer]:
        """See ports.probe."""
        del timeout_s
        return dict.fromkeys(workers, Answer(ok=True, seconds=0.001))

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        """See ports.probe."""
        del paths, timeout_s
        return {}

    def unavailable(self, timeout_s: float) -> str:
        """See ports.probe."""
        del timeout_s
        return "nobody is there to be asked"


def measure(place: Path) -> list[Row]:
    """Make them, and plan some times."""
    with standing(place.absolute()) as plane:
        _make(plane)
        _inventory(plane, place / "inventory.yaml", plane.kubeconfig)
        inventory = _inventory(plane, place / "inventory.yaml", plane.account("rollout", _rules(place / "inventory.yaml")))
        (place / "playbook.yaml").write_text(PLAYBOOK)
        playbook = read_playbook(place / "playbook.yaml")
        drivers = replace(open_drivers(inventory), metrics=Metrics(), probe=Probe())
        return [_row(plane, inventory, playbook, drivers, first=not number) for number in range(TIMES)]


def _row(plane: ControlPlane, inventory: Inventory, playbook: Playbook, drivers: Drivers, *, first: bool) -> Row:
    assert plane.faults is not None
    before, began_s = len(plane.faults.requests()), time.monotonic()
    plan, findings = _plan(inventory, playbook, drivers, thorough=False)
    took_s = time.monotonic() - began_s
    had = plane.faults.requests()[before:]
    assert findings.not_granted == ()
    _, again = _plan(inventory, playbook, drivers, thorough=True)
    assert again.not_granted == ()
    lists = [path for method, path in had if method == "GET" and path.partition("?")[0].endswith(("pods", "sets", "services", "slices"))]
    workers = {step.worker for step in steps_of(plan.phases) if step.worker is not None}
    return {
        "time": "first" if first else "further",
        "pods": len(inventory.workers),
        "planned": len(workers),
        "plan s": round(took_s, 2),
        "requests": len(had),
        "lists": len(lists),
        "dry runs": len([path for _, path in had if "dryRun=All" in path]),
        "to deploy": len(plane.faults.requests()) - before - len(had),
        "at most s": PLAN_S_MAX,
        "at most requests": REQUESTS_MAX,
    }


def _plan(inventory: Inventory, playbook: Playbook, drivers: Drivers, *, thorough: bool) -> tuple[Plan, Findings]:
    readiness = Readiness(drivers, inventory, SystemClock())
    seen = readiness.surveyor.look_twice()
    (base,) = seen.releases
    wanted = drivers.releases.identify(WANTED, None, base, next_generation=False)
    plan = make_plan(playbook, inventory, seen, wanted)
    return plan, readiness.findings(Seen(seen, Measured({}, {}), {}), (), wanted, thorough=thorough)


def _rules(inventory: Path) -> list[dict[str, list[str]]]:
    said = CliRunner().invoke(cli, ["rbac", "-i", str(inventory)], catch_exceptions=False)
    _, role, _ = yaml.safe_load_all(said.stdout)
    return list(role["rules"])


def _make(plane: ControlPlane) -> None:
    with plane.api() as api:
        # The client's types know nothing of plain JSON, which it takes.
        apps: Any = client.AppsV1Api(api)
        core: Any = client.CoreV1Api(api)
        for number, (name, replicas) in enumerate(_names().items()):
            made = stateful_set(name, replicas, VERSION)
            # Otherwise they would be alike but for their names.
            made["spec"]["template"]["metadata"]["annotations"]["example.org/shard"] = str(number)
            apps.create_namespaced_stateful_set(plane.namespace, made)
            spec = {"clusterIP": "None", "selector": {"app": name, ADMITTED: "true"}, "ports": [{"port": 8080}]}
            core.create_namespaced_service(plane.namespace, {"metadata": {"name": name}, "spec": spec})
        total = sum(_names().values())
        wait_until(lambda: len(core.list_namespaced_pod(plane.namespace).items) == total, MADE_S, "all pods are made")
        pods = [(number, pod.metadata.name) for number, pod in enumerate(core.list_namespaced_pod(plane.namespace).items)]
        # Pods on no node are no endpoints.
        core.create_node({"metadata": {"name": NODE}})
        for _, pod in pods:
            bound = {"metadata": {"name": pod}, "target": {"kind": "Node", "name": NODE}}
            core.create_namespaced_pod_binding(pod, plane.namespace, bound, _preload_content=False)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda one: core.patch_namespaced_pod_status(one[1], plane.namespace, _running(one[0])), pods))
        slices: Any = client.DiscoveryV1Api(api)

        def ready() -> int:
            found = slices.list_namespaced_endpoint_slice(plane.namespace).items
            return sum(len([one for one in part.endpoints or () if one.conditions.ready]) for part in found)

        wait_until(lambda: ready() == total, MADE_S, "all pods are in their Services")


def _running(number: int) -> dict[str, object]:
    at = datetime.fromtimestamp(BEGAN_S, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    container = {
        "name": "synapse",
        "image": IMAGE.format(version=VERSION),
        "imageID": "none",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": at}},
    }
    address = f"10.9.{number // 250}.{number % 250 + 1}"
    ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "Initialized", "PodScheduled")]
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": at,
            "conditions": ready,
            "containerStatuses": [container],
        }
    }


def _names() -> dict[str, int]:
    return {"main": 1, **{f"sync-{number}": EACH for number in range(SETS)}}


def _inventory(plane: ControlPlane, place: Path, kubeconfig: Path) -> Inventory:
    pods = [(name, f"{name}-{number}") for name, replicas in _names().items() for number in range(replicas)]
    workers = {
        pod: {
            "role": "main" if name == "main" else "sync",
            "pool": name,
            "url": f"http://{pod}.{name}:8080",
            "metrics": f"http://{pod}.{name}:9001/_synapse/metrics",
        }
        for name, pod in pods
    }
    where = {"namespace": plane.namespace, "kubeconfig": str(kubeconfig), "selector": "part-of=synapse"}
    homeserver = {
        "homeserver": "example.org",
        "workers": workers,
        "pools": {name: {"backend": name} for name in _names()},
        "workers_driver": {"driver": "kubernetes", **where},
        "releases_driver": {"driver": "kubernetes", "image": IMAGE},
        "traffic_driver": {"driver": "kubernetes"},
        "ledger_driver": {"driver": "kubernetes"},
    }
    place.write_text(yaml.safe_dump(homeserver))
    return read_inventory(place)
