"""
Talking to HAProxy's runtime API: one command, one answer, one connection, within a time.

Every answer ends with an empty line; without it HAProxy hung up before it was done. Success of a command is nothing but that line; any
text is an error. Source: HAProxy's management guide, section 9.3.
"""

import socket
from pathlib import Path
from time import monotonic  # noqa: TID251  (a socket's own timeout begins anew with every byte)

from rollout.adapters.wording import shortened
from rollout.model.errors import OutcomeUnknownError, PermanentDriverError, TransientDriverError

# `show stat` of a thousand servers is about half of this.
ANSWER_BYTES_MAX = 4_000_000


def tell(place: Path, command: str, end_s: float) -> None:
    try:
        connection = _connect(place, end_s)
    except OSError as error:
        raise TransientDriverError("the proxy can't be reached", where=str(place), why=_reason(place, error)) from error
    with connection:
        try:
            answer = _ask(connection, command, end_s)
        except OSError as error:
            why = f"{command}: {_reason(place, error)}"
            raise OutcomeUnknownError("the proxy did not say whether it did it", where=str(place), why=why) from error
    if not answer:
        raise OutcomeUnknownError("the proxy hung up without saying whether it did it", where=str(place), why=command)
    if answer.strip():
        raise PermanentDriverError(f"the proxy refused {command!r}", where=str(place), why=shortened(answer.strip()))


def read(place: Path, command: str, header: str, end_s: float) -> str:
    """Return the whole answer to a question, in which *header* is."""
    try:
        with _connect(place, end_s) as connection:
            answer = _ask(connection, command, end_s)
    except OSError as error:
        raise TransientDriverError("the proxy can't be asked", where=str(place), why=f"{command}: {_reason(place, error)}") from error
    if answer and header not in answer:
        first, *_ = answer.strip().splitlines() or [""]
        why = f'{command}: it says "{shortened(first)}"'
        raise PermanentDriverError("the socket doesn't speak HAProxy's runtime API", where=str(place), why=why)
    if not answer.endswith("\n\n"):
        raise TransientDriverError("the proxy hung up before its answer was complete", where=str(place), why=command)
    return answer


def _reason(place: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such socket"
        case ConnectionRefusedError():
            return "nobody listens there" if place.is_socket() else "it is no socket"
        case TimeoutError():
            return "no answer in time"
        case _:
            return (error.strerror or str(error)).lower()


def _connect(place: Path, end_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_left_s(end_s))
        connection.connect(str(place))
    except OSError:
        connection.close()
        raise
    return connection


def _ask(connection: socket.socket, command: str, end_s: float) -> str:
    """Send one command and read until the proxy closes; TimeoutError and other OSErrors come through."""
    connection.sendall(f"{command}\n".encode())
    connection.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while chunk := connection.recv(65_536):
        answer += chunk
        connection.settimeout(_left_s(end_s))
        if len(answer) > ANSWER_BYTES_MAX:
            raise PermanentDriverError(
                "the proxy's answer is too long", where=str(connection.getpeername()), why=f"more than {ANSWER_BYTES_MAX} bytes"
            )
    return answer.decode(errors="replace")


def _left_s(end_s: float) -> float:
    """Count what is left of the time; 0 would mean not to wait at all, which is another error."""
    return max(0.001, end_s - monotonic())
