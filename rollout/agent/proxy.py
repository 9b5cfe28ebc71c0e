"""
Telling HAProxy's runtime API: one command, one answer, one connection, within a time.

Every answer ends with an empty line; without it HAProxy hung up before it was done. Success of a command is nothing but that line; any
text is an error. Source: HAProxy's management guide, section 9.3.
"""

import socket
from pathlib import Path
from time import monotonic

from rollout.agent.fault import PERMANENT, TRANSIENT, UNKNOWN, Fault

# `show stat` of a thousand servers is about half of this.
ANSWER_BYTES_MAX = 4_000_000
WORDS_MAX = 60


def tell_all(places: list[str], commands: list[str], timeout_s: float) -> None:
    """Give each command to every proxy before the next; raises Fault."""
    end_s = monotonic() + timeout_s
    for command in commands:
        for number, place in enumerate(places):
            try:
                tell(place, command, end_s)
            except Fault as fault:
                if number == 0:
                    raise
                # The proxies before this one have heard it: to say that it did not happen would be wrong.
                raise Fault(UNKNOWN, f"only {number} of {len(places)} proxies did it", where=fault.where, why=str(fault)) from fault


def tell(place: str, command: str, end_s: float) -> None:
    try:
        connection = connect(place, end_s)
    except OSError as error:
        raise Fault(TRANSIENT, "the proxy can't be reached", where=place, why=reason(place, error)) from error
    with connection:
        try:
            answer = ask(connection, command, end_s)
        except OSError as error:
            why = f"{command}: {reason(place, error)}"
            raise Fault(UNKNOWN, "the proxy did not say whether it did it", where=place, why=why) from error
    if not answer:
        raise Fault(UNKNOWN, "the proxy hung up without saying whether it did it", where=place, why=command)
    if answer.strip():
        raise Fault(PERMANENT, f"the proxy refused {command!r}", where=place, why=_shortened(answer.strip()))


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


def connect(place: str, end_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_left_s(end_s))
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


def ask(connection: socket.socket, command: str, end_s: float) -> str:
    """Send one command and read until the proxy closes; TimeoutError and other OSErrors come through."""
    connection.sendall(f"{command}\n".encode())
    connection.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while chunk := connection.recv(65_536):
        answer += chunk
        connection.settimeout(_left_s(end_s))
        if len(answer) > ANSWER_BYTES_MAX:
            why = f"more than {ANSWER_BYTES_MAX} bytes"
            raise Fault(PERMANENT, "the proxy's answer is too long", where=str(connection.getpeername()), why=why)
    return answer.decode(errors="replace")


def _left_s(end_s: float) -> float:
    """Count what is left of the time; 0 would mean not to wait at all, which is another error."""
    return max(0.001, end_s - monotonic())


def _shortened(text: str) -> str:
    """Return *text* so that it can stand in a sentence."""
    printable = "".join(one if one.isprintable() else "�" for one in text[: WORDS_MAX + 1])
    return printable if len(printable) <= WORDS_MAX else f"{printable[:WORDS_MAX]}…"
