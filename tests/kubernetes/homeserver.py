"""
A homeserver of small pods on a control plane: StatefulSets or Deployments, Services, what balances between pods, and somebody who asks all
the time.
"""

import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from kubernetes import client

from rollout.lab.processes import wait_until
from rollout.model.gate import LATENCY_EDGES_S
from tests.kubernetes import pod_worker
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.kubelet.api import LOST
from tests.kubernetes.kubelet.node import Kubelet

IMAGE = "example.org/synapse:v{version}"
ADMITTED = "rollout.internal/admitted"
# One crashes at once, the other can't be pulled.
CRASHING, UNKNOWN = "2.2.0", "2.3.0"
READY_S = 60


def images(kubelet: Kubelet, place: Path, *versions: str, env: Mapping[str, str] | None = None) -> None:
    """Give a node the images of some versions."""
    for version in versions:
        directory = place / f"image-{version}"
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        program = directory / "bin/worker"
        program.write_text(f"#!{sys.executable} -I\n" + Path(pod_worker.__file__).read_text())
        program.chmod(0o755)
        for name in ("facts", "migrate"):
            script = directory / "bin" / name
            script.write_text(f"#!/bin/sh\nexec worker {name}\n")
            script.chmod(0o755)
        lives = {"LIVES_S": "0.2"} if version == CRASHING else {}
        edges = ",".join([*map(str, LATENCY_EDGES_S), "+Inf"])
        kubelet.image(IMAGE.format(version=version), directory, {"VERSION": version, "EDGES": edges, **lives, **(env or {})})


def stateful_set(name: str, replicas: int, version: str, **spec: object) -> dict[str, Any]:
    """Write one; *spec* goes over what is usual."""
    labels = {"app": name, "part-of": "synapse"}
    probe = {"httpGet": {"path": "/health", "port": pod_worker.PORT}, "periodSeconds": 1, "failureThreshold": 2}
    container = {
        "name": "synapse",
        "image": IMAGE.format(version=version),
        "command": ["worker"],
        "env": [{"name": "SYNAPSE_WORKER", "value": name}],
        "ports": [{"containerPort": pod_worker.PORT, "name": "http"}],
        "readinessProbe": probe,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "labels": {"part-of": "synapse"}},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {**labels, ADMITTED: "true"}, "annotations": {"example.org/checksum": "abc"}},
                "spec": {"terminationGracePeriodSeconds": 10, "containers": [container]},
            },
            **spec,
        },
    }


def deployment(name: str, version: str, **spec: object) -> dict[str, Any]:
    """Write one of one replica, whose pods are as those of a StatefulSet; *spec* goes over what is usual."""
    like = stateful_set(name, 1, version)
    metadata = like["spec"]["template"]["metadata"]
    # The pool, by which a Service chooses among several Deployments.
    template = {**like["spec"]["template"], "metadata": {**metadata, "labels": {**metadata["labels"], "pool": name.rpartition("-")[0]}}}
    usual = {"replicas": 1, "selector": like["spec"]["selector"], "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": like["metadata"], "spec": {**usual, **spec}}


@dataclass(slots=True)
class Homeserver:
    """
    StatefulSets and Deployments that were applied by `helm`, and the ways to their pods.

    Pods have their workload's name in the label *named_by*, and *selector* chooses all that is the homeserver's.
    """

    plane: ControlPlane
    kubelet: Kubelet
    place: Path
    # The client's types know nothing of plain JSON, which it takes.
    apps: Any
    core: Any
    policy: Any
    named_by: str = "app"
    selector: str = "part-of=synapse"
    ready_s: float = READY_S
    ways: dict[tuple[str, int], "Way"] = field(default_factory=dict)

    def has(self, name: str, replicas: int, version: str, *, service: bool = True, budget: int | None = None, **spec: object) -> None:
        """Make a StatefulSet, with its Service, and a budget of that many unavailable pods."""
        body = stateful_set(name, replicas, version, **spec)
        self.apps.create_namespaced_stateful_set(self.plane.namespace, body, field_manager="helm")
        self._surround(name, {"app": name}, service=service, budget=budget)

    def has_deployments(
        self, pool: str, many: int, version: str, *, service: bool = True, budget: int | None = None, **spec: object
    ) -> None:
        """Make *many* Deployments of one replica for a pool, `pool-0` and so on, with one Service, and one budget, for all of them."""
        for number in range(many):
            body = deployment(f"{pool}-{number}", version, **spec)
            self.apps.create_namespaced_deployment(self.plane.namespace, body, field_manager="helm")
        self._surround(pool, {"pool": pool}, service=service, budget=budget)

    def _surround(self, name: str, labels: dict[str, str], *, service: bool, budget: int | None) -> None:
        namespace = self.plane.namespace
        if service:
            ports = [{"name": "http", "port": pod_worker.PORT, "targetPort": pod_worker.PORT}]
            its = {"metadata": {"name": name}, "spec": {"clusterIP": "None", "selector": {**labels, ADMITTED: "true"}, "ports": ports}}
            self.core.create_namespaced_service(namespace, its)
        if budget is not None:
            its = {"metadata": {"name": name}, "spec": {"maxUnavailable": budget, "selector": {"matchLabels": labels}}}
            self.policy.create_namespaced_pod_disruption_budget(namespace, its)

    def await_ready(self, *names: str) -> None:
        wait_until(lambda: all(self._is_ready(name) for name in names), self.ready_s, f"{', '.join(names)} are ready")

    def set(self, name: str) -> Any:  # noqa: ANN401  (the client has no types)
        return self.apps.read_namespaced_stateful_set(name, self.plane.namespace)

    def deployment(self, name: str) -> Any:  # noqa: ANN401  (as above)
        return self.apps.read_namespaced_deployment(name, self.plane.namespace)

    def pods_of(self, name: str) -> list[Any]:
        """Return the pods of one Deployment or StatefulSet, those that are ending too."""
        return list(self.core.list_namespaced_pod(self.plane.namespace, label_selector=f"{self.named_by}={name}").items)

    def pod(self, name: str) -> Any:  # noqa: ANN401  (as above)
        """Return the pod of that name, or of `deployment/NAME`, as drivers are told of it."""
        if name.startswith("deployment/"):
            pods = self.pods_of(name.removeprefix("deployment/"))
            return next((pod for pod in pods if pod.metadata.deletion_timestamp is None), None)
        found = self.core.list_namespaced_pod(self.plane.namespace, field_selector=f"metadata.name={name}").items
        return found[0] if found else None

    def images_of(self, name: str) -> list[str]:
        """Return the versions that a StatefulSet's pods run, in their order."""
        pods = self.core.list_namespaced_pod(self.plane.namespace, label_selector=f"{self.named_by}={name}").items
        return [pod.spec.containers[0].image.rpartition(":v")[2] for pod in sorted(pods, key=lambda pod: pod.metadata.name)]

    def address(self, pod: str, port: int = pod_worker.PORT) -> tuple[str, int] | None:
        """Return where a pod listens now."""
        found = self.pod(pod)
        return None if found is None or not found.status.pod_ip else (found.status.pod_ip, port)

    def way_to(self, pod: str, port: int = pod_worker.PORT) -> "Way":
        """Give a port of this machine that leads to one of whichever pod has that name."""
        if (pod, port) not in self.ways:
            self.ways[pod, port] = Way(self._known_address(pod, port))
        return self.ways[pod, port]

    def _known_address(self, pod: str, port: int) -> Callable[[], tuple[str, int] | None]:
        """Go on with what was known last while the API server is away, as nodes do."""
        known: list[tuple[str, int] | None] = [None]

        def where() -> tuple[str, int] | None:
            with suppress(*LOST):
                known[0] = self.address(pod, port)
            return known[0]

        return where

    def settings(self, **more: object) -> dict[str, object]:
        """Return what a driver is told of the cluster."""
        return {"namespace": self.plane.namespace, "kubeconfig": str(self.plane.kubeconfig), "selector": self.selector, **more}

    def _is_ready(self, name: str) -> bool:
        found = self.deployment(name.removeprefix("deployment/")) if name.startswith("deployment/") else self.set(name)
        return bool((found.status.ready_replicas or 0) == found.spec.replicas)


@contextmanager
def homeserver(plane: ControlPlane, kubelet: Kubelet, place: Path, **more: Any) -> Iterator[Homeserver]:  # noqa: ANN401  (fields of it)
    with plane.api() as api:
        it = Homeserver(plane, kubelet, place, client.AppsV1Api(api), client.CoreV1Api(api), client.PolicyV1Api(api), **more)
        try:
            yield it
        finally:
            for way in it.ways.values():
                way.close()


class Way:
    """A port of this machine from which connections go on to *target*, wherever that is at the moment; refused while it is nowhere."""

    def __init__(self, target: Callable[[], tuple[str, int] | None]) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._away_until_s = 0.0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def away(self, lasts_s: float) -> None:
        """End all connections, and every new one, for so long."""
        self._away_until_s = time.monotonic() + lasts_s
        for near in list(self._open):
            with suppress(OSError):
                near.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._lead, args=(near,), daemon=True).start()

    def _lead(self, near: socket.socket) -> None:
        self._open.add(near)
        with near, suppress(OSError):
            where = self._target()
            if where is not None and time.monotonic() >= self._away_until_s:
                with socket.create_connection(where, 2) as far:
                    far.settimeout(None)
                    back = threading.Thread(target=_pump, args=(far, near), daemon=True)
                    back.start()
                    _pump(near, far)
                    back.join()
        self._open.discard(near)


def _pump(whence: socket.socket, whither: socket.socket) -> None:
    with suppress(OSError):
        while chunk := whence.recv(65_536):
            whither.sendall(chunk)
    with suppress(OSError):
        whither.shutdown(socket.SHUT_WR)


class Balancer:
    """What a node does for a Service: each new connection goes to one of the endpoints that are ready, as its EndpointSlices say."""

    def __init__(self, plane: ControlPlane, service: str) -> None:
        self._plane = plane
        self._service = service
        self.ready: list[tuple[str, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        wait_until(lambda: bool(self.ready), READY_S, f"{service} has endpoints")
        self.way = Way(lambda: random.choice(self.ready) if self.ready else None)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.way.close()

    def _look(self) -> None:
        with self._plane.api() as api:
            slices = client.DiscoveryV1Api(api)
            while not self._ended.wait(0.1):
                # Nodes go on with what they know while the API server is away.
                with suppress(Exception):
                    found = slices.list_namespaced_endpoint_slice(
                        self._plane.namespace, label_selector=f"kubernetes.io/service-name={self._service}", _request_timeout=2
                    ).items
                    ready = [
                        (one.addresses[0], pod_worker.PORT)
                        for part in found
                        for one in part.endpoints or ()
                        if one.conditions is None or one.conditions.ready is not False
                    ]
                    self.ready = ready


@dataclass(slots=True)
class Load:
    """Somebody who asks a Service all the time. *answered* are versions, *cut* what became of a request without an answer."""

    answered: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)


@contextmanager
def load(plane: ControlPlane, service: str, clients: int = 4, takes_s: float = 0.2, below: str = "") -> Iterator[Load]:
    """Ask while the block runs; every request is a connection of its own. *below*: where what answers begins, as in `/sync`."""
    it, ended = Load(), threading.Event()
    with closing(Balancer(plane, service)) as balancer:

        def ask() -> None:
            while not ended.is_set():
                connection = HTTPConnection("127.0.0.1", balancer.way.port, timeout=20)
                try:
                    connection.request("GET", f"{below}/wait?s={takes_s}")
                    answer = connection.getresponse()
                    body = answer.read().decode()
                    (it.answered if answer.status == 200 else it.cut).append(body)
                except (OSError, HTTPException) as error:
                    it.cut.append(f"{time.time():.1f} {type(error).__name__}: {error}")
                    time.sleep(0.1)
                finally:
                    connection.close()

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield it
        finally:
            ended.set()
            for thread in threads:
                thread.join(20)
