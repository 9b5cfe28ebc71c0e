"""What goes wrong at the target, as data: it is printed there, and raised again where somebody waits for it."""

from dataclasses import asdict, dataclass

# It did not happen, and may succeed later; … and would fail again; it may or may not have happened.
TRANSIENT, PERMANENT, UNKNOWN = "transient", "permanent", "unknown"
# It comes too late: a newer act was done on this worker; or somebody else has taken the homeserver over.
STALE, TAKEN_OVER = "stale", "taken_over"
# The worker may be acted on elsewhere; whoever wants it has to settle that first (lending.py).
LENT = "lent"


@dataclass(eq=False)
class Fault(Exception):  # noqa: N818  (as the word is used for acts: half of them are no errors of anybody)
    """
    *kind* is one of the words above; the next four are as in every error of rollout. *number* is the highest that the worker has seen, if
    it is STALE, and that of the effect under way, if it is LENT.
    """

    kind: str
    what: str
    where: str = ""
    why: str = ""
    remedy: str = ""
    number: int = 0

    def __str__(self) -> str:
        """Lay the parts out as rollout does: `where: what`, then why, then `try: …`."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        lines += [f"    {line}" for line in self.why.splitlines()]
        return "\n".join([*lines, f"    try: {self.remedy}"] if self.remedy else lines)

    def sentence(self) -> str:
        """Say it in one line."""
        return ": ".join(part.replace("\n", " ") for part in (self.where, self.what, self.why) if part)

    def as_data(self) -> dict[str, object]:
        return asdict(self)
