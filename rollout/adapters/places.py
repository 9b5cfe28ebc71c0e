"""Where commands are run: on a host over SSH, or on this machine, alike."""

import os
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Protocol

from rollout.adapters.remote_commands import Argv, Said, said_in, script
from rollout.adapters.ssh_hosts import HostEntry
from rollout.adapters.ssh_shared import Hosts
from rollout.model.errors import OutcomeUnknownError, TransientDriverError


class Place(Protocol):
    """*where* is how errors call it; `run` is as in rollout.adapters.ssh."""

    where: str

    def run(self, commands: Sequence[Argv], timeout_s: float, *, changes: bool, stdin: bytes | None = None) -> tuple[Said, ...]: ...


class ThisMachine:
    """Runs commands here, as they are run on a host."""

    where = "this machine"

    def run(self, commands: Sequence[Argv], timeout_s: float, *, changes: bool, stdin: bytes | None = None) -> tuple[Said, ...]:
        """Run *commands*, one after the other. What takes too long is ended: OutcomeUnknownError if it *changes* something."""
        mark = secrets.token_hex(12)
        given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        # In a process group of its own, so that what it starts itself ends with it.
        with subprocess.Popen(  # noqa: S603  (a list, and what is in the script is quoted)
            ["/bin/sh", "-c", script(commands, mark, fed=stdin is not None)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        ) as process:
            try:
                output, _ = process.communicate(stdin, timeout=max(0.01, timeout_s))
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                kind = OutcomeUnknownError if changes else TransientDriverError
                raise kind("no answer in time", where=self.where, why=f"it took longer than {timeout_s:.0f} s, and was ended") from error
        said = said_in(output.decode(errors="replace"), len(commands), mark)
        if said is None:
            kind = OutcomeUnknownError if changes else TransientDriverError
            raise kind("no whole answer", where=self.where, why="the shell ended before it had done all")
        return said


class Places:
    """The hosts of one driver by name; a name that is none of *hosts* is this machine. For use by several threads."""

    def __init__(self, hosts: Mapping[str, HostEntry], connect_timeout_s: float) -> None:
        self._names = frozenset(hosts)
        self._hosts = Hosts(hosts, connect_timeout_s)

    def at(self, name: str) -> Place:
        """Return the place of this name; nothing is connected by that."""
        return self._hosts.get(name) if name in self._names else ThisMachine()

    def close(self) -> None:
        """End the connections that no other driver uses."""
        self._hosts.close()
