"""
How long the steps of a rollout took, from its journal: what the next one is forecast by, and what a forecast is scored against.

A step counts from the end of those that it needs, so that the steps of a rollout add up to the whole of it; the last watch counts until
the rollout has said how it ended. Left out is what depends on others than the homeserver and us: waiting for a guard, for room in a pool,
for a database that is away, for somebody who resumes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rollout.gating.evidence import measured
from rollout.model.event import (
    BaselineFound,
    DeployFinished,
    DeployResumed,
    EffectIntended,
    Event,
    Observed,
    Outcome,
    RollbackBegan,
    SamplesTaken,
    StepBegan,
    StepFinished,
    WaitBegan,
    WindDownBegan,
)
from rollout.model.gate import Metric, Tally
from rollout.model.ids import Role, StepId, WorkerId
from rollout.model.plan import Plan, Step, Verb, steps_of
from rollout.planning.forecast import History, shape_of

# What ends a wait: another one, an act, a turn, or the end. As in fold.py.
_ENDS_A_WAIT = (WaitBegan, EffectIntended, RollbackBegan, WindDownBegan, DeployFinished, DeployResumed)
# The time in which no process was there to do anything: after a crash, a signal or a pause, until somebody resumed.
NOBODY_THERE = "nobody there"
# What no forecast can know.
LEFT_OUT = frozenset({"guard", "capacity", "database", NOBODY_THERE})


@dataclass(frozen=True, slots=True)
class Waited:
    """One wait: why, in a word, and from when to when."""

    cause: str
    since_s: float
    until_s: float


class WaitClock:
    """Turns events into waits, one after the other."""

    def __init__(self) -> None:
        self._wait: tuple[str, float] | None = None
        self._last_at_s: float | None = None

    def enter(self, event: Event) -> Iterator[Waited]:
        """Take the next event in; yield the waits that it ends."""
        last_at_s = event.at_s if self._last_at_s is None else self._last_at_s
        self._last_at_s = max(last_at_s, event.at_s)
        if isinstance(event, _ENDS_A_WAIT) and self._wait is not None:
            # A wait that a crash cut short lasted as long as somebody was there.
            cause, since_s = self._wait
            self._wait = None
            yield Waited(cause, since_s, last_at_s if isinstance(event, DeployResumed) else event.at_s)
        if isinstance(event, DeployResumed):
            yield Waited(NOBODY_THERE, last_at_s, event.at_s)
        if isinstance(event, WaitBegan):
            self._wait = (event.cause, event.at_s)

    def close(self) -> Iterator[Waited]:
        """Yield the wait that has not ended, as far as it went."""
        if self._wait is not None and self._last_at_s is not None:
            yield Waited(*self._wait, self._last_at_s)


@dataclass(frozen=True, slots=True)
class StepTime:
    """
    One step that was done: *seconds* without what is left out. *sessions* are those of its worker when it was taken out (DRAIN, HOLD).

    *disturbed*: nobody was there for a part of it, so it says nothing about the next one.
    """

    step: Step
    seconds: float
    sessions: int | None
    disturbed: bool


@dataclass(frozen=True, slots=True)
class Times:
    """
    A rollout's times: *steps* on the way there, *whole_s* for all of it without what is *left_out* (seconds by cause).

    *samples_per_s* is what each role's workers were measured by while they soaked; *surveyed*: everybody had a baseline before.
    """

    outcome: Outcome | None
    steps: dict[StepId, StepTime]
    whole_s: float
    left_out: dict[str, float]
    samples_per_s: dict[tuple[Role, Metric], float]
    surveyed: bool


def times_of(plan: Plan, events: Iterable[Event]) -> Times:
    """Read the times off a journal. Raises ValueError when it holds no event at all."""
    book = _Book(plan)
    for event in events:
        book.enter(event)
    return book.times()


def history_of(rollouts: Sequence[tuple[Plan, Times]]) -> History:
    """Put together what earlier rollouts took, the newest first. Only those that were deployed say how long one takes."""
    beyond: dict[tuple[Verb, Role | None, str], list[float]] = {}
    samples_per_s: dict[tuple[Role, Metric], float] = {}
    deployed = [(plan, times) for plan, times in rollouts if times.outcome is Outcome.DEPLOYED]
    for plan, times in deployed:
        workers = {worker.id: worker for worker in plan.workers}
        for one in times.steps.values():
            if one.disturbed:
                continue
            worker = None if one.step.worker is None else workers[one.step.worker]
            shape = shape_of(plan, one.step, worker, one.sessions, times.samples_per_s, surveyed=times.surveyed)
            if shape.unit_s > 0:
                # Less than nothing where the floor was an estimate.
                beyond.setdefault(shape.kind, []).append((one.seconds - shape.floor_s) / shape.unit_s)
        samples_per_s = {**times.samples_per_s, **samples_per_s}
    return History(rollouts=len(deployed), beyond=beyond, samples_per_s=samples_per_s)


@dataclass(slots=True)
class _Book:
    """What is known so far."""

    plan: Plan
    by_id: dict[StepId, Step] = field(init=False)
    began_at_s: float | None = None
    last_at_s: float = 0.0
    outcome: Outcome | None = None
    clock: WaitClock = field(default_factory=WaitClock)
    waits: list[Waited] = field(default_factory=list)
    finished: dict[StepId, float] = field(default_factory=dict)
    sessions: dict[WorkerId, int] = field(default_factory=dict)
    at_drain: dict[StepId, int] = field(default_factory=dict)
    soaking: dict[StepId, tuple[WorkerId, float]] = field(default_factory=dict)
    soaked: dict[WorkerId, Tally] = field(default_factory=dict)
    found: set[WorkerId] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.by_id = {step.id: step for step in steps_of(self.plan.phases)}

    def enter(self, event: Event) -> None:
        """Take the next event in."""
        if self.began_at_s is None:
            self.began_at_s = self.last_at_s = event.at_s
        self.waits += [wait for wait in self.clock.enter(event) if wait.cause in LEFT_OUT]
        self.last_at_s = max(self.last_at_s, event.at_s)
        self.outcome = event.outcome if isinstance(event, DeployFinished) else None
        self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case BaselineFound():
                self.found.update(event.tallies.keys() - set(event.partly))
            case Observed():
                for worker, sighting in event.observation.sightings.items():
                    if sighting.proxy is not None and sighting.proxy.sessions is not None:
                        self.sessions[worker] = sighting.proxy.sessions
            case EffectIntended() if event.effect.verb in {Verb.DRAIN, Verb.HOLD} and event.effect.worker in self.sessions:
                self.at_drain.setdefault(event.effect.step_id, self.sessions[event.effect.worker])
            case StepBegan() if (step := self.by_id.get(event.step_id)) is not None and step.verb is Verb.SOAK and step.worker is not None:
                self.soaking[event.step_id] = (step.worker, event.at_s)
            case StepFinished():
                # The first time counts: a proxy that forgot a drain is told again while its worker's restart waits.
                self.finished.setdefault(event.step_id, self.last_at_s)
                self.soaking.pop(event.step_id, None)
            case SamplesTaken():
                for worker, since_s in self.soaking.values():
                    # One that began before also holds the time in which it was out.
                    if (tally := event.measured.tallies.get(worker)) is not None and tally.since_s >= since_s:
                        self.soaked[worker] = self.soaked[worker] + tally if worker in self.soaked else tally
            case _:
                pass

    def times(self) -> Times:
        """Close the book as it stands."""
        if self.began_at_s is None:
            msg = "a journal begins with an event"
            raise ValueError(msg)
        waits = [*self.waits, *(wait for wait in self.clock.close() if wait.cause in LEFT_OUT)]
        left_out: dict[str, float] = {}
        for wait in waits:
            left_out[wait.cause] = left_out.get(wait.cause, 0.0) + wait.until_s - wait.since_s
        steps = {name: self._time(step, waits) for name, step in self.by_id.items() if name in self.finished}
        return Times(
            outcome=self.outcome,
            steps=steps,
            whole_s=self.last_at_s - self.began_at_s - sum(left_out.values()),
            left_out=left_out,
            samples_per_s=_rates(self.plan, self.soaked),
            surveyed=self.found.issuperset(worker.id for worker in self.plan.workers),
        )

    def _time(self, step: Step, waits: Sequence[Waited]) -> StepTime:
        since_s = self._ready(step)
        until_s = self.last_at_s if step.verb is Verb.WATCH else self.finished[step.id]
        overlaps = [(wait, max(0.0, min(until_s, wait.until_s) - max(since_s, wait.since_s))) for wait in waits]
        disturbed = any(wait.cause == NOBODY_THERE and seconds > 0 for wait, seconds in overlaps)
        seconds = max(0.0, until_s - since_s - sum(seconds for _, seconds in overlaps))
        return StepTime(step, seconds, self.at_drain.get(step.id), disturbed)

    def _ready(self, step: Step) -> float:
        """Return when a step could begin; where it needs one that nobody took, when that one could have."""
        ready_s, needs = self.began_at_s or 0.0, list(step.needs)
        while needs:
            need = needs.pop()
            if need in self.finished:
                ready_s = max(ready_s, self.finished[need])
            elif need in self.by_id:
                needs += self.by_id[need].needs
        return ready_s


def _rates(plan: Plan, soaked: Mapping[WorkerId, Tally]) -> dict[tuple[Role, Metric], float]:
    """Return how many samples a worker of each role had for each gate's metric, per second."""
    rates: dict[tuple[Role, Metric], float] = {}
    gates = {step.worker: step.gates for step in steps_of(plan.phases) if step.verb is Verb.SOAK}
    for role in dict.fromkeys(worker.role for worker in plan.workers):
        members = [worker.id for worker in plan.workers if worker.role == role and worker.id in soaked]
        seconds = sum(soaked[worker].until_s - soaked[worker].since_s for worker in members)
        for metric in dict.fromkeys(plan.gates[name].metric for worker in members for name in gates.get(worker, ())):
            if seconds > 0:
                rates[role, metric] = sum(measured(metric, soaked[worker])[1] for worker in members) / seconds
    return rates
