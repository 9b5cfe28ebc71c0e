"""
The node: registers itself, keeps its Lease, takes pods of its namespace that nobody has bound, and runs them.

It is a client of the API server and no more, so that it does with a real one what it does with the stand-in; it is scheduler and kubelet
in one.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/, https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/.
"""

import contextlib
import json
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from kubernetes.client import ApiException

from tests.kubernetes.kubelet.api import LOST, STRATEGIC, Object, Server
from tests.kubernetes.kubelet.container import Container
from tests.kubernetes.kubelet.events import Events
from tests.kubernetes.kubelet.logs import LogServer
from tests.kubernetes.kubelet.network import Network
from tests.kubernetes.kubelet.pod import Worker
from tests.kubernetes.kubelet.processes import Image

_LEASE_S, _HEARTBEAT_S = 40, 10
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
# What one pod may ask for; more, and there is no node for it.
CPUS, MEMORY_GIB, PODS = 64, 256, 250
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "m": 1e-3, "": 1}


class Agent:
    """*labels*: the node's."""

    def __init__(self, server: Server, network: Network, name: str, namespace: str, place: Path, labels: dict[str, str]) -> None:
        self._server = server
        self._network = network
        self._name = name
        self._namespace = namespace
        self._place = place
        self._labels = labels
        self._events = Events(server, name)
        self._workers: dict[str, Worker] = {}
        self._refused: dict[str, str] = {}
        self._logs = LogServer(network.here, place, self._container, self._pod)

    def run(self) -> None:
        """Go on for ever."""
        self._logs.begin()
        self._register()
        threading.Thread(target=self._beat, daemon=True).start()
        (self._place / "ready").touch()
        while True:
            try:
                self._follow()
            except (ApiException, *LOST) as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                sys.stderr.flush()
                time.sleep(0.2)

    def _register(self) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": self._labels},
            "spec": {},
        }
        with contextlib.suppress(ApiException):
            self._server.ask("POST", "/api/v1/nodes", node)
        self._say_ready()

    def _say_ready(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"lastHeartbeatTime": now, "lastTransitionTime": now}
        fine = [
            {"type": sort, "status": "False", "reason": f"KubeletHas{enough}", "message": "", **told}
            for sort, enough in (
                ("MemoryPressure", "SufficientMemory"),
                ("DiskPressure", "NoDiskPressure"),
                ("PIDPressure", "SufficientPID"),
            )
        ]
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status", **told}
        room = {"cpu": str(CPUS), "memory": f"{MEMORY_GIB}Gi", "pods": str(PODS)}
        status = {
            "conditions": [*fine, ready],
            # No name: the API server would try to find an address for it first (--kubelet-preferred-address-types).
            "addresses": [{"type": "InternalIP", "address": self._network.here}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.server_port}},
            "capacity": room,
            "allocatable": room,
        }
        self._server.ask("PATCH", f"/api/v1/nodes/{self._name}/status", {"status": status}, STRATEGIC)

    def _beat(self) -> None:
        count = 0
        while True:
            try:
                self._renew()
                if count % 6 == 5:
                    self._say_ready()
            except (ApiException, *LOST):
                time.sleep(1)
                continue
            count += 1
            time.sleep(_HEARTBEAT_S)

    def _renew(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self._name, "leaseDurationSeconds": _LEASE_S, "renewTime": now}
        try:
            self._server.ask("PATCH", f"{_LEASES}/{self._name}", {"spec": spec}, STRATEGIC)
        except ApiException as error:
            if error.status != 404:
                raise
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}, "spec": spec}
            self._server.ask("POST", _LEASES, lease)

    def _follow(self) -> None:
        """List the pods, then hear of changes until the watch ends."""
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        there = self._server.ask("GET", path)
        known = set()
        for pod in there["items"]:
            known.add(pod["metadata"]["uid"])
            self._see(pod)
        for uid in [one for one in self._workers if one not in known]:
            self._forget(uid)
        version = there["metadata"]["resourceVersion"]
        for event in self._server.watch(path, version):
            if event["type"] == "ERROR":
                return
            if event["type"] == "DELETED":
                self._forget(event["object"]["metadata"]["uid"])
            elif event["type"] != "BOOKMARK":
                self._see(event["object"])

    def _see(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if not pod["spec"].get("nodeName"):
            if not pod["metadata"].get("deletionTimestamp"):
                self._bind(pod)
            return
        if pod["spec"]["nodeName"] != self._name:
            return
        worker = self._workers.get(uid)
        if worker is not None:
            worker.pod = pod
        elif pod["status"].get("phase") not in {"Succeeded", "Failed"}:
            worker = self._workers[uid] = Worker(self._server, self._events, self._network, self._place, self._image, pod)
            worker.thread.start()

    def _forget(self, uid: str) -> None:
        worker = self._workers.pop(uid, None)
        if worker is not None:
            worker.pod = None

    def _bind(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if pod["spec"].get("schedulingGates"):
            return
        if why := self._why_not(pod):
            self._refuse(
                pod, f"0/1 nodes are available: 1 {why}. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
            )
            return
        target = {"apiVersion": "v1", "kind": "Node", "name": self._name}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "uid": pod["metadata"]["uid"]}, "target": target}
        try:
            self._server.ask("POST", f"/api/v1/namespaces/{self._namespace}/pods/{name}/binding", binding)
        except ApiException as error:
            # Bound, gone, or replaced meanwhile: the watch will say.
            if error.status not in {404, 409}:
                raise
            return
        said = f"Successfully assigned {self._namespace}/{name} to {self._name}"
        self._events.tell(pod, "Normal", "Scheduled", said, component="default-scheduler")

    def _why_not(self, pod: Object) -> str:
        wanted = pod["spec"].get("nodeSelector") or {}
        if any(self._labels.get(key) != value for key, value in wanted.items()):
            return "node(s) didn't match Pod's node affinity/selector"
        asked = [(one.get("resources") or {}).get("requests") or {} for one in pod["spec"]["containers"]]
        if sum(_amount(one.get("cpu", "0")) for one in asked) > CPUS:
            return "Insufficient cpu"
        if sum(_amount(one.get("memory", "0")) for one in asked) > MEMORY_GIB * 2**30:
            return "Insufficient memory"
        return ""

    def _refuse(self, pod: Object, why: str) -> None:
        uid = pod["metadata"]["uid"]
        if self._refused.get(uid) == why:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastTransitionTime": now}
        patch = {"metadata": {"uid": uid}, "status": {"conditions": [condition]}}
        with contextlib.suppress(ApiException):
            self._server.ask("PATCH", f"/api/v1/namespaces/{self._namespace}/pods/{pod['metadata']['name']}/status", patch, STRATEGIC)
            self._refused[uid] = why
        self._events.tell(pod, "Warning", "FailedScheduling", why, component="default-scheduler")

    def _image(self, name: str) -> Image | None:
        said = json.loads((self._place / "images.json").read_text()).get(name)
        return Image(Path(said["directory"]), said["env"], said["command"]) if said else None

    def _pod(self, namespace: str, name: str) -> tuple[str, int] | None:
        for worker in list(self._workers.values()):
            known, pause = worker.pod, worker.pause
            if known is not None and pause is not None and (known["metadata"]["namespace"], known["metadata"]["name"]) == (namespace, name):
                return f"{name}, uid {known['metadata']['uid']}", pause.pid
        return None

    def _container(self, namespace: str, pod: str, container: str) -> Container | None:
        for worker in list(self._workers.values()):
            known = worker.pod
            if known is None or (known["metadata"]["namespace"], known["metadata"]["name"]) != (namespace, pod):
                continue
            return next((one for one in worker.every_container() if one.name == container), None)
        return None


def _amount(said: str) -> float:
    """Read a quantity: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/."""
    digits = said.rstrip("KMGTikm")
    return float(digits) * _UNITS[said[len(digits) :]]
