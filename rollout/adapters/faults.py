"""What the agent says went wrong, as errors of rollout's own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rollout.agent.fault import PERMANENT, STALE, TAKEN_OVER, TRANSIENT, UNKNOWN, Fault
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


def error_of(fault: Fault) -> DriverError:
    if fault.kind == STALE:
        return StaleEffectError(fault.what, where=fault.where, why=fault.why, remedy=fault.remedy, number=fault.number)
    return _KINDS.get(fault.kind, OutcomeUnknownError)(fault.what, where=fault.where, why=fault.why, remedy=fault.remedy)
