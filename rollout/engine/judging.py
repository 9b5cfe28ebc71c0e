"""Measuring the homeserver as it runs, for a while: a baseline for later, or rulings on what runs now. Nothing is touched."""

import threading
from collections.abc import Callable, Collection, Mapping
from functools import reduce
from typing import NamedTuple

from rollout.engine.survey import Surveyor
from rollout.gating import sequential, threshold, windows
from rollout.gating.evidence import sound
from rollout.model.gate import Gate, Ruling, Tally, Verdict
from rollout.model.ids import GateId, WorkerId
from rollout.ports.clock import Clock

Found = Mapping[WorkerId, tuple[Tally, ...]]
Progress = Callable[[float, Found], None]
Enough = Callable[[Found], bool]


def watch(
    surveyor: Surveyor, workers: Collection[WorkerId], seconds: float, sample_s: float, progress: Progress, enough: Enough
) -> dict[WorkerId, tuple[Tally, ...]]:
    """
    Measure what *workers* do for *seconds*; *progress* is told how many are left, and what there is.

    KeyboardInterrupt ends it early, and so does *enough*, which is asked after each measurement.

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
            if enough(found):
                break
    except KeyboardInterrupt:
        pass
    return found


def summed(found: Found) -> dict[WorkerId, Tally]:
    """Add up what was measured of each worker."""
    return {worker: reduce(Tally.__add__, tallies) for worker, tallies in found.items()}


class Judge:
    """
    Rules on workers while they are measured: by what they do, against what was kept of them before (*baselines*).

    Which of their siblings run what isn't known here, so nobody is compared with them. *verdicts* are those of the last measurement; a
    worker without a tally can't be measured.
    """

    def __init__(self, gates: Mapping[WorkerId, Collection[Gate]], baselines: Mapping[WorkerId, Tally], clock: Clock) -> None:
        self._gates = gates
        self._baselines = baselines
        self._clock = clock
        # It is asked after each of hundreds of measurements, so what came of the others is kept.
        self._heard: dict[WorkerId, _Heard] = {}
        self._kept: dict[tuple[WorkerId, GateId], sequential.Kept] = {}
        self.verdicts = self._rule()

    def hear(self, found: Found) -> bool:
        """Rule by all that was *found* since it began; tell whether a gate that acts fails, since that is so whenever it is looked at."""
        for worker, tallies in found.items():
            self._heard[worker] = _hear(self._heard.get(worker), tallies)
        self.verdicts = self._rule()
        return overall(self.heeded()) is Ruling.FAIL

    def heeded(self) -> dict[WorkerId, list[Verdict]]:
        """Leave out what gates say that don't act, and workers that no other looks at."""
        acting = {worker: {gate.id for gate in its if gate.acts} for worker, its in self._gates.items()}
        return {worker: [one for one in self.verdicts[worker] if one.gate in names] for worker, names in acting.items() if names}

    def _rule(self) -> dict[WorkerId, list[Verdict]]:
        now_s = self._clock.now_s()
        return {worker: [self._rule_by(gate, worker, now_s) for gate in its] for worker, its in self._gates.items()}

    def _rule_by(self, gate: Gate, worker: WorkerId, now_s: float) -> Verdict:
        heard, baseline = self._heard.get(worker), self._baselines.get(worker)
        unmeasured = None if heard is not None else "it could not be measured"
        after = None if heard is None else heard.after
        since_s = now_s if after is None else after.since_s
        if gate.odds is None:
            return threshold.rule(
                gate, after=after, baseline=baseline, controls=None, unmeasured=unmeasured, admitted_at_s=since_s, now_s=now_s, pool=None
            )
        seen = sequential.Seen(() if heard is None else heard.blocks, baseline, None, (), since_s)
        odds, kept = sequential.weigh(gate, seen, self._kept.get((worker, gate.id)))
        if kept is not None:
            self._kept[worker, gate.id] = kept
        return sequential.rule(gate, seen, odds, unmeasured=unmeasured, now_s=now_s)


class _Heard(NamedTuple):
    """What the first *number* tallies of a worker add up to, and the blocks of those that can be true."""

    number: int
    after: Tally
    blocks: tuple[windows.Window, ...]


def _hear(before: _Heard | None, tallies: tuple[Tally, ...]) -> _Heard:
    """Add what is new among *tallies*, of which there is at least one."""
    after, blocks = (None, ()) if before is None else (before.after, before.blocks)
    for tally in tallies[0 if before is None else before.number :]:
        after = tally if after is None else after + tally
        # What can't be true says nothing; when no other comes, that is noticed by its age.
        if sound(tally):
            blocks = windows.extend_blocks(blocks, tally, None, sequential.BLOCK_S, sequential.BLOCKS_MAX)
    return _Heard(len(tallies), after or tallies[0], blocks)


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
