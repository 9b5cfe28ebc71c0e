"""The node that tests bring: pods are processes, and their statuses what a kubelet says. Without the stand-in's insides, as all here."""

import os
import signal
import time
from pathlib import Path

import pytest
import requests

from tests.kubernetes.bed import ControlPlane
from tests.kubernetes.hand import Hand, eventually, hand, pod, stateful_set
from tests.kubernetes.kubelet.api import Object
from tests.kubernetes.kubelet.node import Kubelet

_SERVE = """#!/usr/bin/python3
import http.server, os, pathlib, signal, sys, time

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sick = pathlib.Path("SICK").exists()
        body = (os.environ.get("SAYS", "") + " " + os.environ.get("POD", "")).encode()
        self.send_response(503 if sick and self.path != "/" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

def end(*_):
    print("ends", flush=True)
    time.sleep(float(os.environ.get("LINGERS", "0")))
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
print("begins", flush=True)
http.server.HTTPServer(("", 8080), Answer).serve_forever()
"""
# Longer than any test waits.
_LONG_S = 600
_PROBE = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}


@pytest.fixture
def image(kubelet: Kubelet, tmp_path: Path) -> Path:
    """Give the directory of an image that has `serve`, which answers on port 8080."""
    programs = tmp_path / "image/bin"
    programs.mkdir(parents=True)
    (programs / "serve").write_text(_SERVE)
    (programs / "serve").chmod(0o755)
    kubelet.image("example.org/a:1", tmp_path / "image", {"SAYS": "one"}, ["serve"])
    return tmp_path / "image"


def _serving(name: str, **more: object) -> Object:
    env = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    container = {"name": "a", "image": "example.org/a:1", "readinessProbe": _PROBE, "env": env, **more}
    return pod(name, containers=[container])


def _conditions(it: Hand, name: str) -> dict[str, tuple[str, str]]:
    told = it.get("Pod", name)["status"].get("conditions") or []
    return {one["type"]: (one["status"], one.get("reason") or "") for one in told}


def _is_ready(it: Hand, name: str) -> bool:
    return _conditions(it, name).get("Ready", ("", ""))[0] == "True"


def _container(it: Hand, name: str) -> Object:
    return (it.get("Pod", name)["status"].get("containerStatuses") or [{}])[0]  # type: ignore[no-any-return]


def _reasons(it: Hand, name: str) -> set[str]:
    return {one["reason"] for one in it.list("Event", fieldSelector=f"involvedObject.name={name}")["items"]}


def _log(it: Hand, control_plane: ControlPlane, name: str, **query: object) -> str:
    from kubernetes import client  # noqa: PLC0415

    with control_plane.api() as api:
        return str(client.CoreV1Api(api).read_namespaced_pod_log(name, it.namespace, **query))  # type: ignore[arg-type]


@pytest.mark.usefixtures("image")
def test_pod_runs_is_reached_and_ends_when_it_is_asked(control_plane: ControlPlane, kubelet: Kubelet) -> None:
    it = hand(control_plane)
    it.create(_serving("a"))
    eventually(lambda: _is_ready(it, "a"), "a is ready")
    status = it.get("Pod", "a")["status"]
    assert status["phase"] == "Running"
    assert it.get("Pod", "a")["spec"]["nodeName"] == kubelet.name
    assert _container(it, "a")["state"]["running"]["startedAt"]
    said = requests.get(f"http://{status['podIP']}:8080/", timeout=5).text
    assert said == "one a"
    assert "begins" in _log(it, control_plane, "a")
    assert {"Scheduled", "Pulled", "Created", "Started"} <= _reasons(it, "a")
    # Nobody waits for so long that it would be killed.
    it.delete("Pod", "a", gracePeriodSeconds=_LONG_S)
    eventually(lambda: it.find("Pod", "a") is None, "it is gone")
    assert "Killing" in _reasons(it, "a")


@pytest.mark.usefixtures("image", "kubelet")
def test_pod_that_does_not_end_is_killed_when_its_grace_is_over(control_plane: ControlPlane) -> None:
    """It isn't killed before; that it is killed then is seen by its being gone long before it would have ended."""
    it = hand(control_plane)
    it.create(_serving("a", env=[{"name": "LINGERS", "value": str(_LONG_S)}]))
    eventually(lambda: _is_ready(it, "a"), "a is ready")
    before = time.monotonic()
    it.delete("Pod", "a", gracePeriodSeconds=2)
    eventually(lambda: it.find("Pod", "a") is None, "it is gone")
    assert time.monotonic() - before > 1.5


@pytest.mark.usefixtures("image", "kubelet")
def test_a_secret_that_comes_late_is_waited_for(control_plane: ControlPlane) -> None:
    """And then all of it is there."""
    it = hand(control_plane)
    late = _serving("a", volumeMounts=[{"name": "s", "mountPath": "/rollout-late"}], command=["sh", "-c", "cat /rollout-late/*; serve"])
    late["spec"]["volumes"] = [{"name": "s", "secret": {"secretName": "late"}}]
    it.create(late)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "late" not found'}
    eventually(lambda: _container(it, "a").get("state", {}).get("waiting") == waiting, "it waits")
    it.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "data": {"one": "MQo=", "two": "Mgo="}})
    eventually(lambda: _is_ready(it, "a"), "a is ready")
    assert _log(it, control_plane, "a").split()[:2] == ["1", "2"]


@pytest.mark.usefixtures("image")
def test_pods_have_ports_and_volumes_of_their_own(control_plane: ControlPlane, kubelet: Kubelet) -> None:
    """Where the machine has no such directory, and where it has one."""
    it = hand(control_plane)
    it.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": "value"}})
    it.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "secret"}})
    volumes = [{"name": "c", "configMap": {"name": "c"}}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "e", "emptyDir": {}}]
    mounts = [
        {"name": "c", "mountPath": "/conf-of-test"},
        {"name": "s", "mountPath": "/etc/secret-of-test/key", "subPath": "key", "readOnly": True},
        {"name": "e", "mountPath": "/usr/share/of-test"},
    ]
    script = "cat /conf-of-test/key; cat /etc/secret-of-test/key; echo; echo here >/usr/share/of-test/x; echo $FROM; exec serve"
    env = [{"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}}]
    for name in ("a", "b"):
        one = _serving(name, command=["sh", "-ec", script], volumeMounts=mounts, env=env)
        one["spec"]["volumes"] = volumes
        it.create(one)
    for name in ("a", "b"):
        eventually(lambda name=name: _is_ready(it, name), f"{name} is ready")  # type: ignore[misc]
        assert _log(it, control_plane, name).startswith("valuesecret\nsecret\nbegins")
    assert not Path("/conf-of-test").exists()
    assert not Path("/etc/secret-of-test").exists()
    assert not Path("/usr/share/of-test").exists()
    assert kubelet.process("a", "a") != kubelet.process("b", "a")


@pytest.mark.usefixtures("image", "kubelet")
def test_readiness_gate_counts_into_ready(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    one = _serving("a")
    one["spec"]["readinessGates"] = [{"conditionType": "example.org/admitted"}]
    it.create(one)
    eventually(lambda: _conditions(it, "a").get("ContainersReady", ("", ""))[0] == "True", "its container is ready")
    assert _conditions(it, "a")["Ready"] == ("False", "ReadinessGatesNotReady")
    gate = {"type": "example.org/admitted", "status": "True"}
    it.patch("Pod", "a", {"status": {"conditions": [gate]}}, subresource="status")
    eventually(lambda: _is_ready(it, "a"), "it is ready")
    it.patch("Pod", "a", {"status": {"conditions": [gate | {"status": "False"}]}}, subresource="status")
    eventually(lambda: not _is_ready(it, "a"), "it is ready no more")


@pytest.mark.usefixtures("kubelet")
def test_probe_that_fails_takes_ready_away(control_plane: ControlPlane, image: Path) -> None:
    it = hand(control_plane)
    it.create(_serving("a"))
    eventually(lambda: _is_ready(it, "a"), "it is ready")
    (image / "SICK").touch()
    eventually(lambda: not _is_ready(it, "a"), "it is ready no more")
    assert _conditions(it, "a")["Ready"] == ("False", "ContainersNotReady")
    assert it.get("Pod", "a")["status"]["phase"] == "Running"
    assert _container(it, "a")["restartCount"] == 0
    eventually(lambda: "Unhealthy" in _reasons(it, "a"), "an event tells of it")


@pytest.mark.usefixtures("kubelet")
def test_liveness_starts_a_container_again(control_plane: ControlPlane, image: Path) -> None:
    it = hand(control_plane)
    it.create(_serving("a", livenessProbe=_PROBE | {"initialDelaySeconds": 3}))
    eventually(lambda: _is_ready(it, "a"), "it is ready")
    (image / "SICK").touch()
    eventually(lambda: _container(it, "a").get("restartCount", 0) > 0, "it is started again")
    (image / "SICK").unlink()
    assert it.get("Pod", "a")["status"]["phase"] == "Running"


@pytest.mark.usefixtures("image")
def test_killed_container_is_started_again_in_the_same_pod(control_plane: ControlPlane, kubelet: Kubelet) -> None:
    it = hand(control_plane)
    it.create(_serving("a"))
    eventually(lambda: _is_ready(it, "a"), "it is ready")
    address = it.get("Pod", "a")["status"]["podIP"]
    os.kill(kubelet.process("a", "a"), signal.SIGKILL)
    eventually(lambda: _container(it, "a")["restartCount"] == 1 and _is_ready(it, "a"), "it is back")
    assert _container(it, "a")["lastState"]["terminated"]["exitCode"] == 137
    assert it.get("Pod", "a")["status"]["podIP"] == address


@pytest.mark.usefixtures("image", "kubelet")
def test_container_that_ends_again_and_again_is_in_a_crash_loop(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    it.create(_serving("a", command=["sh", "-c", "echo it is broken; exit 3"]))
    waiting = eventually(lambda: _container(it, "a").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff", "it loops")
    assert waiting
    told = _container(it, "a")
    assert told["lastState"]["terminated"]["exitCode"] == 3
    assert told["lastState"]["terminated"]["reason"] == "Error"
    assert told["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=a pod=a_")
    assert it.get("Pod", "a")["status"]["phase"] == "Running"
    assert _log(it, control_plane, "a") == "it is broken\n"
    assert _log(it, control_plane, "a", previous=True, tail_lines=1) == "it is broken\n"
    eventually(lambda: "BackOff" in _reasons(it, "a"), "an event tells of it")


@pytest.mark.usefixtures("image")
def test_image_that_nobody_knows_cannot_be_pulled(control_plane: ControlPlane, kubelet: Kubelet, image: Path) -> None:
    it = hand(control_plane)
    it.create(_serving("a", image="example.org/none:1"))
    eventually(lambda: _container(it, "a").get("state", {}).get("waiting", {}).get("reason") == "ImagePullBackOff", "it waits")
    assert it.get("Pod", "a")["status"]["phase"] == "Pending"
    assert {"Failed", "BackOff"} <= _reasons(it, "a")
    kubelet.image("example.org/none:1", image, {}, ["serve"])
    eventually(lambda: _is_ready(it, "a"), "it is pulled in the end")


@pytest.mark.usefixtures("image", "kubelet")
def test_pod_that_fits_no_node_stays_pending(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    one = _serving("a")
    one["spec"]["nodeSelector"] = {"example.org/there": "nowhere"}
    it.create(one)
    eventually(lambda: _conditions(it, "a").get("PodScheduled") == ("False", "Unschedulable"), "it is said")
    assert it.get("Pod", "a")["status"]["phase"] == "Pending"
    eventually(lambda: "FailedScheduling" in _reasons(it, "a"), "an event tells of it")
    it.create(_serving("b", resources={"requests": {"memory": "1000Gi"}}))
    eventually(lambda: _conditions(it, "b").get("PodScheduled") == ("False", "Unschedulable"), "it is said of the other")


@pytest.mark.usefixtures("image", "kubelet")
def test_stateful_set_rolls_with_real_processes(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    one = stateful_set("a", replicas=2)
    one["spec"]["template"]["spec"]["containers"][0] |= {"readinessProbe": _PROBE}
    it.create(one)
    eventually(lambda: it.get("StatefulSet", "a")["status"].get("readyReplicas") == 2, "both are ready")
    patch = {"spec": {"template": {"metadata": {"annotations": {"example.org/again": "1"}}}}}
    it.patch("StatefulSet", "a", patch)

    def done() -> bool:
        status = it.get("StatefulSet", "a")["status"]
        return bool(
            status["observedGeneration"] == 2 and status["currentRevision"] == status["updateRevision"] and status.get("readyReplicas") == 2
        )

    eventually(done, "both have been replaced")
    assert all(one["metadata"]["annotations"]["example.org/again"] == "1" for one in it.pods("app=a").values())


@pytest.mark.usefixtures("image", "kubelet")
def test_job_runs_to_its_end(control_plane: ControlPlane) -> None:
    it = hand(control_plane)
    for name, code in (("good", 0), ("bad", 4)):
        container = {"name": "a", "image": "example.org/a:1", "command": ["sh", "-c", f"echo done; exit {code}"]}
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        spec = {"template": template, "backoffLimit": 0}
        it.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})

    def ended(name: str) -> list[str]:
        told = it.get("Job", name)["status"].get("conditions") or []
        return [one["type"] for one in told if one["type"] in {"Complete", "Failed"} and one["status"] == "True"]

    assert eventually(lambda: ended("good"), "it has ended") == ["Complete"]
    assert eventually(lambda: ended("bad"), "it has ended") == ["Failed"]
    failed = next(iter(it.pods("job-name=bad").values()))
    assert failed["status"]["phase"] == "Failed"
    assert failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4


@pytest.mark.usefixtures("image")
def test_node_is_there_and_keeps_its_lease(control_plane: ControlPlane, kubelet: Kubelet) -> None:
    it = hand(control_plane)
    node = it.get("Node", kubelet.name)
    assert [one["status"] for one in node["status"]["conditions"] if one["type"] == "Ready"] == ["True"]
    lease = eventually(
        lambda: it.server.ask("GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{kubelet.name}"), "its lease is there"
    )
    assert lease["spec"]["holderIdentity"] == kubelet.name
