"""Measuring the homeserver as it runs, for a while: a baseline for later, or rulings on what runs now. Nothing is touched."""

import threading
from collections.abc import Callable, Collection, Mapping
from functools import reduce

from rollout.engine.survey import Surveyor
from rollout.gating import threshold
from rollout.model.gate import Gate, Ruling, Tally, Verdict
from rollout.model.ids import WorkerId

Progress = Callable[[float], None]


def watch(surveyor: Surveyor, workers: Collection[WorkerId], seconds: float, sample_s: float, progress: Progress) -> dict[WorkerId, Tally]:
    """
    Add up what *workers* do for *seconds*; *progress* is told how many are left. KeyboardInterrupt ends it early, with what there is.

    A worker that could not be measured to the end has what was measured of it, one that never could has nothing.
    """
    found: dict[WorkerId, Tally] = {}
    pause = threading.Event()
    left_s = seconds
    surveyor.measure(tuple(workers), with_canaries=True)
    try:
        while left_s > 0:
            progress(left_s)
            pause.wait(min(sample_s, left_s))
            left_s -= sample_s
            for worker, tally in surveyor.measure(tuple(workers), with_canaries=True).tallies.items():
                found[worker] = found[worker] + tally if worker in found else tally
    except KeyboardInterrupt:
        pass
    return found


def judge(
    gates: Mapping[WorkerId, Collection[Gate]], after: Mapping[WorkerId, Tally], baselines: Mapping[WorkerId, Tally], now_s: float
) -> dict[WorkerId, list[Verdict]]:
    """Rule on workers by what they did lately against what was kept of them before; one without a tally can't be measured."""
    return {
        worker: [
            threshold.rule(
                gate,
                after=after.get(worker),
                baseline=baselines.get(worker),
                controls=None,
                unmeasured=None if worker in after else "it could not be measured",
                admitted_at_s=after[worker].since_s if worker in after else now_s,
                now_s=now_s,
            )
            for gate in its
        ]
        for worker, its in gates.items()
    }


def overall(verdicts: Mapping[WorkerId, Collection[Verdict]]) -> Ruling:
    """Say what all of them say together: FAIL if one fails, PASS if all pass, INCONCLUSIVE otherwise."""
    rulings = [verdict.ruling for its in verdicts.values() for verdict in its]
    if Ruling.FAIL in rulings:
        return Ruling.FAIL
    return Ruling.PASS if rulings and all(ruling is Ruling.PASS for ruling in rulings) else Ruling.INCONCLUSIVE


def joined(kept: Collection[Mapping[WorkerId, Tally]]) -> dict[WorkerId, Tally]:
    """Join what was kept of each worker on several occasions."""
    workers = {worker for one in kept for worker in one}
    return {worker: reduce(Tally.__add__, (one[worker] for one in kept if worker in one)) for worker in workers}
