"""
One kept SSH connection to a host, on Fabric, for commands that end in time.

Fabric connects (keys, agent, jump hosts). Its `run` is not used: paramiko waits without a bound for the answer to "execute this", so after
a cable was pulled a call would come back with TCP's own timeout, a quarter of an hour later; and whether the command had been sent by then
decides whether something may have happened.

A line on which something was late is given up once the others who use it are done: the next command gets a new one.
"""

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import BoundedSemaphore, Lock, Thread, Timer
from time import monotonic, sleep  # noqa: TID251  (how long an answer may take, whatever clock a rollout goes by)

import paramiko
from fabric import Connection

from rollout.adapters.remote_commands import Argv, Said, said_in, script
from rollout.adapters.ssh_connecting import Way
from rollout.adapters.ssh_hosts import HostEntry
from rollout.model.errors import DriverError, OutcomeUnknownError, TransientDriverError

# sshd's MaxSessions is 10 for a connection.
SESSIONS_MAX = 8
# A busy host still counts, for a while, those that have ended here.
COUNTED_S, AGAIN_AFTER_S = 3.0, 0.1
# Of a look at a few hundred units.
OUTPUT_MAX = 4_000_000
_CHUNK = 65_536


class _Line:
    """A connection, and who uses it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sessions = BoundedSemaphore(SESSIONS_MAX)
        self.users = 0
        self.given_up = False

    @property
    def stands(self) -> bool:
        return not self.given_up and bool(self.connection.is_connected)


class Host:
    """Runs commands on a host; for use by several threads. Nothing is connected before the first command."""

    def __init__(self, name: str, entry: HostEntry, jump: "Host | None", connect_timeout_s: float) -> None:
        self._way = Way(name, entry, connect_timeout_s)
        self.where = self._way.where
        self._jump = jump
        self._lock = Lock()
        self._line: _Line | None = None
        self._pending: Future[_Line] | None = None

    def run(self, commands: Sequence[Argv], timeout_s: float, *, changes: bool, stdin: bytes | None = None) -> tuple[Said, ...]:
        """
        Run *commands*, one after the other, in one round trip. The last one reads *stdin*: what stands there is in nobody's list of
        processes.

        TransientDriverError when nothing was sent; what was sent and isn't answered by then is that too, unless it *changes* something:
        OutcomeUnknownError. PermanentDriverError when the host doesn't let us in, or isn't the one it was.
        """
        end_s = monotonic() + timeout_s
        again = True
        while True:
            with self._used(end_s) as line:
                channel = self._session(line, end_s)
                if channel is not None:
                    return self._exchange(line, channel, commands, end_s, stdin, changes=changes)
            # A kept line may have ended since: nothing was sent on it.
            if not again:
                raise TransientDriverError(
                    "the connection breaks as soon as it is used", where=self.where, remedy="look into sshd's log there"
                )
            again = False

    def close(self) -> None:
        """End the connection; the next command makes a new one."""
        with self._lock:
            line, self._line = self._line, None
        if line is not None:
            line.connection.close()

    @contextmanager
    def _used(self, end_s: float) -> Iterator[_Line]:
        line = self._get(end_s)
        if not line.sessions.acquire(timeout=max(0.0, end_s - monotonic())):
            self._let_go(line)
            raise TransientDriverError(f"{SESSIONS_MAX} commands are under way there already", where=self.where)
        try:
            yield line
        finally:
            line.sessions.release()
            self._let_go(line)

    def _get(self, end_s: float) -> _Line:
        with self._lock:
            if self._line is not None and self._line.stands:
                self._line.users += 1
                return self._line
            if self._pending is None:
                self._pending = Future()
                # Looking a name up can't be bounded, nor can all of a handshake: it goes on by itself, for whoever asks next.
                Thread(target=self._connect, args=(self._pending,), daemon=True).start()
            pending = self._pending
        try:
            line = pending.result(max(0.0, end_s - monotonic()))
        except TimeoutError as error:
            why = "no answer to the attempt to connect within the time that this call has"
            raise TransientDriverError("the host can't be reached", where=self.where, why=why, remedy=self._way.by_hand) from error
        with self._lock:
            line.users += 1
        return line

    def _let_go(self, line: _Line) -> None:
        with self._lock:
            line.users -= 1
            unused = line.given_up and line.users == 0
        if unused:
            line.connection.close()

    def _give_up(self, line: _Line) -> None:
        with self._lock:
            line.given_up = True
            if self._line is line:
                self._line = None

    def _connect(self, pending: "Future[_Line]") -> None:
        try:
            gateway = None if self._jump is None else self._jump.gateway(self._way.timeout_s)
            line = _Line(self._way.connect(gateway))
        except DriverError as error:
            result: _Line | BaseException = error
        except Exception as error:  # noqa: BLE001  (whoever waits gets it)
            result = error
        else:
            result = line
        with self._lock:
            self._pending = None
            if isinstance(result, _Line):
                self._line = result
        if isinstance(result, _Line):
            pending.set_result(result)
        else:
            pending.set_exception(result)

    def gateway(self, timeout_s: float) -> Connection:
        """Return the kept connection, for another host to be reached through. Raises DriverError."""
        line = self._get(monotonic() + timeout_s)
        self._let_go(line)
        return line.connection

    def _session(self, line: _Line, end_s: float) -> paramiko.Channel | None:
        """Open one; None when the line has ended."""
        transport = line.connection.transport
        try:
            channel = _opened(transport, end_s)
        except Exception as error:
            self._give_up(line)
            if not transport.is_active():
                return None
            if monotonic() >= end_s:
                why = "the connection stands, and a session was asked for: no command was sent"
                raise TransientDriverError("no answer in time", where=self.where, why=why, remedy=self._way.by_hand) from error
            what = "the host gives no session on a connection that stands"
            raise TransientDriverError(what, where=self.where, why=str(error), remedy=self._way.by_hand) from error
        return channel

    def _exchange(
        self, line: _Line, channel: paramiko.Channel, commands: Sequence[Argv], end_s: float, stdin: bytes | None, *, changes: bool
    ) -> tuple[Said, ...]:
        mark = secrets.token_hex(12)
        late = Timer(max(0.0, end_s - monotonic()), _shut, [channel])
        late.daemon = True
        late.start()
        why = "the connection was lost before it answered"
        try:
            channel.set_combine_stderr(True)
            channel.exec_command(script(commands, mark, fed=stdin is not None))
            if stdin is not None:
                _feed(channel, stdin)
            output = _read(channel)
        except Exception as error:  # noqa: BLE001  (once it was sent, whatever goes wrong leaves the same doubt)
            output, why = b"", f"{why} ({str(error) or type(error).__name__})"
        finally:
            late.cancel()
            _shut(channel)
        said = said_in(output.decode(errors="replace"), len(commands), mark)
        if said is not None:
            return said
        self._give_up(line)
        kind = OutcomeUnknownError if changes else TransientDriverError
        if monotonic() >= end_s:
            raise kind("no answer in time", where=self.where, why="it was sent, and the time for the answer has passed")
        raise kind("no whole answer", where=self.where, why=why)


def _opened(transport: paramiko.Transport, end_s: float) -> paramiko.Channel:
    """Open a session, and ask again for a while where the host says that it gives none. Raises what paramiko raises."""
    counted_until_s = min(end_s, monotonic() + COUNTED_S)
    while True:
        try:
            return transport.open_session(timeout=max(0.01, end_s - monotonic()))
        except paramiko.ChannelException:
            if monotonic() + AGAIN_AFTER_S >= counted_until_s:
                raise
        sleep(AGAIN_AFTER_S)


def _shut(channel: paramiko.Channel) -> None:
    """Have whoever waits for it wait no longer; that is done before the host is told, which may be gone."""
    with suppress(EOFError, OSError, paramiko.SSHException):
        channel.close()


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    # Who ends before it has read all of it says why in its output, which is read in any case.
    with suppress(OSError):
        channel.sendall(stdin)
        channel.shutdown_write()


def _read(channel: paramiko.Channel) -> bytes:
    output = b""
    while (chunk := channel.recv(_CHUNK)) and len(output) < OUTPUT_MAX:
        output += chunk
    return output
