"""
Where a rollout's time went, worker by worker: a pure summary of its journal.

The same figures serve `rollout history --json`, the demonstration and the benchmarks, so that they can't disagree.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from rollout.deciding.timings import WaitClock, Waited
from rollout.model.effect import Effect, drains_in_part
from rollout.model.event import (
    DeployFinished,
    EffectIntended,
    EffectObserved,
    EffectSucceeded,
    Event,
    GateRuled,
    Observed,
    Outcome,
    RollbackBegan,
    SamplesTaken,
    StepBegan,
    StepFinished,
)
from rollout.model.gate import Measured, Ruling
from rollout.model.ids import EffectNumber, GateId, StepId, WorkerId
from rollout.model.plan import Plan, Step, Verb, steps_of
from rollout.model.sighting import HoldSighting, ProxySighting, grown


@dataclass(frozen=True, slots=True)
class WorkerAccount:
    """
    One worker. All times are seconds, summed over the way there and the way back.

    *drained_at_s* is when it was first drained or held, *users_moved* how many sessions it had then, *sessions_at_drain* what was still
    open when it was first seen drained; *admitted_at_s* is when it first got traffic again. *drain_s* lasts until no session was left,
    *held_s* from the intent to hold its requests until they were let go; *waiting_max* were held at the most, *shed* refused because there
    were too many, and *let_go_late* let go by the proxy's own bound (none of these is among the cuts); *boot_s* from the intent to stop the
    old process until the new one answered as its release, *ramp_s* from the first weight to the last one seen, *soak_s* until the gates
    were done with it. *out_s* is how long it took no requests by our hand. *attempts* counts restarts, *warmed* the users that it was
    warmed with, *replication_failures* requests between workers that failed while it was out, *cuts* requests that the proxy saw cut at it
    while it was looked at closely, None where it doesn't count them. *verdicts* are the last.
    """

    drained_at_s: float | None
    admitted_at_s: float | None
    users_moved: int
    sessions_at_drain: int | None
    drain_s: float
    held_s: float
    waiting_max: int
    shed: int
    let_go_late: int
    boot_s: float
    ramp_s: float
    soak_s: float
    out_s: float
    attempts: int
    warmed: int
    replication_failures: float
    cuts: int | None
    verdicts: dict[GateId, Ruling]


@dataclass(frozen=True, slots=True)
class Accounts:
    """
    A whole rollout; *outcome* and *finished_at_s* are None while it is under way. *waiting_s* is by cause. *rollback_at_s* and
    *rollback_why* are of the moment at which it turned round; *touched* are the workers that it restarted.
    """

    outcome: Outcome | None
    from_versions: tuple[str, ...]
    to_version: str
    began_at_s: float
    finished_at_s: float | None
    duration_s: float
    rollback_at_s: float | None
    rollback_why: str
    touched: tuple[WorkerId, ...]
    waiting_s: dict[str, float]
    workers: dict[WorkerId, WorkerAccount]


@dataclass(slots=True)
class _Row:
    """What is being added up for one worker; `*_since_s` is None while that clock stands still."""

    drained_at_s: float | None = None
    admitted_at_s: float | None = None
    users_moved: int = 0
    sessions: int = 0
    held_since_s: float | None = None
    held_s: float = 0.0
    hold_seen: HoldSighting | None = None
    waiting_max: int = 0
    shed: int = 0
    let_go_late: int = 0
    back_at_s: float | None = None
    warmed: int = 0
    replication_failures: float = 0.0
    drain_since_s: float | None = None
    boot_since_s: float | None = None
    ramp_since_s: float | None = None
    out_since_s: float | None = None
    sessions_at_drain: int | None = None
    drain_s: float = 0.0
    boot_s: float = 0.0
    ramp_s: float = 0.0
    soak_s: float = 0.0
    out_s: float = 0.0
    attempts: int = 0
    cuts: int | None = 0
    cuts_seen: int | None = None
    verdicts: dict[GateId, Ruling] = field(default_factory=dict)

    def account(self) -> WorkerAccount:
        return WorkerAccount(
            drained_at_s=self.drained_at_s,
            admitted_at_s=self.admitted_at_s,
            users_moved=self.users_moved,
            sessions_at_drain=self.sessions_at_drain,
            drain_s=self.drain_s,
            held_s=self.held_s,
            waiting_max=self.waiting_max,
            shed=self.shed,
            let_go_late=self.let_go_late,
            boot_s=self.boot_s,
            ramp_s=self.ramp_s,
            soak_s=self.soak_s,
            out_s=self.out_s,
            attempts=self.attempts,
            warmed=self.warmed,
            replication_failures=self.replication_failures,
            cuts=self.cuts,
            verdicts=self.verdicts,
        )


def summarise(plan: Plan, events: Iterable[Event]) -> Accounts:
    """Add a journal up, whole or as far as it goes. Raises ValueError when it holds no event at all."""
    book = _Book(plan)
    for event in events:
        book.enter(event)
    return book.accounts()


class _Book:
    """The sums so far."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._steps: dict[StepId, Step] = {step.id: step for step in (*steps_of(plan.phases), *steps_of(plan.rollback))}
        self._admitted_by_step = {step.worker for step in self._steps.values() if step.verb in {Verb.ADMIT, Verb.LET_GO}}
        self._rollback: RollbackBegan | None = None
        self._rows = {worker.id: _Row() for worker in plan.workers}
        self._effects: dict[EffectNumber, Effect] = {}
        self._soaking_since_s: dict[StepId, float] = {}
        self._waiting_s: dict[str, float] = {}
        self._waits = WaitClock()
        self._began_at_s: float | None = None
        self._last_at_s = 0.0
        self._end: DeployFinished | None = None

    def enter(self, event: Event) -> None:
        """Take the next event in."""
        if self._began_at_s is None:
            self._began_at_s = self._last_at_s = event.at_s
        self._end = event if isinstance(event, DeployFinished) else None
        self._add(self._waits.enter(event))
        self._take(event)
        self._last_at_s = max(self._last_at_s, event.at_s)

    def _take(self, event: Event) -> None:  # noqa: C901, PLR0912  (one row a kind of event)
        match event:
            case EffectIntended():
                self._intend(event.effect, event.at_s)
            case EffectSucceeded() if event.warmed:
                for worker, warmed in event.warmed.items():
                    self._rows[worker].warmed += warmed.users
            case RollbackBegan():
                self._rollback = event
            case SamplesTaken():
                self._blame_replication(event.measured)
            case EffectSucceeded() | EffectObserved(happened=True):
                self._happen(event.number, event.at_s)
            case StepBegan() if self._steps[event.step_id].verb is Verb.SOAK:
                self._soaking_since_s[event.step_id] = event.at_s
            case StepFinished():
                self._finish(self._steps[event.step_id], event.at_s)
            case GateRuled():
                self._rows[event.worker].verdicts[event.verdict.gate] = event.verdict.ruling
            case Observed():
                for worker, sighting in event.observation.sightings.items():
                    if worker in self._rows and sighting.proxy is not None:
                        _see(self._rows[worker], sighting.proxy)
            case _:
                pass

    def accounts(self) -> Accounts:
        """Close the book as it stands."""
        if self._began_at_s is None:
            msg = "a journal begins with an event"
            raise ValueError(msg)
        self._add(self._waits.close())
        return Accounts(
            outcome=None if self._end is None else self._end.outcome,
            from_versions=tuple(sorted({self._plan.releases[release].version for release in self._plan.from_releases.values()})),
            to_version=self._plan.to_release.version,
            began_at_s=self._began_at_s,
            finished_at_s=None if self._end is None else self._end.at_s,
            duration_s=self._last_at_s - self._began_at_s,
            rollback_at_s=None if self._rollback is None else self._rollback.at_s,
            rollback_why="" if self._rollback is None else self._rollback.why,
            touched=tuple(worker for worker, row in self._rows.items() if row.attempts),
            waiting_s=dict(self._waiting_s),
            workers={worker: row.account() for worker, row in self._rows.items()},
        )

    def _add(self, waits: Iterable[Waited]) -> None:
        for wait in waits:
            self._waiting_s[wait.cause] = self._waiting_s.get(wait.cause, 0.0) + wait.until_s - wait.since_s

    def _intend(self, effect: Effect, at_s: float) -> None:
        self._effects[effect.number] = effect
        if effect.worker is None:
            return
        row = self._rows[effect.worker]
        if effect.verb is Verb.RESTART:
            row.attempts += 1
            row.boot_since_s = at_s if row.boot_since_s is None else row.boot_since_s
        if effect.verb is Verb.ADMIT and effect.step_id in self._steps:
            row.ramp_since_s = at_s if row.ramp_since_s is None else row.ramp_since_s
        if effect.verb is Verb.HOLD:
            row.held_since_s = at_s if row.held_since_s is None else row.held_since_s
        if effect.verb in {Verb.DRAIN, Verb.HOLD}:
            row.users_moved = row.users_moved or row.sessions
        if effect.verb in {Verb.HOLD, Verb.RESTART} or (effect.verb is Verb.DRAIN and not drains_in_part(effect)):
            row.out_since_s = at_s if row.out_since_s is None else row.out_since_s

    def _happen(self, number: EffectNumber, at_s: float) -> None:
        effect = self._effects[number]
        if effect.worker is None:
            return
        row = self._rows[effect.worker]
        if effect.verb in {Verb.DRAIN, Verb.HOLD}:
            row.drained_at_s = at_s if row.drained_at_s is None else row.drained_at_s
            row.drain_since_s = at_s if row.drain_since_s is None else row.drain_since_s
        if effect.verb in {Verb.ADMIT, Verb.LET_GO}:
            row.drain_since_s = None
            row.admitted_at_s = at_s if row.admitted_at_s is None else row.admitted_at_s
            _is_back(row, at_s)
        if effect.verb is Verb.LET_GO and row.held_since_s is not None:
            row.held_s += at_s - row.held_since_s
            row.held_since_s = None
            row.back_at_s = at_s

    def _blame_replication(self, measured: Measured) -> None:
        """What failed between workers counts against those that were out then, or for a part of the time that was measured."""
        tallies = measured.tallies.values()
        for row in self._rows.values():
            if row.boot_since_s is not None or row.held_since_s is not None:
                row.replication_failures += sum(tally.replication_failures for tally in tallies)
            elif (back_at_s := row.back_at_s) is not None:
                row.replication_failures += sum(tally.replication_failures for tally in tallies if tally.since_s < back_at_s)
                row.back_at_s = None if any(tally.until_s >= back_at_s for tally in tallies) else back_at_s

    def _finish(self, step: Step, at_s: float) -> None:
        if step.worker is None:
            return
        row = self._rows[step.worker]
        if step.verb in {Verb.DRAIN, Verb.HOLD} and row.drain_since_s is not None:
            row.drain_s += at_s - row.drain_since_s
            row.drain_since_s = None
        elif step.verb is Verb.AWAIT_HEALTHY and row.boot_since_s is not None:
            row.boot_s += at_s - row.boot_since_s
            row.boot_since_s = None
            row.back_at_s = at_s
            if step.worker not in self._admitted_by_step:
                _is_back(row, at_s)
        elif step.verb is Verb.ADMIT and row.ramp_since_s is not None:
            row.ramp_s += at_s - row.ramp_since_s
            row.ramp_since_s = None
        elif step.verb is Verb.SOAK and step.id in self._soaking_since_s:
            row.soak_s += at_s - self._soaking_since_s.pop(step.id)


def _is_back(row: _Row, at_s: float) -> None:
    if row.out_since_s is not None:
        row.out_s += at_s - row.out_since_s
        row.out_since_s = None


def _see(row: _Row, proxy: ProxySighting) -> None:
    row.sessions = proxy.sessions or 0
    if row.drained_at_s is not None and row.sessions_at_drain is None and (proxy.held or not proxy.admitted):
        row.sessions_at_drain = proxy.sessions
    if proxy.cuts is None:
        row.cuts = None
    elif row.cuts is not None and row.cuts_seen is not None:
        row.cuts += grown(row.cuts_seen, proxy.cuts)
    row.cuts_seen = proxy.cuts
    if row.hold_seen is not None:
        row.shed += grown(row.hold_seen.shed, proxy.hold.shed)
        row.let_go_late += grown(row.hold_seen.let_go_late, proxy.hold.let_go_late)
    row.hold_seen = proxy.hold
    if row.drained_at_s is not None:
        row.waiting_max = max(row.waiting_max, proxy.hold.waiting_max)
