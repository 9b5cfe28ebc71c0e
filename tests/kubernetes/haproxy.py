"""HAProxy in pods, in front of StatefulSets of small pods: examples/kubernetes/haproxy.yaml with all that waits made faster."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.cluster import Cluster
from rollout.adapters.kubernetes.looking import looking
from rollout.adapters.kubernetes.port_forward import forward
from rollout.adapters.traffic.haproxy import Haproxies
from rollout.adapters.traffic.haproxy_pods import HaproxyPods, sockets_in
from rollout.lab.processes import wait_until
from rollout.lab.programs import haproxy_binary
from tests.kubernetes import pod_worker
from tests.kubernetes.homeserver import READY_S, Homeserver
from tests.kubernetes.kubelet.node import Kubelet
from tests.kubernetes.names import ZONE, Names

IMAGE = "example.org/haproxy:2.8"
# What HAProxy's own image has as STOPSIGNAL is what it is told with: it takes no connection any more, and ends when those that it has do.
PROGRAM = """#!/bin/bash
trap 'kill -USR1 $!' TERM
{haproxy} "$@" &
while kill -0 $! 2>/dev/null; do wait $!; done
"""
NAME = "haproxy"
PORT, MASTER = 1999, 1998
CONFIGURATION = "/usr/local/etc/haproxy/haproxy.cfg"
LABELS = {"app": NAME}
SELECTOR = f"app={NAME}"
HOLD_LUA = files("rollout.adapters.traffic").joinpath("hold.lua")


def image(kubelet: Kubelet, place: Path) -> None:
    """Give a node HAProxy's image."""
    programs = place / "image-haproxy/bin"
    programs.mkdir(parents=True)
    program = programs / "haproxy"
    program.write_text(PROGRAM.format(haproxy=haproxy_binary()))
    program.chmod(0o755)
    kubelet.image(IMAGE, place / "image-haproxy", {}, ["haproxy", "-W", "-db", "-S", f"127.0.0.1:{MASTER}", "-f", CONFIGURATION])


def configuration(namespace: str, names: Names, pools: Mapping[str, Mapping[str, str]]) -> str:
    """Write one; *pools* are servers and the pods that they are, by backend, which is also the name of the pods' Service."""
    fronts = "\n".join(f"    use_backend {pool} if {{ path_beg /{pool}/ }}" for pool in pools)
    backends = "\n".join(_backend(namespace, pool, servers) for pool, servers in pools.items())
    return f"""\
global
    stats socket ipv4@127.0.0.1:{PORT} level admin
    lua-load /usr/local/etc/haproxy/hold.lua
    maxconn 2000
resolvers cluster
    nameserver dns {names.address}:{names.port}
    timeout resolve 300ms
    timeout retry 300ms
    hold valid 300ms
    hold nx 300ms
    hold other 300ms
    hold obsolete 0s
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    # What a restart cuts is seen.
    retries 0
    option http-server-close
    default-server check inter 300ms rise 1 fall 2 weight 100 resolvers cluster init-addr none resolve-prefer ipv4
frontend clients
    bind :{pod_worker.PORT}
    monitor-uri /alive
{fronts}
    default_backend {next(iter(pools))}
{backends}
"""


def _backend(namespace: str, pool: str, servers: Mapping[str, str]) -> str:
    lines = [f"    server {name} {pod}.{pool}.{namespace}.{ZONE}:{pod_worker.PORT}" for name, pod in servers.items()]
    return "\n".join([f"backend {pool}", "    option httpchk GET /health", "    http-request lua.rollout_hold", *lines])


def deployment(replicas: int, *, pre_stop_s: int = 0) -> dict[str, Any]:
    """Write one whose pods go on for *pre_stop_s* when they are told to end."""
    container = {
        "name": NAME,
        "image": IMAGE,
        "volumeMounts": [{"name": "configuration", "mountPath": "/usr/local/etc/haproxy", "readOnly": True}],
        "ports": [{"containerPort": pod_worker.PORT, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/alive", "port": pod_worker.PORT}, "periodSeconds": 1, "failureThreshold": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(pre_stop_s)]}}},
    }
    spec = {
        "terminationGracePeriodSeconds": 90,
        "containers": [container],
        "volumes": [{"name": "configuration", "configMap": {"name": NAME}}],
    }
    template = {"metadata": {"labels": LABELS}, "spec": spec}
    return {"metadata": {"name": NAME}, "spec": {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}}


@dataclass(frozen=True, slots=True)
class Front:
    """HAProxy's pods, in front of a homeserver."""

    site: Homeserver

    @property
    def settings(self) -> HaproxyPods:
        """Return what the traffic driver is told."""
        where = {"namespace": self.site.plane.namespace, "kubeconfig": self.site.plane.kubeconfig}
        return HaproxyPods.model_validate({"selector": SELECTOR, **where})

    def pods(self) -> list[Any]:
        return [one for one in self.site.pods_of(NAME) if one.metadata.deletion_timestamp is None]

    def await_ready(self, replicas: int = 2) -> None:
        wait_until(lambda: len([one for one in self.pods() if _is_ready(one)]) == replicas, READY_S, "HAProxy's pods are ready")


def front(site: Homeserver, names: Names, pools: Mapping[str, Mapping[str, str]], replicas: int = 2, **more: int) -> Front:
    """Begin it, with its Service, and the Services that pods have their names from."""
    namespace = site.plane.namespace
    for pool in pools:
        ports = [{"name": "http", "port": pod_worker.PORT, "targetPort": pod_worker.PORT}]
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": pool}, "ports": ports}
        site.core.create_namespaced_service(namespace, {"metadata": {"name": pool}, "spec": spec})
    files_of = {"haproxy.cfg": configuration(namespace, names, pools), "hold.lua": HOLD_LUA.read_text()}
    site.core.create_namespaced_config_map(namespace, {"metadata": {"name": NAME}, "data": files_of})
    ports = [{"name": "http", "port": pod_worker.PORT, "targetPort": pod_worker.PORT}]
    spec = {"selector": LABELS, "ports": ports}
    site.core.create_namespaced_service(namespace, {"metadata": {"name": NAME}, "spec": spec})
    site.apps.create_namespaced_deployment(namespace, deployment(replicas, **more))
    it = Front(site)
    it.await_ready(replicas)
    return it


def _is_ready(pod: Any) -> bool:  # noqa: ANN401  (the client has no types)
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())


def direct(site: Homeserver, pod: str) -> Haproxies:
    """Speak with the proxy in one pod, whatever becomes of that."""
    return Haproxies([sockets_in(_cluster(site), pod, PORT)])


def reload(site: Homeserver, pod: str) -> None:
    """Have a pod's proxy begin anew, in a process beside the one that it has."""
    with closing(forward(_cluster(site), pod, MASTER, time.monotonic() + 10)) as connection:
        connection.sendall(b"reload\n")
        while connection.recv(65_536):
            pass


def _cluster(site: Homeserver) -> Cluster:
    return looking(ClusterSettings.model_validate({"namespace": site.plane.namespace, "kubeconfig": site.plane.kubeconfig})).cluster
