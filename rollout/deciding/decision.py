"""What `decide` may answer."""

from dataclasses import dataclass

from rollout.model.effect import Effect
from rollout.model.event import Event, Outcome
from rollout.model.ids import WorkerId


@dataclass(frozen=True, slots=True)
class Perform:
    """Do this: its intent is made durable first."""

    effect: Effect


@dataclass(frozen=True, slots=True)
class Note:
    """Write this into the journal; nothing in the world changes: steps that begin and end, rulings, roll-backs, waits."""

    event: Event


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to do before *at_s*, unless something happens first."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The end (or the stop) of the rollout; *drained* are workers of ours that could not be brought back."""

    outcome: Outcome
    why: str
    drained: tuple[WorkerId, ...] = ()


Decision = Perform | Note | WaitUntil | Finish


@dataclass(frozen=True, slots=True)
class Wait:
    """
    Nothing to do before *until_s* unless something is seen; *cause* is one word for the accounts, *why* a steady sentence.

    A *quiet* one goes without saying: an effect is under way, which its intent has said already.
    """

    cause: str
    why: str
    until_s: float
    quiet: bool = False
