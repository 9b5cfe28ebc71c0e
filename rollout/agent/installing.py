"""
What is done at a host to have a release there, for a tool that reaches the host over SSH.

```
installing.py room     how much room there is, and whether environment and configuration are there already
installing.py put      store files below a new directory, whole or not at all
installing.py get      print the files of a directory
installing.py begin    begin a job, detached; the same job's name again begins nothing
installing.py watch    wait a while for a job, and say how it stands
installing.py act      do acts (agent/acts.py)
```

Each reads one JSON object on stdin and prints one on stdout: `{"outcome": "done", …}`, or a fault. A job is a process of its own, which no
lost connection ends: it holds a lock that what it starts inherits, so nothing is done twice at once, and leaves its outcome in a file.

Run it with `python -I -S`: it needs nothing but the standard library.
"""

import base64
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from rollout.agent import acts
from rollout.agent.fault import PERMANENT, TRANSIENT, Fault
from rollout.agent.jobs import BLOCK_BYTES, MANIFEST, PROVEN, Job, alive, note_of, work

Request = Mapping[str, Any]
NOT_DONE = 3
_LOOK_AGAIN_S = 0.1
# Whoever takes a rollout up again later doesn't need them: it begins a job of its own.
_NOTES_KEPT_S = 7 * 86_400.0
# A release is for the worker's user too, by the directory's group, and a configuration has secrets in it.
_UMASK = 0o027


def room(request: Request) -> Request:
    """Count what is free, and what the environments that run take."""
    target = Path(request["target"])
    try:
        free = shutil.disk_usage(target).free
        running = {(link / "venv").resolve() for link in (target / "current").glob("*")}
        largest = max((_size(place) for place in running if place.is_dir()), default=0)
    except OSError as error:
        raise Fault(TRANSIENT, "how much room there is can't be told", str(target), str(error)) from error
    environment = target / "venvs" / request["environment"] if request.get("environment") else None
    return {
        "free": free,
        "largest": largest,
        "environment": environment is not None and (environment / PROVEN).is_file(),
        "release": (target / "releases" / request["release"] / MANIFEST).is_file(),
        "config": (target / "configs" / request["config"]).is_dir(),
        "lock": (target / "locks" / request["lock"]).is_dir(),
    }


def put(request: Request) -> Request:
    """Make a directory of *files* (path -> base64) beside where it shall be, and rename it; one that is there is left alone."""
    place = Path(request["place"])
    half = place.with_name(f".{place.name}.{os.getpid()}.half")
    try:
        if not place.is_dir():
            for name, content in request["files"].items():
                path = half / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.write(base64.b64decode(content))
                    file.flush()
                    os.fsync(file.fileno())
            half.mkdir(parents=True, exist_ok=True)
            _rename(half, place)
    except OSError as error:
        raise Fault(TRANSIENT, "it can't be stored", str(place), str(error)) from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return {}


def _rename(half: Path, place: Path) -> None:
    try:
        half.rename(place)
    except OSError:
        # Somebody else was faster, with the same.
        if not place.is_dir():
            raise


def get(request: Request) -> Request:
    place = Path(request["place"])
    try:
        files = {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
        if not place.is_dir():
            raise Fault(PERMANENT, "it is not there", str(place))
    except OSError as error:
        raise Fault(PERMANENT, "it can't be read", str(place), str(error)) from error
    return {"files": {name: base64.b64encode(content).decode() for name, content in files.items()}}


def begin(request: Request) -> Request:
    """Begin a job, and return when it has a process of its own."""
    note = note_of(Path(request["target"]), request["job"])
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        _forget_old_notes(note.parent)
        try:
            lock = note.open("x")
        except FileExistsError:
            return {}
        # Held by the job's process from here on, which inherits it.
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise Fault(PERMANENT, "the target can't be written to", request["target"], str(error), "see docs/releases.md") from error
    # Twice, so that it is nobody's child: what sshd waits for is this process alone.
    with lock:
        if os.fork():
            os.wait()
            return {}
        os.setsid()
        if os.fork() == 0:
            _quietly()
            work(Job(request, note))
        os._exit(0)


def _quietly() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def _forget_old_notes(directory: Path) -> None:
    for path in directory.glob("*.json*"):
        if time.time() - path.stat().st_mtime > _NOTES_KEPT_S:
            path.unlink(missing_ok=True)


def watch(request: Request) -> Request:
    """
    Wait until the job has ended or is at another *stage*, for *wait_s* at most. It is "lost" if its process ended without an outcome, and
    "unknown" if nobody has begun it: then nobody will.
    """
    note = note_of(Path(request["target"]), request["job"])
    end_s = time.monotonic() + request["wait_s"]
    while True:
        # Alive is asked first: it may end in between, and then its outcome is there.
        lives = alive(note)
        try:
            said: Request = json.loads(note.with_suffix(".json.said").read_text())
        except FileNotFoundError:
            said = {"state": "running", "stage": "beginning"}
        except (OSError, ValueError) as error:
            raise Fault(TRANSIENT, "how it stands can't be read", str(note), str(error)) from error
        if said.get("state") == "ended":
            return said
        if not lives and note.exists():
            return {**said, "state": "lost"}
        if not lives and _barred(note):
            return {**said, "state": "unknown"}
        if said["stage"] != request["stage"] or time.monotonic() >= end_s:
            return said
        time.sleep(_LOOK_AGAIN_S)


def _barred(note: Path) -> bool:
    """Have a job that nobody has begun begin no more, though word of it should come late; False if it was begun just now."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.open("x").close()
    except FileExistsError:
        return False
    except OSError as error:
        raise Fault(TRANSIENT, "whether it was begun can't be settled", str(note), str(error)) from error
    return True


def act(request: Request) -> Request:
    acts.run(request["acts"])
    return {}


def _size(directory: Path) -> int:
    """Count the bytes on disk below a directory, links not followed."""
    return sum(path.lstat().st_blocks * BLOCK_BYTES for path in directory.rglob("*"))


_VERBS = {"room": room, "put": put, "get": get, "begin": begin, "watch": watch, "act": act}


def main() -> int:
    """Do what is asked, print one JSON object, and return the status."""
    os.umask(_UMASK)
    try:
        said = {"outcome": "done", **_VERBS[sys.argv[1]](json.load(sys.stdin))}
    except Fault as fault:
        said = {**fault.as_data(), "outcome": fault.kind}
    print(json.dumps(said))  # noqa: T201  (it is what this program is for)
    return 0 if said["outcome"] == "done" else NOT_DONE


if __name__ == "__main__":
    sys.exit(main())
