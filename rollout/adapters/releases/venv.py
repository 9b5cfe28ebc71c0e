"""
Releases as directories: one virtual environment per recorded lock, one copy per configuration, one link per worker.

```
TARGET/venvs/<lock>/             an environment from a lock with hashes; used only once it holds the file PROVEN
TARGET/configs/<digest>/         a configuration tree
TARGET/releases/<id>/            links to both, and release.json, which is written last: without it the release does not exist
TARGET/current/<worker>          what the worker runs from its next start on; switched by a rename
```

Nothing is ever changed in place, so the way back is one rename. An environment is built where it will stay, because scripts in it name
their own path; a file says that it was proven. Preparing and migrating hold a lock that their child processes inherit: one that outlives
us is waited for, not run twice.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from rollout.adapters.faults import run
from rollout.adapters.releases.artefacts import CHECK, MIGRATION, PROBE, read_lock, room_needed
from rollout.adapters.releases.configuration import HOMESERVER, digest_of, files_in, pools_in, settings_in
from rollout.adapters.releases.identifying import base_of, identified
from rollout.adapters.releases.on_hosts.settings import on_hosts
from rollout.adapters.settings import FilePath, Settings, check
from rollout.agent.acts import switch
from rollout.homeservers.synapse.topology import read_modules, read_topology
from rollout.model.codec import dump_json, load_release
from rollout.model.conditions import Room
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.release import Release, make_release
from rollout.ports.acts import Acts
from rollout.ports.releases import Activation, Releases

PROVEN = "PROVEN"
MANIFEST = "release.json"
LINES_MAX = 12
# What st_blocks counts.
BLOCK_BYTES = 512
# The homeserver on the same machine comes first. Not more: on a busy machine preparing has to end all the same (10 took minutes).
YIELDING = ("nice", "-n", "5")
PROBE_TIMEOUT_S = 60.0


class VenvSettings(Settings):
    """
    *target* is the directory above; *locks* holds `<version>.txt`, pip requirements with hashes. *shared*: this machine and all hosts have
    the same *target* at the same place, so what is done here is done for all.
    """

    target: FilePath
    locks: FilePath
    shared: bool = False


def build(settings: Mapping[str, object], inventory: Inventory) -> Releases:
    """Open the driver: on hosts, if workers run there and share no target. Raises InvalidFileError for settings that don't fit."""
    if settings.get("shared", False) is False and on_hosts(settings, inventory):
        from rollout.adapters.releases.on_hosts.venv import build as build_on_hosts  # noqa: PLC0415  (who needs no hosts doesn't wait)

        return build_on_hosts(settings, inventory)
    checked = check(VenvSettings, settings, "releases_driver")
    return VenvReleases(checked.target, checked.locks, tuple(inventory.workers))


class VenvReleases:
    """See ports.releases."""

    def __init__(self, target: Path, locks: Path, workers: tuple[WorkerId, ...]) -> None:
        self._target = target
        self._locks = locks
        self._workers = workers

    def identify(self, version: str | None, config_from: str | None, base: ReleaseId, *, next_generation: bool) -> Release:
        """See ports.releases. The configuration is copied under its digest, where nothing uses it yet."""
        known = self.prepared()
        old = base_of(known, base, str(self._target))
        # A version that is named is what its lock says today, also when it runs already from an earlier lock.
        lock = old.artefact_lock if version is None else self._digest_of_lock(version)
        config = old.config_digest if config_from is None else self.adopt_config(Path(config_from))
        return identified(old, version or old.version, lock, config, self._settings(config), known, next_generation=next_generation)

    def identify_first(self, version: str, config_from: Path) -> Release:
        """Identify a release where none is yet."""
        config = self.adopt_config(config_from)
        settings = self._settings(config)
        return make_release(version, self._digest_of_lock(version), config, read_modules(settings), 1, read_topology(settings))

    def adopt_config(self, source: Path) -> str:
        """Copy a configuration tree under its digest, and return the digest."""
        digest = digest_of(files_in(source))
        place = self._target / "configs" / digest[:12]
        try:
            if not place.is_dir():
                half = place.with_name(f"{place.name}.{os.getpid()}.half")
                shutil.rmtree(half, ignore_errors=True)
                shutil.copytree(source, half)
                half.rename(place)
        except OSError as error:
            raise PermanentDriverError("the configuration can't be copied", where=str(source), why=str(error)) from error
        return digest

    def prepare(self, release: Release, timeout_s: float) -> Release:
        """See ports.releases."""
        place = self._target / "releases" / release.id
        if (place / MANIFEST).is_file():
            known = load_release((place / MANIFEST).read_text())
            self._check_config(known)
            return known
        with self._one_at_a_time("prepare") as (lock, log):
            venv = self._install(release, lock, log, timeout_s)
            version, schema_version, compat_version, deltas = self._probe(venv)
            if version != release.version:
                raise PermanentDriverError(f"the lock of {release.version} installs {version}", where=str(venv))
            done = replace(release, schema_version=schema_version, schema_compat_version=compat_version, deltas=tuple(deltas))
            place.mkdir(parents=True, exist_ok=True)
            switch(place / "venv", Path("../../venvs") / venv.name)
            switch(place / "config", Path("../../configs") / release.config_digest[:12])
            self._check_config(done)
            _write_durably(place / MANIFEST, dump_json(done, indent=2))
        return done

    def prepared(self) -> dict[ReleaseId, Release]:
        """See ports.releases."""
        found = (load_release(path.read_text()) for path in sorted((self._target / "releases").glob(f"*/{MANIFEST}")))
        return {release.id: release for release in found}

    def migrate(self, release: ReleaseId) -> None:
        """See ports.releases."""
        place = self._place(release)
        command = [str(place / "venv/bin/python"), *MIGRATION]
        command += ["--database-config", str(place / "config/homeserver.yaml")]
        with self._one_at_a_time("migrate") as (lock, log):
            code = subprocess.run(  # noqa: S603  (our own interpreter)
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(lock,),
                check=False,
                cwd=self._target,
            ).returncode
        if code != 0:
            raise PermanentDriverError(f"the migration ended with status {code}", why=_tail(Path(log.name)))

    def activate(self, worker: WorkerId, release: ReleaseId) -> None:
        """See ports.releases."""
        run(self.activate_acts(worker, release))

    def activate_acts(self, worker: WorkerId, release: ReleaseId) -> Acts:
        """See ports.acts."""
        self._place(release)
        return ({"kind": "link", "link": self.link_of(worker), "goal": str(Path("../releases") / release)},)

    def link_of(self, worker: WorkerId) -> str:
        """See ports.acts."""
        return str((self._target / "current" / worker).absolute())

    def activations(self, workers: Sequence[WorkerId]) -> dict[WorkerId, Activation]:
        """See ports.releases."""
        found: dict[WorkerId, Activation] = {}
        for worker in workers:
            link = self._target / "current" / worker
            if link.is_symlink():
                found[worker] = Activation(ReleaseId(link.readlink().name), link.lstat().st_mtime)
        return found

    def room(self, release: Release) -> Room:
        """See ports.releases. What takes room is the environment; a configuration is a few files. Every file of what runs is looked at."""
        try:
            free = shutil.disk_usage(self._target).free
            if (self._venv(release) / PROVEN).is_file():
                return Room(free, 0, "its environment is there already")
            running = {(link / "venv").resolve() for link in (self._target / "current").glob("*")}
            largest = max(map(_size, running), default=0)
        except OSError as error:
            raise TransientDriverError("how much room there is can't be told", where=str(self._target), why=str(error)) from error
        return Room(free, *room_needed(largest))

    def connections(self, release: Release, workers: Sequence[WorkerId]) -> dict[WorkerId, int]:
        """See ports.releases."""
        place = self._target / "configs" / release.config_digest[:12]
        try:
            return pools_in(files_in(place), workers, str(place))
        except PermanentDriverError:
            return {}

    def _venv(self, release: Release) -> Path:
        return self._target / "venvs" / release.artefact_lock[:12]

    def _place(self, release: ReleaseId) -> Path:
        place = self._target / "releases" / release
        if not (place / MANIFEST).is_file():
            raise PermanentDriverError(f"release {release} is not prepared", where=str(place), remedy="let PREPARE end first")
        return place

    def _digest_of_lock(self, version: str) -> str:
        return hashlib.sha256(read_lock(self._locks, version)).hexdigest()

    def _settings(self, config_digest: str) -> dict[str, object]:
        place = self._target / "configs" / config_digest[:12]
        return settings_in(files_in(place), str(place / HOMESERVER))

    def _install(self, release: Release, lock: int, log: IO[bytes], timeout_s: float) -> Path:
        venv = self._venv(release)
        if (venv / PROVEN).is_file():
            return venv
        requirements = self._locks / f"{release.version}.txt"
        if self._digest_of_lock(release.version) != release.artefact_lock:
            what = f"the lock of {release.version} has changed since the release was identified"
            raise PermanentDriverError(what, where=str(requirements), remedy="plan again")
        room = self.room(release)
        if room.free_bytes < room.needed_bytes:
            why = f"{room.free_bytes // 1_000_000} MB are free, {room.needed_bytes // 1_000_000} MB are needed ({room.basis})"
            raise PermanentDriverError("the disk is too full for a release", where=str(self._target), why=why)
        shutil.rmtree(venv, ignore_errors=True)
        venv.parent.mkdir(parents=True, exist_ok=True)
        python = str(venv / "bin/python")
        for command in (
            [sys.executable, "-m", "venv", str(venv)],
            [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--require-hashes", "-r", str(requirements)],
        ):
            _run(command, log, lock, timeout_s, cwd=self._locks)
        version, *_ = self._probe(venv)
        _write_durably(venv / PROVEN, f"{version}\n")
        return venv

    def _probe(self, venv: Path) -> tuple[str, int, int, list[str]]:
        said = self._python(venv, PROBE, (), "the release doesn't import")
        version, schema_version, compat_version, deltas = json.loads(said)
        return version, schema_version, compat_version, deltas

    def _check_config(self, release: Release) -> None:
        """Let Synapse itself read the configuration of every worker, in one process."""
        place = self._target / "releases" / release.id
        own = {worker: place / "config/workers" / f"{worker}.yaml" for worker in self._workers}
        paths = {worker: [str(place / "config/homeserver.yaml"), *([str(path)] if path.is_file() else [])] for worker, path in own.items()}
        self._python(place / "venv", CHECK, (json.dumps(paths),), f"Synapse {release.version} refuses the configuration")

    @staticmethod
    def _python(venv: Path, program: str, arguments: Sequence[str], what: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603  (our own interpreter and program)
                [*YIELDING, str(venv / "bin/python"), "-c", program, *arguments],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=PROBE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TransientDriverError(f"{what}: no answer within {PROBE_TIMEOUT_S:.0f} s", where=str(venv)) from error
        except OSError as error:
            raise PermanentDriverError(what, where=str(venv), why=str(error)) from error
        if done.returncode != 0:
            raise PermanentDriverError(what, where=str(venv), why="\n".join(done.stderr.strip().splitlines()[-LINES_MAX:]))
        return done.stdout

    @contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[tuple[int, IO[bytes]]]:
        """Hold a lock that child processes inherit, and open their log."""
        directory = self._target / "rollout"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{name}.lock").open("w") as lock, (directory / f"{name}.log").open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno(), log


def _size(directory: Path) -> int:
    """Count the bytes on disk below a directory, links not followed."""
    return sum(path.lstat().st_blocks * BLOCK_BYTES for path in directory.rglob("*"))


def _run(command: Sequence[str], log: IO[bytes], lock: int, timeout_s: float, *, cwd: Path) -> None:
    # In a process group of its own, so that what it starts itself ends with it.
    with subprocess.Popen(  # noqa: S603  (a list, written above)
        [*YIELDING, *command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=(lock,), cwd=cwd, process_group=0
    ) as process:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise OutcomeUnknownError(f"installing took longer than {timeout_s:.0f} s", why=_tail(Path(log.name))) from error
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        raise PermanentDriverError(f"installing ended with status {code}", why=_tail(Path(log.name)))


def _write_durably(path: Path, text: str) -> None:
    half = path.with_name(f"{path.name}.half")
    with half.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-LINES_MAX:])
