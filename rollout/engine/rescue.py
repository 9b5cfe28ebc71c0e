"""
Break-glass: admit what is ours, with nothing but the proxy, the process manager and the ledger at the target.

No journal, no lock and no database are needed. Only workers that carry our mark are admitted, and only those that answer; the others are
named.
"""

from dataclasses import dataclass

from rollout.engine.drivers import Drivers, servers
from rollout.model.effect import FULL_WEIGHT, Effect
from rollout.model.errors import DriverError
from rollout.model.ids import EffectNumber, StepId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Verb

RESCUE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Rescued:
    """What came of it: *admitted*, and why the others are still out."""

    admitted: tuple[WorkerId, ...]
    left_out: dict[WorkerId, str]


def admit_ours(drivers: Drivers, inventory: Inventory) -> Rescued:
    """Admit every worker that has our mark and answers, at its full weight. Raises DriverError when the ledger can't be read."""
    marks = drivers.ledger.marks()
    answers = drivers.probe.health(tuple(marks), RESCUE_TIMEOUT_S) if marks else {}
    places = servers(inventory)
    admitted: list[WorkerId] = []
    left_out: dict[WorkerId, str] = {}
    for worker, mark in marks.items():
        answer = answers.get(worker)
        if worker not in places:
            left_out[worker] = "the inventory doesn't say where it stands at the proxy"
        elif answer is None or not answer.ok:
            left_out[worker] = f"it doesn't answer: {answer.why if answer is not None else 'not in the inventory'}"
        else:
            number = EffectNumber(drivers.ledger.last_number() + 1)
            effect = Effect(number, StepId(f"{worker}/safety"), Verb.ADMIT, worker, mark.release, deadline_at_s=0.0, why="admitted by hand")
            try:
                with drivers.ledger.fence(effect):
                    drivers.traffic.admit(places[worker], FULL_WEIGHT, RESCUE_TIMEOUT_S)
            except DriverError as error:
                left_out[worker] = str(error)
            else:
                admitted.append(worker)
    return Rescued(tuple(admitted), left_out)
