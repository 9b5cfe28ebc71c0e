"""Running the agent's code in this process: what it says went wrong, as errors of rollout's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rollout.agent import acts
from rollout.agent.fault import LENT, PERMANENT, STALE, TAKEN_OVER, TRANSIENT, UNKNOWN, Fault
from rollout.model.errors import (
    DriverError,
    OutcomeUnknownError,
    PermanentDriverError,
    StaleEffectError,
    TakenOverError,
    TransientDriverError,
)

_KINDS: Mapping[str, type[DriverError]] = {
    TRANSIENT: TransientDriverError,
    LENT: TransientDriverError,
    PERMANENT: PermanentDriverError,
    UNKNOWN: OutcomeUnknownError,
    TAKEN_OVER: TakenOverError,
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the agent's code raises as a DriverError."""
    try:
        yield
    except Fault as fault:
        raise error_of(fault) from fault


def run(todo: Sequence[Mapping[str, Any]]) -> None:
    """Do acts that are data, here. Raises DriverError."""
    with translated():
        acts.run(todo)


def error_of(fault: Fault) -> DriverError:
    if fault.kind == STALE:
        return StaleEffectError(fault.what, where=fault.where, why=fault.why, remedy=fault.remedy, number=fault.number)
    return _KINDS.get(fault.kind, OutcomeUnknownError)(fault.what, where=fault.where, why=fault.why, remedy=fault.remedy)


def error_in(said: Mapping[str, Any]) -> DriverError:
    """Make an error of what the agent says did not happen."""
    parts = {name: said[name] for name in Fault.__annotations__ if name in said}
    return error_of(Fault(**{**parts, "kind": said["outcome"]}))
