"""Where commands are run: on a host over SSH, or on this machine, alike. Fabric is loaded with the first host that is asked."""

import os
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from rollout.adapters.remote_commands import Argv, Said, said_in, script
from rollout.adapters.ssh_hosts import HostEntry
from rollout.model.errors import OutcomeUnknownError, TransientDriverError

if TYPE_CHECKING:
    from rollout.adapters.ssh import Host


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
    """Opens each host once; a name that is none of *hosts* is this machine. For use by several threads."""

    def __init__(self, hosts: Mapping[str, HostEntry], connect_timeout_s: float) -> None:
        self._entries = dict(hosts)
        self._connect_timeout_s = connect_timeout_s
        self._hosts: dict[str, Host] = {}
        self._lock = Lock()

    def at(self, name: str) -> Place:
        """Return the place of this name; nothing is connected by that."""
        if name not in self._entries:
            return ThisMachine()
        from rollout.adapters.ssh import Host  # noqa: PLC0415  (who only checks an inventory doesn't wait for Fabric)

        with self._lock:
            # The jump first, so that hosts behind one share its connection.
            names = [name]
            while (jump := self._entries[names[-1]].jump) is not None:
                names.append(jump)
            for one in reversed(names):
                if one not in self._hosts:
                    entry = self._entries[one]
                    before = None if entry.jump is None else self._hosts[entry.jump]
                    self._hosts[one] = Host(one, entry, before, self._connect_timeout_s)
            return self._hosts[name]

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            host.close()
