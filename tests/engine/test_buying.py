"""Sending requests that buy evidence: at the rate that was asked for, to whom it was said a moment ago, and to nobody else."""

import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import pytest

from rollout.adapters.clock.system import SystemClock
from rollout.engine.buying import HEEDED_S, Buyer
from rollout.engine.leasing import acquire
from rollout.engine.perform import ThreadedPerformer
from rollout.engine.survey import Surveyor
from rollout.model.buying import Buying
from rollout.model.ids import WorkerId
from rollout.ports.lease import Claim
from rollout.ports.probe import Answer
from rollout.simulation.rehearse import Stage
from rollout.simulation.virtual_clock import VirtualClock
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1, CLIENT2, SYNC1 = WorkerId("client1"), WorkerId("client2"), WorkerId("sync1")
PER_S = 0.5


@dataclass
class Probe:
    """It answers after *takes_s*; *during* happens meanwhile."""

    clock: VirtualClock
    takes_s: float = 0.0
    during: list[threading.Thread] = field(default_factory=list)
    asked: list[tuple[float, WorkerId, str]] = field(default_factory=list)
    none: bool = False

    def health(self, workers: Collection[WorkerId], timeout_s: float) -> dict[WorkerId, Answer]:
        raise NotImplementedError

    def unavailable(self, timeout_s: float) -> str:
        raise NotImplementedError

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        assert timeout_s <= 5.0
        self.asked += [(self.clock.now_s(), worker, path) for worker, path in paths.items()]
        self.clock.advance_to(self.clock.now_s() + self.takes_s)
        for thread in self.during:
            thread.run()
        return {} if self.none else {worker: Answer(ok=True, seconds=self.takes_s) for worker in paths}


def _buyer(probe: Probe, told: list[WorkerId]) -> Buyer:
    plan = replace(seven_workers().plan(PLAYBOOK), buying=Buying(PER_S, 100, 0.5, (CLIENT1, CLIENT2, SYNC1)))
    return Buyer(plan, probe, probe.clock, lambda worker, _: told.append(worker))


def _let(buyer: Buyer, clock: VirtualClock, seconds: float, asked: frozenset[WorkerId]) -> None:
    """Let time pass, with decisions twice a second."""
    until_s = clock.now_s() + seconds
    while clock.now_s() < until_s:
        buyer.attend(asked)
        for worker in sorted(asked):
            if buyer.is_due(worker):
                buyer.ask(worker)
        clock.advance_to(clock.now_s() + 0.1)


def test_each_is_asked_at_the_rate_of_the_plan_and_not_all_at_once() -> None:
    probe, told = Probe(VirtualClock()), list[WorkerId]()
    _let(_buyer(probe, told), probe.clock, 100.0, frozenset({CLIENT1, CLIENT2}))
    assert [sum(its == worker for _, its, _ in probe.asked) for worker in (CLIENT1, CLIENT2)] == [50, 50]
    first = {worker: next(at_s for at_s, its, _ in probe.asked if its == worker) for worker in (CLIENT1, CLIENT2)}
    assert first[CLIENT2] - first[CLIENT1] == pytest.approx(1.0, abs=0.2)
    assert len(told) == len(probe.asked)


def test_one_that_is_slow_is_asked_less_often_and_what_was_missed_is_not_made_up_for() -> None:
    probe, told = Probe(VirtualClock(), takes_s=4.0), list[WorkerId]()
    buyer = _buyer(probe, told)
    _let(buyer, probe.clock, 40.0, frozenset({CLIENT1}))
    assert len(told) <= 11
    probe.takes_s = 0.0
    before = len(told)
    _let(buyer, probe.clock, 20.0, frozenset({CLIENT1}))
    assert len(told) - before <= 11


def test_who_is_no_longer_named_is_no_longer_asked() -> None:
    probe, told = Probe(VirtualClock()), list[WorkerId]()
    buyer = _buyer(probe, told)
    _let(buyer, probe.clock, 10.0, frozenset({CLIENT1}))
    buyer.attend(frozenset())
    probe.clock.advance_to(probe.clock.now_s() + 3.0)
    assert not buyer.is_due(CLIENT1)


def test_nobody_is_asked_once_nobody_decides_any_more() -> None:
    probe = Probe(VirtualClock())
    buyer = _buyer(probe, [])
    assert buyer.attend(frozenset({CLIENT1})) == {CLIENT1}
    assert buyer.attend(frozenset({CLIENT1})) == frozenset()
    assert buyer.is_due(CLIENT1)
    probe.clock.advance_to(probe.clock.now_s() + HEEDED_S)
    assert not buyer.is_due(CLIENT1)


def test_what_was_under_way_when_something_was_done_to_a_worker_counts_for_nothing() -> None:
    probe, told = Probe(VirtualClock()), list[WorkerId]()
    buyer = _buyer(probe, told)
    buyer.attend(frozenset({CLIENT1, CLIENT2}))
    probe.during.append(threading.Thread(target=buyer.leave, args=(CLIENT1,)))
    buyer.ask(CLIENT1)
    assert told == []
    assert not buyer.is_due(CLIENT1)


def test_without_credentials_nothing_is_told() -> None:
    probe, told = Probe(VirtualClock(), none=True), list[WorkerId]()
    buyer = _buyer(probe, told)
    buyer.attend(frozenset({CLIENT1}))
    buyer.ask(CLIENT1)
    assert (len(probe.asked), told) == (1, [])


def test_no_two_lives_of_the_tool_ask_the_same() -> None:
    """Synapse answers from a cache for two minutes what it has just answered."""
    clock = VirtualClock()
    paths: list[str] = []
    for _ in range(2):
        probe = Probe(clock)
        _let(_buyer(probe, []), clock, 60.0, frozenset({SYNC1}))
        paths += [path for _, _, path in probe.asked]
    assert len(set(paths)) == len(paths) == 60


def _measured(stage: Stage, answers: list[Answer]) -> Surveyor:
    surveyor = Surveyor(stage.drivers, stage.inventory, stage.clock)
    surveyor.meter.buy(CLIENT1, Answer(ok=True, seconds=0.01))
    surveyor.measure([CLIENT1], with_canaries=False)
    stage.clock.advance_to(stage.clock.now_s() + 5.0)
    for answer in answers:
        surveyor.meter.buy(CLIENT1, answer)
    return surveyor


def test_what_was_bought_is_in_the_next_measurement_and_in_no_other() -> None:
    stage = seven_workers()
    surveyor = _measured(stage, [Answer(ok=True, seconds=0.02), Answer(ok=False, seconds=5.0, why="no answer in time")])
    tally = surveyor.measure([CLIENT1], with_canaries=False).tallies[CLIENT1]
    # What was answered before the first page was read can't be in a difference.
    assert (tally.bought, tally.canaries, tally.canary_failures, sum(tally.canary_latency)) == (2, 2, 1, 1)
    stage.clock.advance_to(stage.clock.now_s() + 5.0)
    assert surveyor.measure([CLIENT1], with_canaries=False).tallies[CLIENT1].bought == 0


def test_what_was_bought_while_nothing_could_be_measured_counts_for_nothing() -> None:
    stage = seven_workers()
    surveyor = _measured(stage, [Answer(ok=True, seconds=0.02)])
    started_at_s = stage.world.workers[CLIENT1].started_at_s
    # A process that began before the last page was read can't have begun anew since: what its page says isn't believed.
    stage.world.workers[CLIENT1].started_at_s = (started_at_s or 0.0) + 100.0
    assert CLIENT1 in surveyor.measure([CLIENT1], with_canaries=False).unmeasured
    stage.clock.advance_to(stage.clock.now_s() + 5.0)
    assert surveyor.measure([CLIENT1], with_canaries=False).tallies[CLIENT1].bought == 0


def _counts(probe: "Counting") -> list[int]:
    return [probe.asked.count(worker) for worker in (CLIENT1, CLIENT2)]


class Counting:
    """The simulated probe, which keeps whom it asked."""

    def __init__(self, stage: Stage) -> None:
        self._probe = stage.drivers.probe
        self.health, self.unavailable = self._probe.health, self._probe.unavailable
        self.asked: list[WorkerId] = []

    def canary(self, paths: Mapping[WorkerId, str], timeout_s: float) -> dict[WorkerId, Answer]:
        # A sweep asks those in focus, here nobody, all at once.
        self.asked += paths
        return self._probe.canary(paths, timeout_s)


def test_threads_ask_as_long_as_they_are_told_to() -> None:
    stage = seven_workers()
    stage.world.application_service = True
    probe = Counting(stage)
    stage.drivers = replace(stage.drivers, probe=probe)
    plan = replace(stage.plan(PLAYBOOK), buying=Buying(5.0, 100, 0.5, (CLIENT1, CLIENT2)), sample_s=60.0)
    clock = SystemClock()
    surveyor = Surveyor(stage.drivers, stage.inventory, clock)
    tenure = acquire(stage.drivers.lease, stage.drivers.ledger, clock, Claim("test", "deploy", stage.deploy_id), take_over=False)
    asked = frozenset({CLIENT1, CLIENT2})
    with ThreadedPerformer(plan, stage.drivers, stage.inventory, surveyor, clock, tenure) as performer:
        time.sleep(0.5)
        # By then the first sweep has asked everybody once.
        probe.asked.clear()
        began_s = time.monotonic()
        while min(_counts(probe)) < 5 and time.monotonic() < began_s + 60:
            performer.attend(frozenset(), eager=False, asked=asked)
            time.sleep(0.1)
        took_s = time.monotonic() - began_s
        performer.attend(frozenset(), eager=False, asked=frozenset())
        time.sleep(0.3)
        stopped = _counts(probe)
        time.sleep(0.7)
        assert _counts(probe) == stopped
    assert min(stopped) >= 5
    assert max(stopped) <= 5.0 * took_s + 2
