"""Events, as a kubelet and a scheduler write them: the same once more only counts up."""

import secrets
import threading
from datetime import UTC, datetime

from kubernetes.client import ApiException

from tests.kubernetes.kubelet.api import LOST, STRATEGIC, Object, Server


class Events:
    """What was told already is remembered for the kubelet's life. One that can't be written is lost, as a real one is after some tries."""

    def __init__(self, server: Server, node: str) -> None:
        self._server = server
        self._node = node
        self._told: dict[tuple[str, ...], tuple[str, int]] = {}
        self._lock = threading.Lock()

    def tell(self, pod: Object, sort: str, reason: str, message: str, container: str = "", component: str = "kubelet") -> None:
        metadata = pod["metadata"]
        key = (metadata["uid"], sort, reason, message, container)
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            name, count = self._told.get(key, (f"{metadata['name']}.{secrets.token_hex(8)}", 0))
            self._told[key] = name, count + 1
        try:
            if count:
                self._server.ask("PATCH", f"{path}/{name}", {"count": count + 1, "lastTimestamp": now}, STRATEGIC)
                return
            self._server.ask("POST", path, self._new(pod, name, (sort, reason, message), now, container, component))
        except (ApiException, *LOST):
            return

    def _new(self, pod: Object, name: str, told: tuple[str, str, str], now: str, container: str, component: str) -> Object:
        metadata = pod["metadata"]
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        }
        sort, reason, message = told
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": involved | ({"fieldPath": f"spec.containers{{{container}}}"} if container else {}),
            "type": sort,
            "reason": reason,
            "message": message,
            "source": {"component": component, "host": self._node},
            "reportingComponent": component,
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
