"""A node for tests, whose pods are processes of this machine; the other side of tests/kubernetes/kubelet/__main__.py."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


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

    def image(self, name: str, directory: Path, env: Mapping[str, str] | None = None) -> None:
        """
        Let *name* be an image: its programs are those in *directory*/bin (a virtual environment, say), or else in *directory* itself, which
        is also where commands are run unless the container has a workingDir; *env* is its environment, which a container's own goes before.
        """
        self._images[name] = {"directory": str(directory), "env": dict(env or {})}
        self._write()

    def forget_image(self, name: str) -> None:
        """Let it not be pulled from now on; what runs goes on."""
        del self._images[name]
        self._write()

    def process(self, pod: str, container: str) -> int:
        """Return the process id, as this machine counts, of a container that runs: for tests that kill it."""
        raise NotImplementedError(self.place, pod, container)

    def _write(self) -> None:
        new = self.place / "images.new"
        new.write_text(json.dumps(self._images))
        new.replace(self.place / "images.json")


@contextmanager
def node(kubeconfig: Path, namespace: str, place: Path) -> Iterator[Kubelet]:
    """Run one for a namespace, with its files below *place*; nothing of it is left afterwards."""
    raise NotImplementedError(kubeconfig, namespace, place)
    yield
