"""
Errors that a person may read: what happened, where, why, and what to try next.

Drivers raise the three driver errors and nothing else; everything above recognises them by type, never by text.
"""


class RolloutError(Exception):
    """
    Base of every error that is not our bug.

    *what* is one sentence without a full stop; *where* a file position, worker or address; *why* the evidence; *remedy* the next thing to
    try.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        """Lay the four parts out as STYLE asks: `where: what`, then why, then `try: …`."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            lines.extend(f"    {line}" for line in self.why.splitlines())
        if self.remedy:
            lines.append(f"    try: {self.remedy}")
        return "\n".join(lines)


class InvalidFileError(RolloutError):
    """A file or an argument cannot be used; nothing was touched."""

    exit_code = 2


class RefusedError(RolloutError):
    """It would be unsafe, or somebody else is at work: nothing was touched."""

    exit_code = 5


class LeaseHeldError(RefusedError):
    """Somebody else holds the homeserver's lease."""


class DriverError(RolloutError):
    """Base of what a driver raises; *where* names the worker or the address."""

    exit_code = 4


class TransientDriverError(DriverError):
    """It did not happen, and the same call may succeed later."""


class PermanentDriverError(DriverError):
    """It did not happen, and the same call would fail again."""


class OutcomeUnknownError(DriverError):
    """It may or may not have happened: observe before doing anything else to that worker."""


class StaleEffectError(PermanentDriverError):
    """
    A newer effect was already applied to this worker; this one came too late and did nothing.

    *number* is the highest that the ledger knows (0 if that isn't said): with a higher one the same act may be done.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "", number: int = 0) -> None:
        super().__init__(what, where=where, why=why, remedy=remedy)
        self.number = number


class TakenOverError(StaleEffectError):
    """Somebody else has taken the homeserver over, with a higher token: nothing that this rollout does is heard any more."""


class JournalTakenError(RolloutError):
    """Somebody else has written into a rollout's journal since we did, so they run it now; nothing was written."""
