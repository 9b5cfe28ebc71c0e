"""
Telling and asking HAProxy's runtime API: one command, one answer, one connection, within a time. A connection is a unix socket's, unless
whoever calls knows another way to a place (*dial*).

Every answer ends with an empty line; without it HAProxy hung up before it was done. Success of a command is nothing but that line; any
text is an error. Source: HAProxy's management guide, sections 9.3 (socket commands) and 9.4 (master CLI).
"""

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

# `show stat` of a thousand servers is about half of this.
ANSWER_BYTES_MAX = 4_000_000
WORDS_MAX = 60
# Between one answer and the next; none of ours has an empty line within.
ENDS = re.compile(r"\n\n+")
_OLD_WORKER = re.compile(r"^(\d+)\s+worker\s")


class Connection(Protocol):
    """What is needed of a socket."""

    def sendall(self, data: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def settimeout(self, timeout_s: float, /) -> None: ...
    def close(self) -> None: ...


def connect(place: str, end_s: float) -> Connection:
    """Connect to a unix socket; raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_left_s(end_s))
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


# Given a place and when it must have answered. What it raises besides OSError comes through: nothing has been sent.
Dial = Callable[[str, float], Connection]


def tell_all(places: list[str], commands: list[str], timeout_s: float, dial: Dial = connect) -> None:
    """Give each command to every proxy before the next; raises Fault."""
    end_s = monotonic() + timeout_s
    for command in commands:
        for number, place in enumerate(places):
            try:
                tell(place, command, end_s, dial)
            except Fault as fault:
                if number == 0:
                    raise
                # The proxies before this one have heard it: to say that it did not happen would be wrong.
                raise Fault(UNKNOWN, f"only {number} of {len(places)} proxies did it", where=fault.where, why=str(fault)) from fault


def tell(place: str, command: str, end_s: float, dial: Dial = connect) -> None:
    try:
        connection = dial(place, end_s)
    except PermissionError as error:
        raise _not_allowed(place) from error
    except OSError as error:
        raise Fault(TRANSIENT, "the proxy can't be reached", where=place, why=reason(place, error)) from error
    with closing(connection):
        try:
            answer = ask(connection, place, command, end_s)
        except OSError as error:
            why = f"{command}: {reason(place, error)}"
            raise Fault(UNKNOWN, "the proxy did not say whether it did it", where=place, why=why) from error
    if not answer:
        raise Fault(UNKNOWN, "the proxy hung up without saying whether it did it", where=place, why=command)
    if answer.strip():
        raise Fault(PERMANENT, f"the proxy refused {command!r}", where=place, why=_shortened(answer.strip()))


def questions(order: Mapping[str, Any], dial: Dial = connect) -> dict[str, Any]:
    """
    Ask each socket of *order* its commands, and then each master for the statistics of the processes that a reload left behind: later,
    because a reload meanwhile then has a session counted twice, and not left out. If *order* says `together`, the commands of a socket are
    asked on one connection, for places to which each takes its time.

    What a socket answers is a list of texts, or a Fault as data if one of its answers did not come; of masters see `of_old_workers`.
    """
    end_s = monotonic() + order["timeout_s"]
    answers = _together if order.get("together") else _answers
    sockets = {place: answers(place, commands, end_s, dial) for place, commands in order["sockets"].items()}
    return {"sockets": sockets, "masters": {place: of_old_workers(place, end_s, dial) for place in order["masters"]}}


def _answers(place: str, commands: Sequence[str], end_s: float, dial: Dial) -> list[str] | dict[str, object]:
    try:
        return [question(place, command, end_s, dial) for command in commands]
    except Fault as fault:
        return fault.as_data()


def _together(place: str, commands: Sequence[str], end_s: float, dial: Dial) -> list[str] | dict[str, object]:
    """Tell answers apart by the empty line at the end of each; where there are more or fewer of them than commands, ask one by one."""
    try:
        whole = question(place, ";".join(commands), end_s, dial)
    except Fault as fault:
        return fault.as_data()
    texts = ENDS.split(whole)
    if len(texts) != len(commands) + 1 or texts.pop():
        return _answers(place, commands, end_s, dial)
    return [f"{text}\n\n" for text in texts]


def of_old_workers(place: str, end_s: float, dial: Dial) -> list[str] | dict[str, object]:
    """Return what a master says of its processes, and behind it the statistics of each old one."""
    try:
        processes = question(place, "show proc", end_s, dial)
        return [processes, *(question(place, f"@!{pid} show stat", end_s, dial) for pid in _old_workers(processes))]
    except Fault as fault:
        return fault.as_data()


def question(place: str, command: str, end_s: float, dial: Dial = connect) -> str:
    """Return whatever is answered. Raises Fault: nothing has changed by it."""
    try:
        with closing(dial(place, end_s)) as connection:
            return ask(connection, place, command, end_s)
    except PermissionError as error:
        raise _not_allowed(place) from error
    except OSError as error:
        raise Fault(TRANSIENT, "the proxy can't be asked", where=place, why=f"{command}: {reason(place, error)}") from error


def _old_workers(text: str) -> list[str]:
    """Read `show proc`: the processes below `# old workers`."""
    found: list[str] = []
    old = False
    for line in text.splitlines():
        if line.startswith("# "):
            old = line.startswith("# old workers")
        elif old and (match := _OLD_WORKER.match(line)):
            found.append(match.group(1))
    return found


def _not_allowed(place: str) -> Fault:
    """Say who may, as far as that can be seen."""
    import grp  # noqa: PLC0415  (only for this)
    import os  # noqa: PLC0415  (as above)
    import pwd  # noqa: PLC0415  (as above)

    try:
        me = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        me = str(os.geteuid())
    try:
        stat = Path(place).stat()
        group = grp.getgrgid(stat.st_gid).gr_name
    except (OSError, KeyError):
        why, group = f"{me} may not even look into its directory", "haproxy"
    else:
        why = f"it is for {_owner(stat.st_uid)} and group {group} (mode {stat.st_mode & 0o777:03o}), and this is {me}"
    remedy = (
        f"`stats socket {place} mode 660 level admin group {group}` in haproxy.cfg, and `usermod -aG {group} {me}`; then reload HAProxy "
        "and log in anew"
    )
    return Fault(PERMANENT, "the proxy's socket may not be used", where=place, why=why, remedy=remedy)


def _owner(uid: int) -> str:
    import pwd  # noqa: PLC0415  (as above)

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def reason(place: str, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such socket"
        case ConnectionRefusedError():
            return "nobody listens there" if Path(place).is_socket() else "it is no socket"
        case TimeoutError():
            return "no answer in time"
        case _:
            return (error.strerror or str(error)).lower()


def ask(connection: Connection, place: str, command: str, end_s: float) -> str:
    """Send one command and read until the proxy closes; TimeoutError and other OSErrors come through."""
    connection.sendall(f"{command}\n".encode())
    connection.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while chunk := connection.recv(65_536):
        answer += chunk
        connection.settimeout(_left_s(end_s))
        if len(answer) > ANSWER_BYTES_MAX:
            why = f"more than {ANSWER_BYTES_MAX} bytes"
            raise Fault(PERMANENT, "the proxy's answer is too long", where=place, why=why)
    return answer.decode(errors="replace")


def _left_s(end_s: float) -> float:
    """Count what is left of the time; 0 would mean not to wait at all, which is another error."""
    return max(0.001, end_s - monotonic())


def _shortened(text: str) -> str:
    """Return *text* so that it can stand in a sentence."""
    printable = "".join(one if one.isprintable() else "�" for one in text[: WORDS_MAX + 1])
    return printable if len(printable) <= WORDS_MAX else f"{printable[:WORDS_MAX]}…"
