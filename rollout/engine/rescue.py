"""
Break-glass: admit what is ours, with nothing but the proxy, the process manager and the ledger at the target.

No journal, no lease and no database are needed. Only workers that carry our mark are admitted, and only those that answer; the others are
named. One that was being taken back from a release that failed is not admitted on that release.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rollout.engine.drivers import Drivers, servers
from rollout.engine.work import admission, both, letting_go
from rollout.model.effect import NEXT, Effect
from rollout.model.errors import DriverError, TransientDriverError
from rollout.model.ids import ReleaseId, StepId, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Verb
from rollout.ports.traffic import Server

RESCUE_TIMEOUT_S = 5.0
# A worker that answers us is down for the proxy until its next checks: by HAProxy's own defaults two of them, two seconds apart.
UP_WITHIN_S = 10.0
LOOK_EVERY_S = 0.5
# Whoever comes too late is told who was first.
BY_HAND = "rollout admit"


def _pass(seconds: float) -> None:
    threading.Event().wait(seconds)


@dataclass(frozen=True, slots=True)
class Rescued:
    """What came of it: *admitted*, and why the others are still out."""

    admitted: tuple[WorkerId, ...]
    left_out: dict[WorkerId, str]


def admit_ours(
    drivers: Drivers,
    inventory: Inventory,
    condemned: Mapping[WorkerId, ReleaseId] | None = None,
    pause: Callable[[float], object] = _pass,
) -> Rescued:
    """
    Admit every worker that has our mark and answers, at its full weight. What waits for one is let go once the proxy sees it up.

    *condemned* is what a worker must not be admitted on, besides what its mark says; *pause* lets seconds pass. Raises DriverError when the
    ledger can't be read.
    """
    marks = {
        worker: replace(mark, condemned=(condemned or {}).get(worker, mark.condemned)) for worker, mark in drivers.ledger.marks().items()
    }
    answers = drivers.probe.health(tuple(marks), RESCUE_TIMEOUT_S) if marks else {}
    places = servers(inventory)
    admitted: list[WorkerId] = []
    left_out: dict[WorkerId, str] = {}
    for worker, mark in marks.items():
        answer = answers.get(worker)
        if worker not in places:
            left_out[worker] = "the inventory doesn't say where it stands at the proxy"
        elif mark.condemned is not None and _runs(drivers, worker) == mark.condemned:
            left_out[worker] = f"it runs {mark.condemned}, which was being taken back"
        elif answer is None or not answer.ok:
            left_out[worker] = f"it doesn't answer: {answer.why if answer is not None else 'not in the inventory'}"
        else:
            step, why = StepId(f"{worker}/safety"), "admitted by hand"
            effect = Effect(NEXT, step, Verb.ADMIT, worker, mark.release, deadline_at_s=0.0, why=why, owner=BY_HAND)
            work = admission(drivers, places[worker])
            try:
                if _can_be_held(worker, inventory):
                    _await_up(drivers, worker, places[worker], pause)
                    work = both(work, letting_go(drivers, places[worker]))
                drivers.ledger.perform(effect, work)
            except DriverError as error:
                left_out[worker] = str(error)
            else:
                admitted.append(worker)
    return Rescued(tuple(admitted), left_out)


def _await_up(drivers: Drivers, worker: WorkerId, place: Server, pause: Callable[[float], object]) -> None:
    """What is let go to a server that the proxy sees down is answered 503; raises DriverError when it stays so."""
    for _ in range(round(UP_WITHIN_S / LOOK_EVERY_S)):
        proxy = drivers.traffic.look({worker: place}, RESCUE_TIMEOUT_S).get(worker)
        if proxy is not None and (proxy.up or not proxy.holding):
            return
        pause(LOOK_EVERY_S)
    raise TransientDriverError(
        f"it answers, but the proxy's own check has it down for {UP_WITHIN_S:.0f} s; its requests wait until the proxy's bound is over",
        remedy="again, once the proxy sees it up",
    )


def _can_be_held(worker: WorkerId, inventory: Inventory) -> bool:
    pool = inventory.workers[worker].pool
    return pool is not None and inventory.pools[pool].hold


def _runs(drivers: Drivers, worker: WorkerId) -> ReleaseId | None:
    """Name what a worker would be admitted on: its link, which is switched only while it is stopped."""
    activation = drivers.releases.activations((worker,)).get(worker)
    return None if activation is None else activation.release
