"""Measuring the homeserver as it runs, for a while: a baseline for later, or rulings on what runs now. Nothing is touched."""

import threading
from collections.abc import Callable, Collection, Mapping
from functools import reduce

from rollout.engine.survey import Surveyor
from rollout.gating import sequential, threshold, windows
from rollout.gating.evidence import sound
from rollout.model.gate import Gate, Ruling, Tally, Verdict
from rollout.model.ids import WorkerId

Progress = Callable[[float, Mapping[WorkerId, tuple[Tally, ...]]], None]


def watch(
    surveyor: Surveyor, workers: Collection[WorkerId], seconds: float, sample_s: float, progress: Progress
) -> dict[WorkerId, tuple[Tally, ...]]:
    """
    Measure what *workers* do for *seconds*; *progress* is told how many are left, and what there is. KeyboardInterrupt ends it early.

    A worker that could not be measured to the end has what was measured of it, one that never could has nothing.
    """
    found: dict[WorkerId, tuple[Tally, ...]] = {}
    pause = threading.Event()
    left_s = seconds
    # What the proxy counts is seen by looking.
    surveyor.look(thorough=False)
    surveyor.measure(tuple(workers), with_canaries=True)
    try:
        while left_s > 0:
            progress(left_s, found)
            pause.wait(min(sample_s, left_s))
            left_s -= sample_s
            surveyor.look(thorough=False)
            for worker, tally in surveyor.measure(tuple(workers), with_canaries=True).tallies.items():
                found[worker] = (*found.get(worker, ()), tally)
    except KeyboardInterrupt:
        pass
    return found


def summed(found: Mapping[WorkerId, tuple[Tally, ...]]) -> dict[WorkerId, Tally]:
    """Add up what was measured of each worker."""
    return {worker: reduce(Tally.__add__, tallies) for worker, tallies in found.items()}


def judge(
    gates: Mapping[WorkerId, Collection[Gate]],
    after: Mapping[WorkerId, tuple[Tally, ...]],
    baselines: Mapping[WorkerId, Tally],
    now_s: float,
) -> dict[WorkerId, list[Verdict]]:
    """
    Rule on workers by what they did lately against what was kept of them before; one without a tally can't be measured.

    Which of their siblings run what isn't known here, so nobody is compared with them.
    """
    return {worker: [_judge(gate, after.get(worker, ()), baselines.get(worker), now_s) for gate in its] for worker, its in gates.items()}


def _judge(gate: Gate, tallies: tuple[Tally, ...], baseline: Tally | None, now_s: float) -> Verdict:
    since_s = tallies[0].since_s if tallies else now_s
    unmeasured = None if tallies else "it could not be measured"
    if gate.odds is None:
        after = reduce(Tally.__add__, tallies) if tallies else None
        return threshold.rule(
            gate, after=after, baseline=baseline, controls=None, unmeasured=unmeasured, admitted_at_s=since_s, now_s=now_s
        )
    blocks: tuple[windows.Window, ...] = ()
    # What can't be true says nothing; when no other comes, that is noticed by its age.
    for tally in filter(sound, tallies):
        blocks = windows.extend_blocks(blocks, tally, None, sequential.BLOCK_S, sequential.BLOCKS_MAX)
    seen = sequential.Seen(blocks, baseline, None, (), since_s)
    odds, _ = sequential.weigh(gate, seen)
    return sequential.rule(gate, seen, odds, unmeasured=unmeasured, now_s=now_s)


def overall(verdicts: Mapping[WorkerId, Collection[Verdict]]) -> Ruling:
    """Say what all of them say together: FAIL if one fails, PASS if all pass, INCONCLUSIVE otherwise, as for a worker without verdicts."""
    rulings = [[verdict.ruling for verdict in its] for its in verdicts.values()]
    if any(Ruling.FAIL in its for its in rulings):
        return Ruling.FAIL
    return Ruling.PASS if rulings and all(set(its) == {Ruling.PASS} for its in rulings) else Ruling.INCONCLUSIVE


def joined(kept: Collection[Mapping[WorkerId, Tally]]) -> dict[WorkerId, Tally]:
    """Join what was kept of each worker on several occasions."""
    workers = {worker for one in kept for worker in one}
    return {worker: windows.covering([one[worker] for one in kept if worker in one]) for worker in workers}
