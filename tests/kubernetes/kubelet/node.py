"""A node for tests, whose pods are processes of this machine; the other side of tests/kubernetes/kubelet/__main__.py."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from kubernetes.client import ApiException

from rollout.lab.processes import wait_until
from tests.kubernetes.kubelet.api import LOST, Server

_NEEDED = ("ip", "unshare", "nsenter", "mount", "chroot")
_ROOT = Path(__file__).parents[3]
_BEGINS_S, _ENDS_S = 30, 20


@dataclass(frozen=True, slots=True)
class Kubelet:
    """
    *name*: that of its Node. It has the labels of `Kubelet.labels`, and binds pods of its one namespace that nobody else has bound.

    A pod's command is run with the programs of its image first in PATH, in a network of the pod's own, whose address (status.podIP) can be
    reached from the test and from other pods. An image that nobody has named is one that can't be pulled.
    """

    name: str
    place: Path
    labels: Mapping[str, str]
    _images: dict[str, dict[str, object]] = field(default_factory=dict)

    def image(self, name: str, directory: Path, env: Mapping[str, str] | None = None, command: Sequence[str] = ()) -> None:
        """
        Let *name* be an image: its programs are those in *directory*/bin (a virtual environment, say), or else in *directory* itself, which
        is also where commands are run unless the container has a workingDir; *env* is its environment, which a container's own goes before.
        *command* is what a container without a command runs.
        """
        self._images[name] = {"directory": str(directory), "env": dict(env or {}), "command": list(command)}
        self._write()

    def process(self, pod: str, container: str) -> int:
        """Return the process id, as this machine counts, of a container that runs: for tests that kill it."""
        uid_of = {one.read_text(): one.parent for one in self.place.glob("pods/*/name")}
        inner = (uid_of[pod] / container / "pid").read_text()
        ours = Path(f"/proc/{(self.place / 'pid').read_text()}/ns/pid_for_children").readlink()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ids = next(line.split() for line in (place / "status").read_text().splitlines() if line.startswith("NSpid:"))
                if ids[-1] == inner and len(ids) > 2 and (place / "ns/pid").readlink() == ours:
                    return int(place.name)
        raise LookupError(f"{container} of {pod} doesn't run")

    def _write(self) -> None:
        new = self.place / "images.new"
        new.write_text(json.dumps(self._images))
        new.replace(self.place / "images.json")


@contextmanager
def node(kubeconfig: Path, namespace: str, place: Path) -> Iterator[Kubelet]:
    """
    Run one for a namespace, with its files below *place*; nothing of it is left afterwards.

    Skips where that can't be done, or fails where it must be possible.
    """
    if why := _what_is_missing():
        _cannot(why)
    place.mkdir(parents=True)
    name = f"node-{namespace.rpartition('-')[2]}"
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    kubelet = Kubelet(name, place, labels)
    (place / "images.json").write_text("{}")
    arguments = [str(kubeconfig), namespace, name, str(place), json.dumps(labels)]
    # With it end all the processes that it has begun, and the networks and mounts that only they hold; even a SIGKILL leaves nothing.
    inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    with (place / "kubelet.log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "tests.kubernetes.kubelet", *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=_ROOT,
        )
    assert process.stdin is not None
    try:
        (place / "pid").write_text(str(process.pid))
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: (place / "ready").exists() or process.poll() is not None, _BEGINS_S, "the kubelet is ready")
        said = (place / "kubelet.log").read_text()
        if "can be made" in said:
            _cannot(said.splitlines()[-1])
        assert (place / "ready").exists(), said
        yield kubelet
        assert process.poll() is None, (place / "kubelet.log").read_text()
    finally:
        process.stdin.close()
        process.wait(_ENDS_S)
        _leave(kubeconfig, namespace, name)


def _leave(kubeconfig: Path, namespace: str, name: str) -> None:
    """Take the node and its pods out of a control plane that goes on, and that nobody else would take them out of."""
    server = Server(kubeconfig)
    now = {"gracePeriodSeconds": 0}
    with contextlib.suppress(ApiException, *LOST):
        pods = f"/api/v1/namespaces/{namespace}/pods"
        for pod in server.ask("GET", pods, fieldSelector=f"spec.nodeName={name}")["items"]:
            with contextlib.suppress(ApiException):
                server.ask("DELETE", f"{pods}/{pod['metadata']['name']}", now)
    for path in (f"/api/v1/nodes/{name}", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"):
        with contextlib.suppress(ApiException, *LOST):
            server.ask("DELETE", path)


def _what_is_missing() -> str:
    if os.geteuid() != 0:
        return "pods in namespaces are made by root only"
    missing = [name for name in _NEEDED if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    return f"not installed: {', '.join(missing)} (.ci/run installs them)" if missing else ""


def _cannot(why: str) -> NoReturn:
    if os.environ.get("ROLLOUT_ALL_HOSTS"):
        pytest.fail(f"{why}, and here it must be possible")
    pytest.skip(why)
