"""
A job at a host: installing a release, migrating with it, or commands of the user's own; see installing.py, which begins it.

Beside the job's note stands, from its first stage on, `….said`: where it is, or how it ended. It is written by a rename.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

PROVEN = "PROVEN"
MANIFEST = "release.json"
REQUIREMENTS = "requirements.txt"
# What st_blocks counts.
BLOCK_BYTES = 512
LINES_MAX = 12
PROBE_TIMEOUT_S = 60.0
# The homeserver on the same machine comes first.
YIELDING = ("nice", "-n", "5")
_LOCK_AGAIN_S = 0.2
_MB = 1_000_000
# With less than that nothing can be installed, and hardly anything be logged.
_FULL_BYTES = 10 * _MB


def note_of(target: Path, job: str) -> Path:
    return target / "rollout" / "jobs" / f"{job}.json"


def alive(note: Path) -> bool:
    """Tell whether the job's process is there: it holds the note's lock as long as it lives."""
    try:
        with note.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


class Job:
    """What was asked for, and where it is told how it goes."""

    def __init__(self, request: Mapping[str, Any], note: Path) -> None:
        self.request = request
        self.target = Path(request["target"])
        self.end_s = None if request.get("timeout_s") is None else time.monotonic() + request["timeout_s"]
        self._said = note.with_suffix(".json.said")

    def says(self, **what: object) -> None:
        half = self._said.with_suffix(".half")
        half.write_text(json.dumps(what))
        half.rename(self._said)

    def stage(self, stage: str) -> None:
        self.says(state="running", stage=stage)

    def left_s(self) -> float | None:
        return None if self.end_s is None else max(0.1, self.end_s - time.monotonic())


def work(job: Job) -> NoReturn:
    """Do it, leave word of how it ended, and end."""
    try:
        try:
            said = {"outcome": "done", **_KINDS[job.request["kind"]](job)}
        except Fault as fault:
            said = {**fault.as_data(), "outcome": fault.kind}
        except Exception as error:  # noqa: BLE001  (nobody else would ever hear of it)
            # Whatever it was in the middle of: what has happened by then nobody knows.
            said = Fault(UNKNOWN, f"{type(error).__name__}: {error}").as_data() | {"outcome": UNKNOWN}
        job.says(state="ended", **said)
    finally:
        os._exit(0)


class _Alone:
    """Holds a lock that child processes inherit, and has their log open."""

    def __init__(self, job: Job, name: str) -> None:
        self._job = job
        directory = job.target / "rollout"
        self._lock = (directory / f"{name}.lock").open("w")
        job.stage("waiting for what else is being done there")
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if job.end_s is not None and time.monotonic() >= job.end_s:
                    raise Fault(TRANSIENT, f"another {name} is under way there, and has not ended in time", str(directory)) from error
                time.sleep(_LOCK_AGAIN_S)
        self.log: IO[bytes] = (directory / f"{name}.log").open("wb")

    def run(self, argv: Sequence[str], what: str, cwd: Path) -> None:
        """Run it to its end; *what* begins the sentence that is said if it isn't one."""
        # In a session of its own, so that what it starts itself ends with it (`process_group` is newer than the oldest Python there).
        try:
            process = subprocess.Popen(  # noqa: S603  (a list, and no shell)
                list(argv),
                stdout=self.log,
                stderr=self.log,
                stdin=subprocess.DEVNULL,
                pass_fds=(self._lock.fileno(),),
                cwd=cwd,
                start_new_session=True,
                # What it says last shall be last in the log.
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise Fault(PERMANENT, f"{what}: {argv[0]} can't be run", why=str(error)) from error
        try:
            code = process.wait(self._job.left_s())
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise Fault(UNKNOWN, f"{what} took longer than {self._job.request['timeout_s']:.0f} s", why=self.tail()) from error
        if code != 0:
            raise Fault(PERMANENT, f"{what} ended with status {code}", why=f"{self._full()}{self.tail()}".strip())

    def _full(self) -> str:
        """Say that the disk is full, which its log would have no room for."""
        free = shutil.disk_usage(self._job.target).free
        return f"the disk is full: {free // 1000} kB are free at {self._job.target}\n" if free < _FULL_BYTES else ""

    def tail(self) -> str:
        return "\n".join(Path(self.log.name).read_text(errors="replace").splitlines()[-LINES_MAX:])


def _prepare(job: Job) -> Mapping[str, Any]:
    """Install a release in a virtual environment, prove it, let it read the configuration, and write it down last."""
    request, target = job.request, job.target
    release = request["release"]
    place = target / "releases" / release["id"]
    venv = target / "venvs" / release["artefact_lock"][:12]
    alone = None if (place / MANIFEST).is_file() else _Alone(job, "prepare")
    if alone is None or (place / MANIFEST).is_file():
        job.stage("checking the configuration")
        _check(request, place)
        return {"release": json.loads((place / MANIFEST).read_text())}
    if not (venv / PROVEN).is_file():
        try:
            _install(job, alone, venv)
        except BaseException:
            # It is never used; and its room is wanted, if only for word of this.
            shutil.rmtree(venv, ignore_errors=True)
            raise
    job.stage("asking the release what it is")
    version, schema, compat, deltas = _probe(request, venv)
    if version != release["version"]:
        raise Fault(PERMANENT, f"the lock of {release['version']} installs {version}", str(venv))
    done = {**release, "schema_version": schema, "schema_compat_version": compat, "deltas": deltas}
    half = _half_release(place, release)
    (half / "venv").symlink_to(Path("../../venvs") / venv.name)
    job.stage("checking the configuration")
    _check(request, half)
    _finish(half, place, done)
    return {"release": done}


def _install(job: Job, alone: _Alone, venv: Path) -> None:
    request = job.request
    release = request["release"]
    locks = job.target / "locks" / release["artefact_lock"][:12]
    requirements = locks / REQUIREMENTS
    if not requirements.is_file() or hashlib.sha256(requirements.read_bytes()).hexdigest() != release["artefact_lock"]:
        raise Fault(
            PERMANENT, f"the lock of {release['version']} is not there as it was sent", str(requirements), remedy=f"rm -r {locks}, there"
        )
    free = shutil.disk_usage(job.target).free
    if free < request["needed"]:
        why = f"{free // _MB} MB are free, {request['needed'] // _MB} MB are needed ({request['basis']})"
        raise Fault(PERMANENT, "the disk is too full for a release", str(job.target), why, "remove releases that nobody goes back to")
    _can_make_environments()
    job.stage("making an environment")
    shutil.rmtree(venv, ignore_errors=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    alone.run([*YIELDING, sys.executable, "-m", "venv", str(venv)], "making an environment", locks)
    job.stage("installing")
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--require-hashes"]
    alone.run([*YIELDING, *pip, "-r", REQUIREMENTS], "installing", locks)
    version, *_ = _probe(request, venv)
    _write_durably(venv / PROVEN, f"{version}\n")


def _can_make_environments() -> None:
    """Say at once what Debian leaves out, instead of in the words of a program that fails for it."""
    try:
        import ensurepip  # noqa: F401, PLC0415  (whether it is there is the question)
        import venv  # noqa: F401, PLC0415  (as above)
    except ImportError as error:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        raise Fault(
            PERMANENT, "its Python can't make virtual environments", sys.executable, str(error), f"apt-get install {package}, there"
        ) from error


def _probe(request: Mapping[str, Any], venv: Path) -> tuple[str, int, int, list[str]]:
    version, schema, compat, deltas = json.loads(_python(venv, request["probe"], (), "the release doesn't import"))
    return version, schema, compat, deltas


def _check(request: Mapping[str, Any], place: Path) -> None:
    """Let the homeserver itself read the configuration of every worker."""
    config = place / "config"
    own = {worker: config / "workers" / f"{worker}.yaml" for worker in request["workers"]}
    paths = {worker: [str(config / "homeserver.yaml"), *([str(path)] if path.is_file() else [])] for worker, path in own.items()}
    what = f"Synapse {request['release']['version']} refuses the configuration"
    _python(place / "venv", request["check"], (json.dumps(paths),), what)


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
        raise Fault(TRANSIENT, f"{what}: no answer within {PROBE_TIMEOUT_S:.0f} s", str(venv)) from error
    except OSError as error:
        raise Fault(PERMANENT, what, str(venv), str(error)) from error
    if done.returncode != 0:
        raise Fault(PERMANENT, what, str(venv), "\n".join(done.stderr.strip().splitlines()[-LINES_MAX:]))
    return done.stdout


def _migrate(job: Job) -> Mapping[str, Any]:
    """Run the release's own migration, without any bound."""
    alone = _Alone(job, "migrate")
    job.stage("migrating")
    alone.run(job.request["argv"], "the migration", job.target)
    return {}


def _commands(job: Job) -> Mapping[str, Any]:
    """Run the user's own commands, one after the other, and write the release down."""
    request = job.request
    release = request["release"]
    place = job.target / "releases" / release["id"]
    alone = _Alone(job, "prepare")
    if (place / MANIFEST).is_file():
        return {"release": json.loads((place / MANIFEST).read_text())}
    free = shutil.disk_usage(job.target).free
    if free < request["needed"]:
        why = f"{free // _MB} MB are free, {request['needed'] // _MB} MB are needed ({request['basis']})"
        raise Fault(PERMANENT, "the disk is too full for a release", str(job.target), why)
    for argv in request["commands"]:
        job.stage(f"running {argv[0]}")
        alone.run(argv, f"preparing ({argv[0]})", job.target)
    done = {**release, **_schema_facts(request["schema"], job.left_s())} if request["schema"] else dict(release)
    _finish(_half_release(place, release), place, done)
    return {"release": done}


def _schema_facts(argv: Sequence[str], timeout_s: float | None) -> Mapping[str, Any]:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False)  # noqa: S603
        schema, compat, *deltas = done.stdout.split()
        facts = {"schema_version": int(schema), "schema_compat_version": int(compat), "deltas": deltas}
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Fault(PERMANENT, f"{argv[0]} doesn't say what the schema is", why=str(error), remedy="two numbers, then deltas") from error
    if done.returncode != 0:
        raise Fault(PERMANENT, f"asking for the schema ({argv[0]}) ended with status {done.returncode}", why=done.stderr.strip())
    return facts


def _half_release(place: Path, release: Mapping[str, Any]) -> Path:
    half = place.with_name(f".{place.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    (half / "config").symlink_to(Path("../../configs") / release["config_digest"][:12])
    return half


def _finish(half: Path, place: Path, release: Mapping[str, Any]) -> None:
    """Have it there, at once and for good."""
    _write_durably(half / MANIFEST, json.dumps(release, indent=2))
    # Without a manifest it is nothing that anybody was ever told to run.
    shutil.rmtree(place, ignore_errors=True)
    half.rename(place)
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_durably(path: Path, text: str) -> None:
    half = path.with_name(f"{path.name}.half")
    with half.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)


_KINDS = {"prepare": _prepare, "migrate": _migrate, "commands": _commands}
