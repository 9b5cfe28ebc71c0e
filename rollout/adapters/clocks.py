"""Whether a host's clock can be believed."""

from rollout.adapters.remote_commands import Said
from rollout.model.errors import PermanentDriverError, TransientDriverError

# A restart takes longer than this, so no restart is taken for none. NTP keeps a host within milliseconds.
CLOCK_SKEW_MAX_S = 1.0


def check_clock(where: str, sent_s: float, said: Said, received_s: float) -> None:
    """Raise DriverError when the clock that *said* prints is off by too much, or can't be read."""
    skew_s = clock_skew_s(sent_s, said.out, received_s)
    if skew_s is None:
        raise TransientDriverError("the host's clock can't be read", where=where, why=said.why)
    if abs(skew_s) > CLOCK_SKEW_MAX_S:
        raise PermanentDriverError(
            f"the host's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's",
            where=where,
            why="whether a process was started before or after we said so can't be told then",
            remedy="set both clocks (timedatectl timesync-status, chronyc tracking)",
        )


def clock_skew_s(sent_s: float, printed: str, received_s: float) -> float | None:
    """
    Return by how much a clock is ahead of ours, at least; None if it wasn't read.

    It was read between *sent_s* and *received_s* by ours, so a slow network is never taken for a wrong clock.
    """
    try:
        there_s = float(printed.strip())
    except ValueError:
        return None
    return there_s - received_s if there_s > received_s else min(0.0, there_s - sent_s)
