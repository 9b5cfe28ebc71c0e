"""What we took out of traffic, written down at the target, and the fence against late effects."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.plan import Verb
from rollout.model.sighting import DrainMark
from rollout.ports.acts import Work


class Ledger(Protocol):
    """
    A small file beside the proxy. It survives the tool, its journal and its lease, so that somebody else can see and undo what we did.

    `fence` compares and stores the effect's number before the act; `marks` are set before a drain and cleared after full re-admission.

    Compared is (token, number), worker by worker. A token lower than the ledger's highest is always refused (TakenOverError, which names
    who took over); equal ones are accepted from the same owner only, because an act that failed may be repeated. An effect numbered NEXT
    gets the next number and the ledger's token, in one go. Locks are waited for within a bound: TransientDriverError names the holder.
    """

    def fence(self, effect: Effect) -> AbstractContextManager[None]:
        """
        Hold the worker while the act inside runs. Raises StaleEffectError when it comes too late, before the act.

        Entering a DRAIN or a HOLD sets the worker's mark (`marked`); leaving a LET_GO, or an ADMIT at weight 100, without an exception
        clears it (`brings_back`).
        """
        ...

    def perform(self, effect: Effect, work: Work) -> None:
        """
        Do *work* under the effect's number: compare, store and act in one go at the target, where the work is data; else under `fence`.

        Marks as `fence` says. Raises StaleEffectError before anything was done, and what the work raises.
        """
        ...

    def guard(self, homeserver: str) -> None:
        """
        Have somebody there who admits what of ours is out when nobody beats any more, and who survives this process.

        Ours is what has a mark with a way back. Raises TransientDriverError when it can't be begun; one that is there already is enough.
        """
        ...

    def marks(self) -> dict[WorkerId, DrainMark]:
        """Return our marks."""
        ...

    def last_number(self) -> EffectNumber:
        """Return the highest number that any effect has had; 0 at first."""
        ...

    def take(self, token: int, owner: str = "") -> None:
        """
        Take the homeserver over: from now on nobody with a lower token is heard. *owner* is for whoever is refused then.

        Raises TakenOverError (a StaleEffectError) when somebody has a higher one; the same token may be taken again.
        """
        ...

    def token(self) -> int:
        """Return the highest token that anybody has shown; 0 at first."""
        ...

    def beat(self, token: int, alive_until_s: float) -> None:
        """
        Say that somebody lives, until *alive_until_s* (seconds since the epoch; a time that has passed says that nobody does any more).

        Raises TakenOverError when somebody has a higher token.
        """
        ...


def marked(marks: Mapping[WorkerId, DrainMark], effect: Effect, at_s: float) -> dict[WorkerId, DrainMark]:
    """
    Return the marks once *effect* is begun. One that is taken back keeps its mark, which then names what is condemned.

    What is condemned stays so until the worker is back, also for a rollout that knows nothing of it.
    """
    worker = effect.worker
    if worker is None:
        return dict(marks)
    if effect.verb in {Verb.DRAIN, Verb.HOLD}:
        condemned = effect.condemned or (marks[worker].condemned if worker in marks else None)
        return {**marks, worker: DrainMark(effect.number, effect.release, effect.why, at_s, condemned)}
    if effect.condemned is not None and worker in marks:
        return {**marks, worker: replace(marks[worker], condemned=effect.condemned)}
    return dict(marks)


def brings_back(effect: Effect) -> bool:
    """Tell whether a worker has its whole traffic again after *effect*."""
    return effect.verb is Verb.LET_GO or (effect.verb is Verb.ADMIT and effect.weight == FULL_WEIGHT)
