"""What we took out of traffic, written down at the target, and the fence against late effects."""

from contextlib import AbstractContextManager
from typing import Protocol

from rollout.model.effect import Effect
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.sighting import DrainMark


class Ledger(Protocol):
    """
    A small file beside the proxy. It survives the tool, its journal and its lock, so that somebody else can see and undo what we did.

    `fence` compares and stores the effect's number before the act; `marks` are set before a drain and cleared after full re-admission.
    """

    def fence(self, effect: Effect) -> AbstractContextManager[None]:
        """
        Hold the ledger while the act inside runs. Raises StaleEffectError when this worker has already seen a higher number.

        Entering a DRAIN sets the worker's mark; leaving an ADMIT at weight 100 without an exception clears it.
        """
        ...

    def marks(self) -> dict[WorkerId, DrainMark]:
        """Return our marks."""
        ...

    def last_number(self) -> EffectNumber:
        """Return the highest number that any effect has had; 0 at first."""
        ...

    def lock(self, holder: str, why: str) -> AbstractContextManager[None]:
        """
        One rollout per homeserver at a time: hold it, and say who does. Released by the operating system if the process dies.

        Raises RefusedError naming the holder, the host, the reason and since when.
        """
        ...
