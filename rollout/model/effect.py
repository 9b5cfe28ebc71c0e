"""One numbered act on the world."""

from dataclasses import dataclass

from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import Verb

# Percent: a worker that is fully back.
FULL_WEIGHT = 100
# Instead of a number: the ledger gives the next one, higher than any that a rollout may have on its way, and its own token.
NEXT = EffectNumber(0)


@dataclass(frozen=True, slots=True)
class Effect:
    """
    What a driver is asked to do for *step_id*, at the latest by *deadline_at_s* (seconds since the epoch).

    *worker* is None for PREPARE and MIGRATE. *release* is what shall run afterwards; for DRAIN and ADMIT it is written into the ledger's
    mark. *weight* (percent) is what the worker shall have after an ADMIT, or after a DRAIN that goes down by steps (0 ends it). *warms* are
    the workers to warm. *condemned* is the release that must not be admitted again, on the way back from it. *why* is for the ledger and
    for people.

    *token* is the lease's under which it is done (0: there is none), *owner* the rollout's id: of two effects with equal token and number
    the ledger accepts the one whose owner had them first. *takes_out*: somebody is taken out by it, or the database is migrated, which is
    not to be done without the lease.
    """

    number: EffectNumber
    step_id: StepId
    verb: Verb
    worker: WorkerId | None
    release: ReleaseId
    deadline_at_s: float
    weight: int = FULL_WEIGHT
    why: str = ""
    warms: tuple[WorkerId, ...] = ()
    condemned: ReleaseId | None = None
    token: int = 0
    owner: str = ""
    takes_out: bool = False


def drains_in_part(effect: Effect) -> bool:
    """Tell whether a DRAIN is a step on the way down, after which the worker still takes some requests."""
    return effect.verb is Verb.DRAIN and 0 < effect.weight < FULL_WEIGHT
