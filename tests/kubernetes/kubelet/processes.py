"""
A container, as a process of this machine: in its pod's network, and with its volumes where it wants them.

Its root is the machine's own, so that an image is just a directory with programs. Where there are volumes, it gets a root of its own, in
which every directory at the top is the machine's, and a place for a volume that the machine doesn't have is made without making it there.
"""

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.kubernetes.kubelet.volumes import Mount

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Image:
    directory: Path
    env: Mapping[str, str]
    command: Sequence[str]

    def environment(self, hostname: str) -> dict[str, str]:
        programs = self.directory / "bin"
        path = f"{programs if programs.is_dir() else self.directory}:{_PATH}"
        return {"HOME": "/", "LANG": "C.UTF-8", "PATH": path, "HOSTNAME": hostname, **self.env}


@dataclass(slots=True)
class Running:
    """A process that has begun; its lines are in *log*, each after the time when it was written."""

    process: "subprocess.Popen[bytes]"
    log: Path
    env: dict[str, str]
    began: datetime
    _reader: threading.Thread | None = field(default=None)

    def read(self) -> None:
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def _copy(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said, self.log.open("ab", buffering=0) as log:
            for line in said:
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                log.write(f"{now} ".encode() + line.rstrip(b"\n") + b"\n")

    def exit_code(self) -> int | None:
        """Return it as a container's runtime does: 128 and more for a signal."""
        code = self.process.poll()
        if code is not None and self._reader is not None:
            # What it said last; a child that lives on may keep the pipe open.
            self._reader.join(0.2)
        return code if code is None or code >= 0 else 128 - code

    def ask_to_end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it with all that it has begun."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def inside(self) -> list[str]:
        """Return what a command goes after, to be run in the container."""
        return ["nsenter", "-t", str(self.process.pid), "--net", "--mount", "--root", "--wd", "--"]


def start(pause: int, argv: Sequence[str], directory: str, env: dict[str, str], mounts: Sequence[Mount], root: Path, log: Path) -> Running:
    """Start a container's command; raises OSError where that can't be done."""
    if mounts:
        root.mkdir(parents=True, exist_ok=True)
        script = f"{_root(root, mounts)}exec chroot {shlex.quote(str(root))} {_inside(directory)}"
        command = [
            "nsenter",
            "-t",
            str(pause),
            "-n",
            "--",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
            *argv,
        ]
    else:
        command = ["nsenter", "-t", str(pause), "-n", "--", "sh", "-ec", f"exec {_inside(directory)}", "sh", *argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, start_new_session=True
    )
    running = Running(process, log, env, datetime.now(UTC))
    running.read()
    return running


def _inside(directory: str) -> str:
    return f'env --chdir={shlex.quote(directory)} -- "$@"'


def _root(root: Path, mounts: Sequence[Mount]) -> str:
    """Return the commands that make a root with volumes; they are run in a mount namespace that ends with the container."""
    new = shlex.quote(str(root))
    top = {Path(mount.target).parts[1] for mount in mounts if not Path(mount.target).exists()}
    lines = [f"mount -t tmpfs -o mode=755 tmpfs {new}", f"mkdir {new}/.upper {new}/.work"]
    for entry in sorted(Path("/").iterdir()):
        here, there = shlex.quote(str(entry)), f"{new}/{shlex.quote(entry.name)}"
        if entry.is_symlink():
            lines.append(f"cp -P {here} {there}")
        elif not entry.is_dir():
            lines.append(f"touch {there} && mount --bind {here} {there}")
        elif entry.name in top:
            upper, work = f"{new}/.upper/{shlex.quote(entry.name)}", f"{new}/.work/{shlex.quote(entry.name)}"
            lines.append(f"mkdir {there} {upper} {work}")
            lines.append(f"mount -t overlay -o lowerdir={here},upperdir={upper},workdir={work} overlay {there}")
        else:
            lines.append(f"mkdir {there} && mount --rbind {here} {there}")
    for mount in mounts:
        source, target = shlex.quote(str(mount.source)), f"{new}{shlex.quote(mount.target)}"
        make = f"mkdir -p {target}" if mount.source.is_dir() else f"mkdir -p $(dirname {target}) && touch {target}"
        lines.append(f"[ -e {target} ] || {{ {make}; }}; mount --bind {source} {target}")
        if mount.read_only:
            lines.append(f"mount -o remount,bind,ro {target}")
    return "\n".join([*lines, ""])
