"""
One container of a pod: pulled, started, probed, started again.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states and #restart-policy; for the words of waiting
pkg/kubelet/images/image_manager.go, pkg/kubelet/kuberuntime/kuberuntime_manager.go (doBackOff) in kubernetes/kubernetes.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.kubernetes.kubelet.api import Object
from tests.kubernetes.kubelet.probes import Probe
from tests.kubernetes.kubelet.processes import Image, Running, start
from tests.kubernetes.kubelet.volumes import ConfigError, Mount, Sources, environment, expanded, mounts

# A kubelet waits twice as long each time: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restarts.
_BACKOFF_S, _BACKOFF_MAX_S = 10.0, 300.0
# It forgets when a container has run for as long as that.
_FORGIVEN_S = 600.0


def written(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Pod:
    """What a pod's containers have in common."""

    uid: str
    name: str
    namespace: str
    pause: int
    address: str
    place: Path
    claims: Path
    sources: Sources
    tell: Callable[[str, str, str, str], None]
    image: Callable[[str], Image | None]

    @property
    def full_name(self) -> str:
        return f"{self.name}_{self.namespace}({self.uid})"


@dataclass(slots=True)
class Container:
    """*state* and *last* are as a status has them; *over* says that it isn't started again."""

    pod: Pod
    said: Object
    volumes: list[Object]
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict)
    running: Running | None = None
    restarts: int = 0
    over: bool = False
    probes: dict[str, Probe] = field(default_factory=dict)
    _id: str = ""
    _pulled: bool = False
    _backoff_s: float = 0.0
    _due: float = 0.0

    @property
    def name(self) -> str:
        return str(self.said["name"])

    @property
    def log(self) -> Path:
        return self.pod.place / self.name / f"{self.restarts}.log"

    @property
    def started(self) -> bool:
        startup = self.probes.get("startupProbe")
        return self.running is not None and (startup is None or startup.passing is True)

    @property
    def ready(self) -> bool:
        if self.running is None or not self.started:
            return False
        probe = self.probes.get("readinessProbe")
        return probe is None or probe.passing is True

    def prepare(self) -> None:
        ports = {one["name"]: int(one["containerPort"]) for one in self.said.get("ports") or [] if "name" in one}
        for key in ("startupProbe", "readinessProbe", "livenessProbe"):
            if self.said.get(key):
                self.probes[key] = Probe(self.said[key], ports, self.pod.address)

    def begin(self) -> None:
        """Pull and start it, if it is time for that."""
        if time.monotonic() < self._due:
            return
        image = self._pull()
        if image is None:
            return
        try:
            self._start(image)
        except ConfigError as error:
            self._wait("CreateContainerConfigError", str(error))
            self.pod.tell("Warning", "Failed", f"Error: {error}", self.name)
            self._due = time.monotonic() + 2.0
        except OSError as error:
            self._wait("RunContainerError", str(error))
            self.pod.tell("Warning", "Failed", f"Error: {error}", self.name)
            self._due = time.monotonic() + _BACKOFF_S

    def _pull(self) -> Image | None:
        name = self.said["image"]
        if not self._pulled:
            self.pod.tell("Normal", "Pulling", f'Pulling image "{name}"', self.name)
        image = self.pod.image(name)
        if image is not None:
            if not self._pulled:
                self.pod.tell("Normal", "Pulled", f'Successfully pulled image "{name}" in 1ms. Image size: 1 bytes.', self.name)
                self._backoff_s = 0.0
            self._pulled = True
            return image
        why = f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found'
        if self.state.get("waiting", {}).get("reason") == "ErrImagePull":
            # Between two tries it says that it waits.
            self._wait("ImagePullBackOff", f'Back-off pulling image "{name}": ErrImagePull: rpc error: code = NotFound desc = {why}')
            self.pod.tell("Normal", "BackOff", f'Back-off pulling image "{name}"', self.name)
            self.pod.tell("Warning", "Failed", "Error: ImagePullBackOff", self.name)
            self._backoff_s = min(_BACKOFF_MAX_S, self._backoff_s * 2 or _BACKOFF_S)
            self._due = time.monotonic() + self._backoff_s
            return None
        self._wait("ErrImagePull", f"rpc error: code = NotFound desc = {why}")
        self.pod.tell("Warning", "Failed", f'Failed to pull image "{name}": rpc error: code = NotFound desc = {why}', self.name)
        self.pod.tell("Warning", "Failed", "Error: ErrImagePull", self.name)
        self._due = time.monotonic() + 1.0
        return None

    def _wait(self, reason: str, message: str) -> None:
        self.state = {"waiting": {"reason": reason, "message": message}}

    def _start(self, image: Image) -> None:
        env = environment(self.pod.sources, self.said, image.environment(self.pod.name))
        command = [*(self.said.get("command") or image.command)]
        if not command:
            raise ConfigError(f"no command specified: {self.said['image']} has none of its own")
        argv = [expanded(one, env) for one in [*command, *(self.said.get("args") or [])]]
        where: list[Mount] = mounts(self.pod.sources, self.volumes, self.said, self.pod.place, self.pod.claims)
        directory = self.said.get("workingDir") or str(image.directory)
        root = self.pod.place / self.name / "root"
        self.running = start(self.pod.pause, argv, directory, env, where, root, self.log)
        (self.pod.place / self.name / "pid").write_text(str(self.running.process.pid))
        self._id = f"process://{uuid.uuid4().hex}"
        self.state = {"running": {"startedAt": written(self.running.began)}}
        self.pod.tell("Normal", "Created", "Container created", self.name)
        self.pod.tell("Normal", "Started", "Container started", self.name)
        for probe in self.probes.values():
            probe.begin()

    def look(self, policy: str) -> None:
        """See whether it has ended, and when to start it again."""
        if self.running is None:
            if not self.over and "waiting" in self.state:
                self.begin()
            return
        lasted_s = (datetime.now(UTC) - self.running.began).total_seconds()
        end = self._ended()
        if end is None:
            return
        if policy == "Never" or (policy == "OnFailure" and end["exitCode"] == 0):
            self.over, self.state = True, {"terminated": end}
            return
        self.last = {"terminated": end}
        self.restarts += 1
        if lasted_s > _FORGIVEN_S:
            self._backoff_s = 0.0
        if self._backoff_s:
            said = f"back-off {_spoken(self._backoff_s)} restarting failed container={self.name} pod={self.pod.full_name}"
            self._wait("CrashLoopBackOff", said)
            self.pod.tell("Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod {self.pod.full_name}", self.name)
            self._due = time.monotonic() + self._backoff_s
        else:
            # The first time it is started again at once.
            self.state = {"waiting": {"reason": "ContainerCreating"}}
            self._due = 0.0
        self._backoff_s = min(_BACKOFF_MAX_S, self._backoff_s * 2 or _BACKOFF_S)

    def probe(self, *, ending: bool) -> bool:
        """Ask the probes; tell whether it must be started again. One that is to end is only asked whether it is ready."""
        if self.running is None:
            return False
        startup = self.probes.get("startupProbe")
        if startup is not None and startup.passing is not True:
            return False if ending else self._failing("startupProbe", "Startup")
        self._failing("readinessProbe", "Readiness")
        return False if ending else self._failing("livenessProbe", "Liveness")

    def _failing(self, key: str, spoken: str) -> bool:
        probe = self.probes.get(key)
        if probe is None or self.running is None or not probe.ask(self.running):
            return False
        if not probe.last:
            self.pod.tell("Warning", "Unhealthy", f"{spoken} probe failed: {probe.output}", self.name)
        return probe.passing is False

    def end(self) -> None:
        """See whether it has ended, where its pod ends."""
        if (end := self._ended()) is not None:
            self.over, self.state = True, {"terminated": end}

    def _ended(self) -> Object | None:
        """Return how it ended, with all that it had begun; None while it runs, or when that was told before."""
        if self.running is None or (code := self.running.exit_code()) is None:
            return None
        self.running.kill()
        began, self.running = self.running.began, None
        reason = "Completed" if code == 0 else "Error"
        now = written(datetime.now(UTC))
        return {"exitCode": code, "reason": reason, "startedAt": written(began), "finishedAt": now, "containerID": self._id}

    def status(self) -> Object:
        told = {
            "name": self.name,
            "image": self.said["image"],
            "imageID": f"directory://{self.said['image']}" if self._pulled else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }
        return told | ({"containerID": self._id} if self._id else {})


def _spoken(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
