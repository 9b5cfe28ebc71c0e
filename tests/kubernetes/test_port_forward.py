"""Ports of pods through the API server: for the official client, and for what the drivers have of their own."""

import time
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.stream import portforward

from rollout.adapters.kubernetes.access import ClusterSettings
from rollout.adapters.kubernetes.cluster import Cluster, ForbiddenError
from rollout.adapters.kubernetes.looking import looking
from rollout.adapters.kubernetes.port_forward import forward
from rollout.model.errors import TransientDriverError
from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import Hand, eventually, hand, pod
from tests.kubernetes.kubelet.node import Kubelet

# What it hears it says again, in capitals; on its own loopback. It ends a connection after a line with "bye".
_ECHO = """#!/usr/bin/python3
import socketserver
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper() * (20000 if line.startswith(b"much") else 1))
            if line.startswith(b"bye"):
                return
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
Server(("127.0.0.1", 7000), Answer).serve_forever()
"""
ECHO, NOBODY = 7000, 7001


@pytest.fixture
def it(control_plane: ControlPlane, kubelet: Kubelet, tmp_path: Path) -> Hand:
    """Give a namespace with a pod `echo`."""
    programs = tmp_path / "image/bin"
    programs.mkdir(parents=True)
    (programs / "echo-lines").write_text(_ECHO)
    (programs / "echo-lines").chmod(0o755)
    kubelet.image("example.org/echo:1", tmp_path / "image", {}, ["echo-lines"])
    it = hand(control_plane)
    probe = {"exec": {"command": ["python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {ECHO}))"]}, "periodSeconds": 1}
    container = {"name": "a", "image": "example.org/echo:1", "readinessProbe": probe}
    it.create(pod("echo", containers=[container]))
    eventually(lambda: _is_ready(it), "echo is ready")
    return it


def _is_ready(it: Hand) -> bool:
    told = it.get("Pod", "echo")["status"].get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in told)


def _cluster(plane: ControlPlane, kubeconfig: Path | None = None) -> Cluster:
    settings = {"namespace": plane.namespace, "kubeconfig": str(kubeconfig or plane.kubeconfig)}
    return looking(ClusterSettings.model_validate(settings, strict=False)).cluster


def test_the_official_client_reaches_the_loopback_of_a_pod(control_plane: ControlPlane, it: Hand) -> None:
    del it
    with control_plane.api() as api:
        core = client.CoreV1Api(api)
        ports = portforward(core.connect_get_namespaced_pod_portforward, "echo", control_plane.namespace, ports=f"{ECHO}")
        near = ports.socket(ECHO)
        near.settimeout(10)
        near.sendall(b"hello\n")
        assert near.recv(100) == b"HELLO\n"
        ports.close()


def test_a_connection_carries_both_ways_and_is_at_its_end_when_the_pod_ends_it(control_plane: ControlPlane, it: Hand) -> None:
    """Also what is longer than any buffer on the way, and half a frame is nobody's answer."""
    del it
    connection = forward(_cluster(control_plane), "echo", ECHO, time.monotonic() + 20)
    connection.sendall(b"much of it\n")
    connection.sendall(b"bye\n")
    said = b"".join(iter(lambda: connection.recv(65_536), b""))
    connection.close()
    assert said == b"MUCH OF IT\n" * 20_000 + b"BYE\n"


def test_a_port_on_which_nobody_listens_is_told_once_something_is_read(control_plane: ControlPlane, it: Hand) -> None:
    del it
    connection = forward(_cluster(control_plane), "echo", NOBODY, time.monotonic() + 20)
    with pytest.raises(OSError, match="connection refused"):
        connection.recv(100)
    connection.close()


def test_a_pod_that_is_not_there_is_one_that_has_gone(control_plane: ControlPlane, it: Hand) -> None:
    del it
    with pytest.raises(TransientDriverError, match="pod nobody has gone"):
        forward(_cluster(control_plane), "nobody", ECHO, time.monotonic() + 20)


@pytest.mark.parametrize("verbs", [["get"], ["create"]])
def test_it_takes_both_verbs(control_plane: ControlPlane, it: Hand, verbs: list[str]) -> None:
    """A WebSocket is a GET, and since 1.35 asks for `create` besides."""
    del it
    rules = [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": verbs}]
    kubeconfig = control_plane.account(f"only-{verbs[0]}", rules)
    with pytest.raises(ForbiddenError, match="portforward"):
        forward(_cluster(control_plane, kubeconfig), "echo", ECHO, time.monotonic() + 20)


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_was_said(control_plane: ControlPlane, it: Hand) -> None:
    del it
    began_s = time.monotonic()
    connection = forward(_cluster(control_plane), "echo", ECHO, began_s + 2)
    with pytest.raises(TimeoutError):
        connection.recv(100)
    assert 1.5 < time.monotonic() - began_s < 10
    connection.close()
