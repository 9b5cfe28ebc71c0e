"""
What may go wrong in a simulated rollout, each by its name, and at which moments of an effect.

A fault of an effect is how the act itself goes: it is late, lost, done twice, misreported, or it fails. All else strikes from outside
at any moment: workers, proxy, metrics, the release, the clock, other people, and the tool's own process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rollout.model.effect import Effect
from rollout.model.event import Command
from rollout.model.ids import EffectNumber
from rollout.model.plan import Verb


class Fault(StrEnum):
    """Everything that may go wrong."""

    # How the act itself goes.
    FAILS = "fails"  # nothing happens, and the driver says so; again may help
    FAILS_FOR_GOOD = "fails_for_good"  # as above, and the driver says that trying again won't help
    UNKNOWN_DONE = "unknown_done"  # it happens, and nobody hears of it
    UNKNOWN_NOT_DONE = "unknown_not_done"  # it is lost: it doesn't happen, and nobody hears of it
    LATE = "late"  # nobody hears of it, and it happens a while later, perhaps after newer ones
    DUPLICATED = "duplicated"  # it happens now, and once more later
    SAYS_DONE = "says_done"  # the driver says that it did it, and didn't
    SAYS_FAILED = "says_failed"  # the driver says that it failed, and did it
    # Workers.
    WORKER_DIES = "worker_dies"
    WORKER_HANGS = "worker_hangs"
    BOOTS_SLOWLY = "boots_slowly"  # within the deadline
    BOOTS_TOO_SLOWLY = "boots_too_slowly"  # beyond it
    RECOVERS_SLOWLY = "recovers_slowly"
    RECOVERS_NEVER = "recovers_never"
    # What the rollout looks at and acts through.
    METRICS_OF_ONE = "metrics_of_one"
    METRICS_OF_ALL = "metrics_of_all"
    PROXY_FORGETS = "proxy_forgets"  # a reload: what was drained is admitted again, and holds end
    PROXY_AWAY = "proxy_away"
    MANAGER_AWAY = "manager_away"  # the process manager
    DATABASE_AWAY = "database_away"
    LEASE_LOST = "lease_lost"
    # The release.
    RELEASE_EXITS = "release_exits"
    RELEASE_HANGS = "release_hangs"
    RELEASE_ERRS = "release_errs"
    RELEASE_SLOW = "release_slow"
    # Time, other people, and the tool's own process.
    CLOCK_FORWARD = "clock_forward"
    CLOCK_BACK = "clock_back"
    TOOL_STALLS = "tool_stalls"  # it is stopped (SIGSTOP) and woken later
    TOOL_DIES = "tool_dies"  # SIGKILL; taken up again, perhaps after a while
    JOURNAL_LOST = "journal_lost"  # as above, and the journal is gone: planned anew from what is seen
    SOMEBODY_DRAINS = "somebody_drains"
    ASKS_ABORT = "asks_abort"
    ASKS_PAUSE = "asks_pause"
    ASKS_CONTINUE = "asks_continue"
    ASKS_ROLLBACK = "asks_rollback"
    ASKS_SKIP = "asks_skip"
    ASKS_INTERRUPT = "asks_interrupt"


# Each of these happens once, while the act is under way.
OF_THE_ACT = frozenset(
    {
        Fault.FAILS,
        Fault.FAILS_FOR_GOOD,
        Fault.UNKNOWN_DONE,
        Fault.UNKNOWN_NOT_DONE,
        Fault.LATE,
        Fault.DUPLICATED,
        Fault.SAYS_DONE,
        Fault.SAYS_FAILED,
    }
)

COMMANDS = {
    Fault.ASKS_ABORT: Command.ABORT,
    Fault.ASKS_PAUSE: Command.PAUSE,
    Fault.ASKS_CONTINUE: Command.CONTINUE,
    Fault.ASKS_ROLLBACK: Command.ROLLBACK,
    Fault.ASKS_SKIP: Command.SKIP,
    Fault.ASKS_INTERRUPT: Command.INTERRUPT,
}


class Moment(StrEnum):
    """When, in the life of an effect."""

    BEFORE_INTENT = "before_intent"  # its step has begun
    BEFORE_ACT = "before_act"  # between intent and act
    DURING = "during"  # between its fence and the act; of a restart, when the old process has stopped
    AFTER_ACT = "after_act"  # before its outcome is known
    WAITING = "waiting"  # while what it is for has yet to show


@dataclass(frozen=True, slots=True)
class Strike:
    """
    What goes wrong, and when: at the *nth* time (from 1) that a rollout is at *moment* of *verb*.

    *for_s* is how long it lasts, or how much (a boot, a jump of the clock, the time in which nobody is there, by how much an act is late);
    None lasts for ever. *delay_s* is how long after WAITING began. *aside*: it strikes another worker than the one that is acted on, the
    *whom*-th of those.
    """

    fault: Fault
    verb: Verb
    moment: Moment
    nth: int = 1
    for_s: float | None = None
    delay_s: float = 0.0
    aside: bool = False
    whom: int = 0


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that came about, at *at_s* by the world's clock."""

    at_s: float
    strike: Strike
    worker: str


class Hooks(Protocol):
    """What the performer tells of each effect, and asks about it."""

    def intended(self, effect: Effect) -> None:
        """Its intent is durable, and it is about to be begun."""
        ...

    def fault_of(self, effect: Effect) -> tuple[Fault | None, float]:
        """Say how the act goes wrong, if it does, and by how many seconds where it is late or done again."""
        ...

    def acted(self, effect: Effect) -> None:
        """It has happened, or not; nobody knows yet."""
        ...


class NoHooks:
    """Nothing goes wrong but what is scripted by effect number."""

    def __init__(self, faults: Mapping[EffectNumber, Fault] | None = None) -> None:
        self._faults = faults or {}

    def intended(self, effect: Effect) -> None:
        """See Hooks."""

    def fault_of(self, effect: Effect) -> tuple[Fault | None, float]:
        """See Hooks."""
        return self._faults.get(effect.number), 0.0

    def acted(self, effect: Effect) -> None:
        """See Hooks."""
