"""
One pod, from when it is bound to this node until it has gone: a thread of its own.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/; pkg/kubelet/pod_workers.go in kubernetes/kubernetes.
"""

import contextlib
import http.client
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from kubernetes.client import ApiException

from tests.kubernetes.kubelet import status
from tests.kubernetes.kubelet.api import LOST, STRATEGIC, Object, Server
from tests.kubernetes.kubelet.container import Container, Pod, written
from tests.kubernetes.kubelet.events import Events
from tests.kubernetes.kubelet.network import Network, Pause
from tests.kubernetes.kubelet.processes import Image
from tests.kubernetes.kubelet.volumes import Sources

_TICK_S = 0.05


class Worker:
    """*pod* is the newest state of it that is known; None once it isn't there any more."""

    def __init__(
        self, server: Server, events: Events, network: Network, place: Path, image: Callable[[str], Image | None], pod: Object
    ) -> None:
        self._server = server
        self._events = events
        self._network = network
        self._image = image
        self._claims = place / "claims"
        self.pod: Object | None = pod
        self.place = place / "pods" / pod["metadata"]["uid"]
        self.containers: list[Container] = []
        self._inits: list[Container] = []
        self.pause: Pause | None = None
        self._first = pod
        self._since = written(datetime.now(UTC))
        self._written: Object | None = None
        self._conditions: list[Object] = []
        self._over = ""
        self.thread = threading.Thread(target=self._run, daemon=True)

    def every_container(self) -> list[Container]:
        return [*self._inits, *self.containers]

    @property
    def path(self) -> str:
        metadata = self._first["metadata"]
        return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"

    def _run(self) -> None:
        self.place.mkdir(parents=True)
        (self.place / "name").write_text(self._first["metadata"]["name"])
        self.pause = self._network.pod()
        try:
            self._make()
            while (pod := self.pod) is not None and not pod["metadata"].get("deletionTimestamp"):
                self._step(pod)
                self._tell(pod)
                time.sleep(_TICK_S)
            if pod is not None:
                self._end(pod)
        finally:
            for one in [*self._inits, *self.containers]:
                if one.running is not None:
                    one.running.kill()
            self._network.release(self.pause)
            shutil.rmtree(self.place, ignore_errors=True)

    def _make(self) -> None:
        assert self.pause is not None
        metadata, spec = self._first["metadata"], self._first["spec"]
        sources = Sources(self._server, self._first, self.pause.address, self._network.here)
        shared = Pod(
            metadata["uid"],
            metadata["name"],
            metadata["namespace"],
            self.pause.pid,
            self.pause.address,
            self.place,
            self._claims,
            sources,
            self._event,
            self._image,
        )
        volumes = spec.get("volumes") or []
        self._inits = [Container(shared, one, volumes) for one in spec.get("initContainers") or []]
        self.containers = [Container(shared, one, volumes) for one in spec["containers"]]
        for one in [*self._inits, *self.containers]:
            one.prepare()

    def _event(self, sort: str, reason: str, message: str, container: str) -> None:
        self._events.tell(self._first, sort, reason, message, container)

    @property
    def _initialized(self) -> bool:
        return all(one.over and one.state["terminated"]["exitCode"] == 0 for one in self._inits)

    def _step(self, pod: Object) -> None:
        """Start what is to be started, and see what has become of it."""
        policy = pod["spec"]["restartPolicy"]
        if self._over:
            return
        for one in self._inits:
            # One that fails is started again unless the pod never is; one that has done its work isn't.
            one.look("Never" if policy == "Never" else "OnFailure")
            if not one.over:
                return
            if one.state["terminated"]["exitCode"]:
                self._over = "Failed"
                return
        for one in self.containers:
            one.look(policy)
            if one.probe(ending=False):
                self._event("Normal", "Killing", f"Container {one.name} failed liveness probe, will be restarted", one.name)
                self._stop([one], time.monotonic() + float(pod["spec"]["terminationGracePeriodSeconds"]))
        if policy != "Always" and self.containers and all(one.over for one in self.containers):
            self._over = status.ended(self.containers)

    def _stop(self, containers: list[Container], deadline: float) -> None:
        """Let containers end, and end them when their time is over."""
        self._ask(containers, deadline)
        while any(one.running is not None and one.running.exit_code() is None for one in containers) and time.monotonic() < deadline:
            time.sleep(_TICK_S)
        for one in containers:
            if one.running is not None:
                one.running.kill()
                one.running.process.wait()

    def _ask(self, containers: list[Container], deadline: float) -> None:
        """
        Run what is to be run before the end, then send SIGTERM to the containers' first processes.

        Source: https://kubernetes.io/docs/concepts/containers/container-lifecycle-hooks/.
        """
        waiting = []
        for one in containers:
            if one.running is not None:
                waiting.append(threading.Thread(target=_ask_one, args=(one, deadline), daemon=True))
                waiting[-1].start()
        for thread in waiting:
            thread.join()

    def _end(self, pod: Object) -> None:
        """Let a pod that is to be deleted end, say how it ended, and let it go."""
        began = time.monotonic()
        alive = [one for one in [*self._inits, *self.containers] if one.running is not None]
        for one in alive:
            self._event("Normal", "Killing", f"Stopping container {one.name}", one.name)
        deadline = began + _grace_s(pod)
        asking = threading.Thread(target=self._ask, args=(alive, deadline), daemon=True)
        asking.start()
        while any(one.running is not None for one in alive):
            newest = self.pod
            # Somebody may want it sooner, or it has been taken away.
            deadline = min(deadline, began + (_grace_s(newest) if newest is not None else 0.0))
            for one in alive:
                if one.running is not None and time.monotonic() > deadline:
                    one.running.kill()
                one.end()
                # It is asked until it has ended: pkg/kubelet/prober/prober_manager.go stops only the others.
                one.probe(ending=True)
            if newest is not None:
                self._tell(newest)
            time.sleep(_TICK_S)
        self._over = self._over or status.ended(self.containers)
        if self.pod is not None:
            self._tell(self.pod)
        self._let_go()

    def _let_go(self) -> None:
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self._first["metadata"]["uid"]},
        }
        while self.pod is not None:
            try:
                self._server.ask("DELETE", self.path, options)
            except ApiException as error:
                # Gone, or another one of that name: 404 and 409.
                if error.status in {404, 409}:
                    return
            except LOST:
                pass
            time.sleep(0.2)

    def _tell(self, pod: Object) -> None:
        """Say what has become of it, if that is new."""
        assert self.pause is not None
        over = self._over
        policy = pod["spec"]["restartPolicy"]
        wanted = status.conditions(pod, self.containers, initialized=self._initialized, over=over)
        self._conditions = status.with_times(wanted, self._conditions, written(datetime.now(UTC)))
        said: Object = {
            "phase": over or status.phase(policy, self.containers, initialized=self._initialized),
            "conditions": self._conditions,
            "hostIP": self._network.here,
            "hostIPs": [{"ip": self._network.here}],
            "podIP": self.pause.address,
            "podIPs": [{"ip": self.pause.address}],
            "startTime": self._since,
            "observedGeneration": pod["metadata"].get("generation", 1),
            "containerStatuses": [one.status() for one in self.containers],
        }
        if self._inits:
            said["initContainerStatuses"] = [one.status() for one in self._inits]
        if said == self._written:
            return
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": said}
        with contextlib.suppress(*LOST):
            try:
                self._server.ask("PATCH", f"{self.path}/status", patch, STRATEGIC)
            except ApiException as error:
                # 404 and 422: it has gone, or another one has its name. What else goes wrong is tried again.
                if error.status not in {404, 422}:
                    return
            self._written = said


def _grace_s(pod: Object) -> float:
    return float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)


def _ask_one(one: Container, deadline: float) -> None:
    running = one.running
    if running is None:
        return
    hook = (one.said.get("lifecycle") or {}).get("preStop") or {}
    left_s = max(0.01, deadline - time.monotonic())
    with contextlib.suppress(OSError, subprocess.TimeoutExpired, http.client.HTTPException):
        if "exec" in hook:
            argv = [*running.inside(), *hook["exec"]["command"]]
            subprocess.run(argv, env=running.env, capture_output=True, timeout=left_s, check=False)
        elif "sleep" in hook:
            time.sleep(min(left_s, float(hook["sleep"]["seconds"])))
        elif "httpGet" in hook:
            said = hook["httpGet"]
            connection = http.client.HTTPConnection(said.get("host") or one.pod.address, int(said["port"]), timeout=left_s)
            connection.request("GET", said.get("path") or "/")
            connection.getresponse().read()
            connection.close()
    running.ask_to_end()
