"""What tests of the control plane do by hand that a kubelet or a user would do, and the objects that they begin with."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from kubernetes import client

from rollout.lab.processes import wait_until
from rollout.model.errors import TransientDriverError
from tests.kubernetes.bed import ControlPlane, hand_node
from tests.kubernetes.kubelet.api import STRATEGIC, Object, Server, Value
from tests.kubernetes.server.kinds import BY_NAME

MERGE, APPLY, JSON_PATCH = "application/merge-patch+json", "application/apply-patch+yaml", "application/json-patch+json"
WAIT_S = 30.0
_T = TypeVar("_T")


def containers(image: str = "example.org/a:1", **more: Value) -> list[Object]:
    return [{"name": "a", "image": image, **more}]


def pod(name: str, image: str = "example.org/a:1", **more: Value) -> Object:
    spec = {"containers": containers(image), "terminationGracePeriodSeconds": 5}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec | more}


def stateful_set(name: str, replicas: int = 3, image: str = "example.org/a:1", **more: Value) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers(image), "terminationGracePeriodSeconds": 1}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "serviceName": name, "template": template}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec | more}


def deployment(name: str, replicas: int = 3, image: str = "example.org/a:1", **more: Value) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers(image), "terminationGracePeriodSeconds": 1}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec | more}


def image_patch(image: str) -> Object:
    return {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}}}


@contextmanager
def repeated(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Look all the time while the block runs."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(every_s):
            look()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


@contextmanager
def refused(status: int, reason: str) -> Iterator[Object]:
    """Expect a request to be refused; what is said of it is filled into the dictionary that this gives."""
    told: Object = {}
    with pytest.raises(client.ApiException) as caught:
        yield told
    assert caught.value.status == status, caught.value.body
    told |= json.loads(caught.value.body or "{}")
    assert told.get("reason", "") == reason
    assert told["kind"] == "Status"
    assert told["code"] == status


def eventually(look: Callable[[], _T], what: str) -> _T:
    """Wait until something is true, and return it."""
    seen: list[_T] = []

    def is_there() -> bool:
        seen.append(look())
        return bool(seen[-1])

    wait_until(is_there, WAIT_S, what)
    return seen[-1]


def stays(look: Callable[[], bool], for_s: float = 1.0) -> bool:
    """Tell whether something is true for as long as a controller would need to change it."""
    try:
        wait_until(lambda: not look(), for_s, "it changes")
    except TransientDriverError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody at the API server, who reads and writes objects as they are, and is also the kubelet of a node with nothing behind it."""

    server: Server
    namespace: str

    def path(self, kind: str, name: str = "", subresource: str = "") -> str:
        it = BY_NAME[kind]
        root = f"/apis/{it.group}/{it.version}" if it.group else f"/api/{it.version}"
        within = f"/namespaces/{self.namespace}" if it.namespaced else ""
        return "/".join(part for part in (f"{root}{within}/{it.plural}", name, subresource) if part)

    def get(self, kind: str, name: str) -> Object:
        return self.server.ask("GET", self.path(kind, name))

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object, or None where there is none of that name."""
        try:
            return self.get(kind, name)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def list(self, kind: str, **query: str) -> Object:
        return self.server.ask("GET", self.path(kind), **query)

    def create(self, obj: Object, **query: str) -> Object:
        return self.server.ask("POST", self.path(obj["kind"]), obj, **query)

    def put(self, obj: Object, subresource: str = "", **query: str) -> Object:
        return self.server.ask("PUT", self.path(obj["kind"], obj["metadata"]["name"], subresource), obj, **query)

    def patch(self, kind: str, name: str, patch: Value, how: str = STRATEGIC, subresource: str = "", **query: str) -> Object:
        return self.server.ask("PATCH", self.path(kind, name, subresource), patch, how, **query)

    def apply(self, obj: Object, manager: str, subresource: str = "", **query: str) -> Object:
        return self.patch(obj["kind"], obj["metadata"]["name"], obj, APPLY, subresource, fieldManager=manager, **query)

    def delete(self, kind: str, name: str, **options: Value) -> Object:
        return self.server.ask("DELETE", self.path(kind, name), {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    def evict(self, name: str, dry_run: str = "", **options: Value) -> Object:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        query = {"dryRun": dry_run} if dry_run else {}
        return self.server.ask("POST", self.path("Pod", name, "eviction"), body | ({"deleteOptions": options} if options else {}), **query)

    def pods(self, selector: str = "") -> dict[str, Object]:
        query = {"labelSelector": selector} if selector else {}
        return {one["metadata"]["name"]: one for one in self.list("Pod", **query)["items"]}

    @property
    def node(self) -> str:
        """Return the name of a Node, which is there: pods on one that isn't are no endpoints."""
        name = hand_node(self.namespace)
        if self.find("Node", name) is None:
            self.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        return name

    def bind(self, name: str, node: str = "") -> Object:
        target = {"apiVersion": "v1", "kind": "Node", "name": node or self.node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        return self.server.ask("POST", self.path("Pod", name, "binding"), body)

    def ready(self, name: str, *, ready: bool = True, address: str = "10.9.0.9", **more: str) -> None:
        """Say of a pod that it runs, and whether it is ready; *more*: other conditions and their statuses."""
        if not self.get("Pod", name)["spec"].get("nodeName"):
            self.bind(name)
        kinds = {"Ready": "True" if ready else "False", **more}
        listed = [{"type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"} for kind, status in kinds.items()]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": listed}
        self.patch("Pod", name, {"status": status}, subresource="status")

    def gone(self, name: str) -> None:
        """Say of a pod that is being deleted that it has ended."""
        self.delete("Pod", name, gracePeriodSeconds=0)

    def all_ready(self, *names: str) -> None:
        """Make pods ready in order, each as soon as it is there."""
        for name in names:
            self.wait_for_pod(name)
            self.ready(name)

    def wait_for_pod(self, name: str) -> Object:
        found = eventually(lambda: self.find("Pod", name), f"pod {name} is there")
        assert found is not None
        return found


def hand(plane: ControlPlane, kubeconfig: Path | None = None) -> Hand:
    return Hand(Server(kubeconfig or plane.kubeconfig, "rollout-test"), plane.namespace)
