"""
The program at a host (rollout/agent/installing.py): brought there, asked, and its jobs followed to their end.

**What is lost and what isn't.** A job goes on when the connection doesn't, so while a host can't be reached it is asked again until the
job's own time is over; only then nobody knows. Whatever could not be begun has not happened.
"""

import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  (how long a host takes, whatever clock a rollout goes by)
from typing import Any

from rollout.adapters.faults import error_of
from rollout.adapters.places import Place
from rollout.agent import PYTHON_MIN
from rollout.agent.fault import Fault
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError

ASK_TIMEOUT_S = 30.0
# So long a watch waits there before it says that nothing has changed; after that, and as long again, nobody is there.
_WATCH_S = 5.0
_WATCH_TIMEOUT_S = 2 * _WATCH_S
_AGAIN_S = 1.0
# A job ends by itself when its time is over; what is left of it is told within this.
_AFTERWARDS_S = 10.0
# Of a job without an end of its own (a migration): so long nothing may be heard of it before nobody knows.
SILENCE_MAX_S = 600.0
NOT_FOUND, NOT_DONE, _TOO_OLD = 127, 3, 4
# Run by the host's Python before there is anything of ours: a directory, whole or not at all.
_UNPACK = f"""
import json, os, pathlib, shutil, sys
if sys.version_info < {PYTHON_MIN}:
    print("Python %d.%d" % sys.version_info[:2])
    sys.exit({_TOO_OLD})
os.umask(0o027)
place = pathlib.Path(sys.argv[1])
half = place.with_name(place.name + "." + str(os.getpid()) + ".half")
try:
    for name, text in json.load(sys.stdin).items():
        path = half / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    half.rename(place)
except OSError as error:
    shutil.rmtree(half, ignore_errors=True)
    if not place.is_dir():
        sys.exit(str(error))
"""
_log = logging.getLogger(__name__)


@cache
def _program() -> tuple[str, bytes]:
    """Return the program's files, and what names them."""
    folder = resources.files("rollout.agent")
    files = {f"rollout/agent/{file.name}": file.read_text() for file in folder.iterdir() if file.name.endswith(".py")}
    packed = json.dumps({"rollout/__init__.py": "", **files}, sort_keys=True).encode()
    return hashlib.sha256(packed).hexdigest()[:12], packed


class Installer:
    """Asks the program at one place. For use by several threads."""

    def __init__(self, place: Place, target: Path, python: str) -> None:
        self._place = place
        self._target = target
        self._python = python
        self.where = place.where

    def ask(self, verb: str, request: Mapping[str, Any], timeout_s: float, *, changes: bool) -> dict[str, Any]:
        """Have it done, and return what it says. Raises DriverError."""
        program = self._target / "rollout" / "programs" / _program()[0]
        argv = (self._python, "-I", "-S", str(program / "rollout/agent/installing.py"), verb)
        stdin = json.dumps({"target": str(self._target), **request}).encode()
        # What isn't there does nothing, so it is brought then, and asked again.
        for last in (False, True):
            there, said = self._place.run((("test", "-d", str(program)), argv), timeout_s, changes=changes, stdin=stdin)
            if there.status == 0 or last:
                return self._understood(said.status, said.out, changes=changes)
            self._bring(program)
        raise AssertionError

    def _understood(self, status: int, out: str, *, changes: bool) -> dict[str, Any]:
        if status == NOT_FOUND:
            raise self._no_python()
        lines = out.strip().splitlines() or [""]
        try:
            answer: dict[str, Any] = json.loads(lines[-1])
        except ValueError as error:
            kind = OutcomeUnknownError if changes else TransientDriverError
            raise kind(f"no answer, but status {status}", where=self.where, why="\n".join(lines[-3:])) from error
        if status == NOT_DONE:
            raise self._error(answer)
        return answer

    def _error(self, answer: Mapping[str, Any]) -> Exception:
        where = f"{self.where}: {answer['where']}" if answer.get("where") else self.where
        return error_of(Fault(answer["outcome"], answer["what"], where, answer.get("why", ""), answer.get("remedy", "")))

    def _bring(self, program: Path) -> None:
        commands = (("mkdir", "-p", str(program.parent)), (self._python, "-I", "-S", "-c", _UNPACK, str(program)))
        made, unpacked = self._place.run(commands, ASK_TIMEOUT_S, changes=False, stdin=_program()[1])
        if unpacked.status == _TOO_OLD:
            what = f"releases need Python {'.'.join(map(str, PYTHON_MIN))} or newer there"
            raise PermanentDriverError(what, where=self.where, why=unpacked.why, remedy="`python:` in the releases_driver names another")
        if made.status != 0 or unpacked.status not in {0, NOT_FOUND}:
            raise PermanentDriverError(
                "the target can't be written to",
                where=f"{self.where}: {self._target}",
                why=made.why if made.status != 0 else unpacked.why,
                remedy=f"make it there once, for this account (install -d -o ACCOUNT -g GROUP -m 2750 {self._target})",
            )
        if unpacked.status == NOT_FOUND:
            raise self._no_python()

    def _no_python(self) -> PermanentDriverError:
        return PermanentDriverError(
            f"there is no {self._python}",
            where=self.where,
            why="releases are made there by the host's own Python",
            remedy="install it there (apt-get install python3 python3-venv), or say `python:` in the releases_driver",
        )

    def do(self, kind: str, request: Mapping[str, Any], timeout_s: float | None) -> dict[str, Any]:
        """
        Have a job done, and return what it says; *timeout_s* None is without an end.

        TransientDriverError when it wasn't begun; OutcomeUnknownError when the time is over, nothing is heard of it, or somebody has ended
        it (a release that was being made has then not been made: TransientDriverError).
        """
        job = secrets.token_hex(8)
        end_s = None if timeout_s is None else monotonic() + timeout_s + _AFTERWARDS_S
        try:
            self.ask("begin", {**request, "kind": kind, "job": job, "timeout_s": timeout_s}, ASK_TIMEOUT_S, changes=True)
        except OutcomeUnknownError as error:
            # Whether it was begun is seen by watching.
            _log.info("%s: %s", self.where, error.what)
        return self._followed(kind, job, end_s)

    def _followed(self, kind: str, job: str, end_s: float | None) -> dict[str, Any]:
        stage, heard_s = "beginning", monotonic()
        while True:
            try:
                said = self.ask("watch", {"job": job, "wait_s": _WATCH_S, "stage": stage}, _WATCH_TIMEOUT_S, changes=False)
            except TransientDriverError as error:
                if monotonic() >= (heard_s + SILENCE_MAX_S if end_s is None else end_s):
                    why = f"the last that was heard of it: {stage}\n{error.what}: {error.why}"
                    raise OutcomeUnknownError(f"what became of `{kind}` there is not known", where=self.where, why=why) from error
                sleep(_AGAIN_S)
                continue
            heard_s = monotonic()
            match said["state"]:
                case "ended" if said["outcome"] == "done":
                    return said
                case "ended":
                    raise self._error(said)
                case "unknown":
                    raise TransientDriverError(f"`{kind}` was not begun there", where=self.where, why="the connection broke before it was")
                case "lost":
                    why = f"it was {said['stage']}; its process ended without a word (killed, out of memory, or the host restarted)"
                    # Releases are made beside what runs, and made anew. What else was begun may have done half of its work.
                    error_kind = TransientDriverError if kind == "prepare" else OutcomeUnknownError
                    raise error_kind(f"`{kind}` was ended there", where=self.where, why=why, remedy=self._log_there(kind))
            if said["stage"] != stage:
                stage = said["stage"]
                _log.info("%s: %s", self.where, stage)
            if end_s is not None and monotonic() >= end_s:
                raise OutcomeUnknownError(f"`{kind}` has not ended in time there", where=self.where, why=f"it is {stage}")

    def _log_there(self, kind: str) -> str:
        return f"{self._target}/rollout/{'migrate' if kind == 'migrate' else 'prepare'}.log, there"
