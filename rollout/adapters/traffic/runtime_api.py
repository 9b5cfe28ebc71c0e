"""
Asking HAProxy's runtime API. What is told to it is the agent's (rollout.agent.proxy), and so is how a connection is used.

Every answer ends with an empty line; without it HAProxy hung up before it was done. Source: HAProxy's management guide, section 9.3.
"""

from pathlib import Path

from rollout.adapters.faults import translated
from rollout.adapters.wording import shortened
from rollout.agent.proxy import ask, connect, reason
from rollout.model.errors import PermanentDriverError, TransientDriverError


def read(place: Path, command: str, header: str, end_s: float) -> str:
    """Return the whole answer to a question, in which *header* is."""
    try:
        with translated(), connect(str(place), end_s) as connection:
            answer = ask(connection, command, end_s)
    except OSError as error:
        why = f"{command}: {reason(str(place), error)}"
        raise TransientDriverError("the proxy can't be asked", where=str(place), why=why) from error
    if answer and header not in answer:
        first, *_ = answer.strip().splitlines() or [""]
        why = f'{command}: it says "{shortened(first)}"'
        raise PermanentDriverError("the socket doesn't speak HAProxy's runtime API", where=str(place), why=why)
    if not answer.endswith("\n\n"):
        raise TransientDriverError("the proxy hung up before its answer was complete", where=str(place), why=command)
    return answer
