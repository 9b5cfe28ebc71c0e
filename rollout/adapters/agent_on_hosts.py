"""
The agent's program on hosts: put there where it is missing, and asked there.

It lies in a directory that is named by the hash of what is in it, made beside and renamed, so that nobody ever runs half of it and a newer
rollout's doesn't take an older one's away from under it. Of a question and of an act alike it is known whether they were sent.
"""

import base64
import json
import shlex
import zlib
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath
from time import time  # noqa: TID251  (this machine's clock is what the hosts' are compared with)
from typing import Any

from rollout.adapters.agent_settings import AgentSettings
from rollout.adapters.clocks import check_clock
from rollout.adapters.places import Place
from rollout.adapters.remote_commands import Argv, Said
from rollout.adapters.ssh_shared import Hosts
from rollout.agent import PYTHON_MIN, agent
from rollout.model.errors import DriverError, OutcomeUnknownError, PermanentDriverError, TransientDriverError

INSTALL_TIMEOUT_S = 20.0
_OLD, _REFUSED = 4, 5
_LOG_CHARACTERS = 2_000
# Of the folder there, its part that Python calls rollout.agent, and what it is called whichever version it has.
_PACKAGE = "rollout/agent"
CURRENT = "agent"
# Also for a Python that is too old, which has to be able to say so.
_INSTALL = f"""
import sys
if sys.version_info < {PYTHON_MIN!r}:
    print("Python %d.%d" % sys.version_info[:2])
    sys.exit({_OLD})
import base64, json, os, shutil, tempfile, zlib
place, name, payload = sys.argv[1:]
try:
    os.makedirs(place, exist_ok=True)
    goal = os.path.join(place, name)
    if not os.path.isdir(goal):
        half = tempfile.mkdtemp(prefix=".half-", dir=place)
        try:
            inner = os.path.join(half, "{_PACKAGE}")
            os.makedirs(inner)
            for file, text in json.loads(zlib.decompress(base64.b64decode(payload))).items():
                with open(os.path.join(inner, file), "w", encoding="utf-8") as out:
                    out.write(text)
                    out.flush()
                    os.fsync(out.fileno())
            try:
                os.rename(half, goal)
            except OSError:
                if not os.path.isdir(goal):
                    raise
        finally:
            shutil.rmtree(half, ignore_errors=True)
    link = tempfile.mktemp(prefix=".link-", dir=place)
    os.symlink(name, link)
    os.replace(link, os.path.join(place, "{CURRENT}"))
except OSError as error:
    print(error)
    sys.exit({_REFUSED})
"""


@cache
def content() -> dict[str, str]:
    """Return what is put there: file name -> text."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(Path(agent.__file__).parent.glob("*.py"))}


@cache
def version() -> str:
    """Return the hash of what is put there."""
    return agent.digest()


class Agents:
    """The agent on hosts, below one directory on each; for use by several threads."""

    def __init__(self, settings: AgentSettings) -> None:
        self._entries = settings.hosts
        self._hosts = Hosts(settings.hosts, settings.connect_timeout_s)
        self._directory = settings.directory
        self._name = f"agent-{version()[:16]}"
        self._python = settings.python
        self._program = self._directory / self._name / _PACKAGE / "agent.py"

    @property
    def current(self) -> PurePosixPath:
        """Where the program is found whichever version it has, for what has to be the same word for word for ever."""
        return self._directory / CURRENT / _PACKAGE / "agent.py"

    def command(self, *arguments: str, program: PurePosixPath | None = None) -> Argv:
        """Write how it is run. It imports nothing of what else is installed there."""
        return (self._python, "-I", "-S", str(program or self._program), *arguments)

    def ensure(self, names: Collection[str], timeout_s: float) -> None:
        """
        Have the program on these hosts, hosts side by side; where it is, that takes one round trip. Raises DriverError when it can't be
        there, isn't what was put there, or when the host's clock can't be believed.
        """
        if not names:
            return
        with ThreadPoolExecutor(len(names)) as pool:
            answers = [pool.submit(self._ensure, name, timeout_s) for name in names]
        for answer in answers:
            if (error := answer.exception()) is not None:
                raise error

    def ask(self, name: str, arguments: Sequence[str], timeout_s: float, *, changes: bool) -> dict[str, Any]:
        """
        Run the program, and return what it says; where it is missing it is installed first, which takes its own time.

        OutcomeUnknownError when it was sent, *changes* something, and no whole answer came; else TransientDriverError, or
        PermanentDriverError when it can't be run there.
        """
        host = self._hosts.get(name)
        commands = (("test", "-f", str(self._program)), self.command(*arguments))
        there, said = host.run(commands, timeout_s, changes=changes)
        if there.status != 0:
            self._install(name, INSTALL_TIMEOUT_S)
            there, said = host.run(commands, timeout_s, changes=changes)
        return self._understood(name, said, changes=changes and there.status == 0)

    def run(self, name: str, commands: Sequence[Argv], timeout_s: float) -> tuple[Said, ...]:
        """Run commands that look only. Raises TransientDriverError or PermanentDriverError."""
        return self._hosts.get(name).run(commands, timeout_s, changes=False)

    def at(self, name: str) -> Place:
        """Return the host of this name; nothing is connected by that."""
        return self._hosts.get(name)

    def where(self, name: str) -> str:
        """Name the host as errors do."""
        return self._hosts.get(name).where

    def close(self) -> None:
        """End all connections."""
        self._hosts.close()

    def _ensure(self, name: str, timeout_s: float) -> None:
        host = self._hosts.get(name)
        link = str(self._directory / CURRENT)
        asked = (("date", "+%s.%N"), ("readlink", link), self.command("--version"))
        sent_s = time()
        clock, current, said = host.run(asked, timeout_s, changes=False)
        check_clock(host.where, sent_s, clock, time())
        if said.status != 0 or current.out.strip() != self._name:
            self._install(name, INSTALL_TIMEOUT_S)
            (said,) = host.run(asked[-1:], timeout_s, changes=False)
        found = self._understood(name, said, changes=False)
        if found.get("digest") != version():
            raise PermanentDriverError(
                "the agent there is not what was put there",
                where=host.where,
                why=f"somebody has changed {self._directory / self._name}",
                remedy="remove that directory there: it is put there anew",
            )

    def _install(self, name: str, timeout_s: float) -> None:
        host = self._hosts.get(name)
        payload = base64.b64encode(zlib.compress(json.dumps(content()).encode(), 9)).decode()
        argv = (self._python, "-I", "-S", "-c", _INSTALL, str(self._directory), self._name, payload)
        # It may be repeated, so what became of it matters to nobody.
        (said,) = host.run((argv,), timeout_s, changes=False)
        if said.status == 0:
            return
        least = ".".join(map(str, PYTHON_MIN))
        if said.status == _OLD:
            what = f"the agent needs Python {least} or newer"
            remedy = f"a newer python3 there, or `python: /usr/bin/python{least}` in the inventory's ledger_driver"
            raise PermanentDriverError(what, where=host.where, why=f"{self._python} there is {said.why}", remedy=remedy)
        if said.status == _REFUSED:
            user = self._entries[name].user
            remedy = f"there, once: install -d -m 700 -o {user} {shlex.quote(str(self._directory))} (and room on its disk)"
            raise PermanentDriverError("the agent can't be put there", where=host.where, why=said.why, remedy=remedy)
        remedy = f"python3 {least} or newer there, or `python: PATH` in the inventory's ledger_driver"
        raise PermanentDriverError(f"{self._python} can't be run there", where=host.where, why=said.why, remedy=remedy)

    def _understood(self, name: str, said: Said, *, changes: bool) -> dict[str, Any]:
        for line in reversed(said.out.splitlines()):
            if line.startswith("{"):
                try:
                    return dict(json.loads(line))
                except ValueError:
                    break
        kind: type[DriverError] = OutcomeUnknownError if changes else TransientDriverError
        why = f"it ended with status {said.status}: {said.out[-_LOG_CHARACTERS:].strip()}"
        raise kind("the agent there did not say what it did", where=self.where(name), why=why)
