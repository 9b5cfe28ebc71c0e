"""
What must hold before a worker goes down is asked before every disruptive step, between drain and restart too, and against fresh readings.

The lock queue of the founding incident appears here at each of these moments.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rollout.deciding.blocking import GUARDS_FRESH_S, guard_of
from rollout.deciding.decision import Note, Wait
from rollout.deciding.fold import start
from rollout.deciding.state import DeployState
from rollout.engine.service import FRESH_S
from rollout.interfaces.narrate import narrate
from rollout.model.conditions import LockWait
from rollout.model.event import EffectIntended, EffectSucceeded, Event, Outcome, StepBegan, StepFinished, WaitBegan
from rollout.model.gate import GuardReading
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import DriverSettings
from rollout.model.plan import Plan, Verb, steps_of
from rollout.model.playbook import GuardEntry, Hold, Playbook
from rollout.simulation.database import SimulatedDatabase
from rollout.simulation.faulty_drivers import with_faults
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers

DEADLINE_S = 120.0
LOCKED = LockWait(7, "synapse", "events", "RowExclusiveLock", (6,), 3.0)


def _guarded(guard: str = "lock_queue", limit: float = 0.0) -> Playbook:
    strategy = PLAYBOOK.strategy.model_copy(update={"hold": Hold(hold_s=20.0)})
    return PLAYBOOK.model_copy(update={"strategy": strategy, "guards": (GuardEntry(guard=guard, max=limit, deadline_s=DEADLINE_S),)})  # type: ignore[arg-type]


def _with_database(held: str | None = None) -> tuple[Stage, SimulatedDatabase]:
    stage = seven_workers(held)
    database = SimulatedDatabase(stage.clock)
    stage.drivers = replace(stage.drivers, database=database)
    stage.inventory = stage.inventory.model_copy(update={"database_driver": DriverSettings(driver="simulated")})
    return stage, database


def _events(stage: Stage) -> list[Event]:
    return [event for _, event in stage.journal.events(DEPLOY)]


def _when_done(verb: Verb, worker: str, act: Callable[[], object]) -> Callable[[Event, DeployState], None]:
    """Do something as soon as an effect on a worker has succeeded."""
    numbers: set[EffectNumber] = set()

    def listen(event: Event, _state: DeployState) -> None:
        if isinstance(event, EffectIntended) and (event.effect.verb, event.effect.worker) == (verb, worker):
            numbers.add(event.effect.number)
        if isinstance(event, EffectSucceeded) and event.number in numbers:
            numbers.clear()
            act()

    return listen


def _restarts(stage: Stage, worker: str) -> list[float]:
    return [
        event.at_s
        for event in _events(stage)
        if isinstance(event, EffectIntended) and event.effect.verb is Verb.RESTART and event.effect.worker == worker
    ]


def _first(plan: Plan) -> WorkerId:
    return next(wave.workers[0] for phase in plan.phases for wave in phase.waves if wave.workers)


def test_a_lock_queue_that_appears_between_drain_and_restart_is_waited_for() -> None:
    """The drained worker isn't restarted while it lasts, the reason is said, and when it has gone the rollout goes on to its end."""
    stage, database = _with_database()
    plan = stage.plan(_guarded())
    worker = _first(plan)
    gone_at_s: list[float] = []

    def unlock(event: Event, _state: DeployState) -> None:
        if isinstance(event, WaitBegan) and event.cause == "guard" and not gone_at_s:
            gone_at_s.append(event.at_s + 40.0)
        if database.waits and gone_at_s and event.at_s >= gone_at_s[0]:
            database.waits.clear()

    state = rehearse(stage, plan, listeners=(_when_done(Verb.DRAIN, worker, lambda: database.waits.append(LOCKED)), unlock))

    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    whys = [event.why for event in _events(stage) if isinstance(event, WaitBegan) and event.cause == "guard"]
    assert f"{worker} may not go down: 1 database requests wait for a lock, and 0 may" in whys
    assert _restarts(stage, worker)[0] >= gone_at_s[0]
    assert_safe(stage, plan, state)


def test_a_lock_queue_that_stays_brings_the_drained_worker_back_and_pauses() -> None:
    """It isn't left drained for ever: after the guard's deadline it has its users again, on the old release, never restarted."""
    stage, database = _with_database()
    plan = stage.plan(_guarded())
    worker = _first(plan)

    state = rehearse(stage, plan, listeners=(_when_done(Verb.DRAIN, worker, lambda: database.waits.append(LOCKED)),))

    assert state.outcome is Outcome.PAUSED
    assert state.outcome_why == f"for {DEADLINE_S:.0f} s 1 database requests wait for a lock, and 0 may"
    assert _restarts(stage, worker) == []
    drained = next(e.at_s for e in _events(stage) if isinstance(e, EffectIntended) and e.effect.verb is Verb.DRAIN)
    verbs = {e.effect.number: e.effect.verb for e in _events(stage) if isinstance(e, EffectIntended)}
    back = next(e.at_s for e in _events(stage) if isinstance(e, EffectSucceeded) and verbs[e.number] is Verb.ADMIT)
    assert DEADLINE_S <= back - drained < DEADLINE_S + 20
    assert {it.runs for it in stage.world.workers.values()} == {stage.old.id}
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("verb", [Verb.DRAIN, Verb.HOLD, Verb.RESTART])
def test_no_disruptive_step_begins_behind_a_lock_queue(verb: Verb) -> None:
    """For the second replaceable worker, for main, which is held, and for a sender, which is restarted as it stands."""
    stage, database = _with_database(held="main")
    plan = stage.plan(_guarded())
    worker = {Verb.DRAIN: "client2", Verb.HOLD: "main", Verb.RESTART: "fedsender1"}[verb]
    before = next(step for step in steps_of(plan.phases) if step.worker == worker).needs[-1]

    def lock(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == before and not database.waits:
            database.waits.append(LOCKED)

    state = rehearse(stage, plan, listeners=(lock,))

    assert database.waits
    assert state.outcome is Outcome.PAUSED
    assert [e for e in _events(stage) if isinstance(e, EffectIntended) and e.effect.worker == worker] == []
    assert any(isinstance(e, WaitBegan) and e.why.startswith(f"{worker} may not go down") for e in _events(stage))
    assert_safe(stage, plan, state)


def test_what_a_hold_keeps_waiting_goes_on_while_a_guard_does_not_hold() -> None:
    """A lock queue that appears when main's requests wait already: they are let go, nothing piles up, and main is not restarted."""
    stage, database = _with_database(held="main")
    # What main does when it is held takes longer to end than a thorough look takes to come.
    stage.world.held_ends_s = 5.5

    plan = stage.plan(_guarded())
    state = rehearse(stage, plan, listeners=(_when_done(Verb.HOLD, "main", lambda: database.waits.append(LOCKED)),))

    assert state.outcome is Outcome.PAUSED, state.outcome_why
    effects = [event for event in _events(stage) if isinstance(event, EffectIntended) and event.effect.worker == "main"]
    assert [event.effect.verb for event in effects] == [Verb.HOLD, Verb.LET_GO]
    # A thorough look shows the queue within five seconds; held for longer, its requests would pile up.
    assert effects[1].at_s - effects[0].at_s < 7
    assert "its requests go on while it may not be restarted" in str([narrate(event, plan) for event in effects])
    assert stage.world.cuts == {}
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("verb", [Verb.DRAIN, Verb.HOLD, Verb.RESTART])
def test_nobody_is_taken_out_while_the_process_manager_is_away(verb: Verb) -> None:
    """It would be out for as long as nobody can restart it. When the manager is back the rollout goes on."""
    stage, _ = _with_database(held="main")
    stage.drivers = with_faults(stage.drivers, stage.world, lambda: None)
    plan = stage.plan(_guarded())
    worker = {Verb.DRAIN: "client2", Verb.HOLD: "main", Verb.RESTART: "fedsender1"}[verb]
    before = next(step for step in steps_of(plan.phases) if step.worker == worker).needs[-1]
    away_at_s: list[float] = []

    def away(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == before and not away_at_s:
            stage.world.away.add("workers")
            away_at_s.append(event.at_s)
        elif away_at_s and event.at_s >= away_at_s[0] + 100.0:
            stage.world.away.discard("workers")

    state = rehearse(stage, plan, listeners=(away,))

    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    outward = [e for e in _events(stage) if isinstance(e, EffectIntended) and e.effect.worker == worker and e.effect.verb is verb]
    assert outward[0].at_s >= away_at_s[0] + 100.0
    whys = [event.why for event in _events(stage) if isinstance(event, WaitBegan)]
    said = (
        f"how {worker} runs can't be seen, so it isn't restarted yet: "
        if verb is Verb.RESTART
        else f"{worker} may not go down: how it runs can't be seen ("
    )
    assert any(why.startswith(said) for why in whys), whys
    assert_safe(stage, plan, state)


def test_what_a_hold_keeps_waiting_goes_on_while_the_process_manager_is_away() -> None:
    """It goes away when main's requests wait already: they are let go, and held anew when it is back."""
    stage, _ = _with_database(held="main")
    stage.drivers = with_faults(stage.drivers, stage.world, lambda: None)
    stage.world.held_ends_s = 5.5
    held_at_s: list[float] = []

    def away() -> None:
        stage.world.away.add("workers")

    def back(event: Event, _state: DeployState) -> None:
        if isinstance(event, EffectIntended) and event.effect.worker == "main":
            held_at_s.append(event.at_s)
        if held_at_s and event.at_s >= held_at_s[0] + 60.0:
            stage.world.away.discard("workers")

    plan = stage.plan(_guarded())
    state = rehearse(stage, plan, listeners=(_when_done(Verb.HOLD, "main", away), back))

    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    effects = [event for event in _events(stage) if isinstance(event, EffectIntended) and event.effect.worker == "main"]
    assert [event.effect.verb for event in effects] == [Verb.HOLD, Verb.LET_GO, Verb.HOLD, Verb.RESTART, Verb.LET_GO]
    assert effects[1].at_s - effects[0].at_s < 7
    assert effects[2].at_s >= effects[0].at_s + 60.0
    assert stage.world.cuts == {}
    assert_safe(stage, plan, state)


def test_guards_that_nobody_reads_any_more_are_no_leave() -> None:
    """The last reading was good. When no new one comes, nobody is taken out on its word."""
    stage, _ = _with_database()
    plan = stage.plan(_guarded())
    worker = _first(plan)
    silent: list[bool] = []
    guards = SimulatedDatabase.guards

    class Silent(SimulatedDatabase):
        def guards(self, timeout_s: float) -> tuple[GuardReading, ...]:
            return () if silent else guards(self, timeout_s)

    stage.drivers = replace(stage.drivers, database=Silent(stage.clock))

    state = rehearse(stage, plan, listeners=(_when_done(Verb.DRAIN, worker, lambda: silent.append(True)),))
    assert state.outcome is Outcome.PAUSED
    assert "lock_queue could not be measured: nobody reads it" in state.outcome_why
    assert _restarts(stage, worker) == []
    assert_safe(stage, plan, state)


def test_a_guard_that_was_read_too_long_ago_is_no_leave() -> None:
    """
    Looks may come without thorough ones. While the reading is fresh the worker may go, then it waits, and after the guard's deadline the
    rollout pauses; after a resumption a reading of an earlier life counts for nothing.
    """
    stage, _ = _with_database()
    plan = stage.plan(_guarded())
    worker = next(one for one in plan.workers if one.id == "client1")
    state = replace(start(plan), began_at_s=1000.0, guards=(GuardReading("lock_queue", 0.0),), guards_seen_at_s=2000.0)
    assert guard_of(plan, state, worker, 2000.0 + GUARDS_FRESH_S) is None
    late = guard_of(plan, state, worker, 2001.0 + GUARDS_FRESH_S)
    assert isinstance(late, Wait)
    assert late.why == "client1 may not go down: no guard has been read lately"
    assert isinstance(guard_of(plan, state, worker, 2000.0 + DEADLINE_S), Note)
    assert isinstance(guard_of(plan, replace(state, fresh_after_s=2001.0), worker, 2002.0), Wait)


def test_a_worker_that_died_while_drained_is_restarted_behind_a_lock_queue_all_the_same() -> None:
    """Waiting helps nobody then: it is down already, and only its restart brings it back."""
    stage, database = _with_database()
    plan = stage.plan(_guarded())
    worker = _first(plan)

    died_at_s: list[float] = []

    def die(event: Event, _state: DeployState) -> None:
        if isinstance(event, WaitBegan) and "for a lock" in event.why and not died_at_s:
            stage.world.workers[worker].started_at_s = None
            died_at_s.append(event.at_s)

    rehearse(stage, plan, listeners=(_when_done(Verb.DRAIN, worker, lambda: database.waits.append(LOCKED)), die))
    assert died_at_s[0] < _restarts(stage, worker)[0] < died_at_s[0] + 10


@pytest.mark.parametrize(("per_s", "outcome"), [(0.0, Outcome.DEPLOYED), (1.0, Outcome.DEPLOYED), (3.0, Outcome.PAUSED)])
def test_file_handles_that_would_be_used_up_in_ten_minutes_hold_the_rollout(per_s: float, outcome: Outcome) -> None:
    """50 of 1,024 are open, which is no level to worry about: 3 more a second are, long before any of them fails."""
    stage, _ = _with_database()
    plan = stage.plan(_guarded("files_projected", 0.8))
    grows = "sync2" if _first(plan) != "sync2" else "sync1"
    stage.world.files[WorkerId(grows)] = (stage.clock.now_s(), 50.0, per_s)

    def no_further(event: Event, _state: DeployState) -> None:
        # A minute of growth, then it stands at what it has come to, unless it is the one that is refused.
        if per_s == 1.0 and event.at_s > plan_at_s + 60.0:
            stage.world.files[WorkerId(grows)] = (0.0, 110.0, 0.0)

    plan_at_s = stage.clock.now_s()
    state = rehearse(stage, plan, listeners=(no_further,))
    assert state.outcome is outcome, state.outcome_why
    if outcome is Outcome.PAUSED:
        assert f"({grows}: " in state.outcome_why
        assert "growing by 3 a second" in state.outcome_why
        assert "as they grow" in state.outcome_why
        assert not any(isinstance(e, EffectIntended) and e.effect.worker is not None for e in _events(stage))
    assert_safe(stage, plan, state)


def _have_pile_up(stage: Stage) -> Callable[[], object]:
    """Requests pile up at a worker that stays in traffic, as behind a locked table. What it returns ends that."""
    stage.world.under_way[WorkerId("client2")] = 2000.0
    return stage.world.under_way.clear


def _have_all_slow(stage: Stage) -> Callable[[], object]:
    stage.world.slow.add(stage.old.id)
    return stage.world.slow.clear


def _have_all_fail(stage: Stage) -> Callable[[], object]:
    stage.world.erring[stage.old.id] = 0.5
    return stage.world.erring.clear


@pytest.mark.parametrize(
    ("guard", "limit", "begin", "why"),
    [
        ("in_flight", 500.0, _have_pile_up, "2000 requests are under way at one worker, and 500 may be (client2)"),
        ("latency_p95_s", 0.2, _have_all_slow, "95 of 100 requests take up to 0."),
        ("error_ratio", 0.1, _have_all_fail, " % of all requests end in 5xx, and 10 % may (of "),
    ],
)
def test_nobody_goes_out_while_users_are_served_badly_by_any_measure(
    guard: str, limit: float, begin: Callable[[Stage], Callable[[], object]], why: str
) -> None:
    """
    It comes over those who run what they ran before when the first worker has passed, so no gate of anybody has a word to say. The next
    one waits until it is over, and then the rollout goes on to its end.
    """
    stage = seven_workers()
    guarded = GuardEntry(guard=guard, max=limit, deadline_s=390.0)  # type: ignore[arg-type]
    plan = stage.plan(PLAYBOOK.model_copy(update={"guards": (guarded,)}))
    first = _first(plan)
    times_s: list[float] = []
    end: list[Callable[[], object]] = []

    def trouble(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepFinished) and event.step_id == f"{first}/soak":
            times_s.append(event.at_s)
            end.append(begin(stage))
        elif len(times_s) == 1 and event.at_s >= times_s[0] + 120.0:
            times_s.append(event.at_s)
            end[0]()

    state = rehearse(stage, plan, listeners=(trouble,))

    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    began_s, ended_s = times_s
    taken_out = {Verb.DRAIN, Verb.HOLD, Verb.RESTART}
    out_s = [e.at_s for e in _events(stage) if isinstance(e, EffectIntended) and e.effect.verb in taken_out and e.effect.worker != first]
    # The pages of whoever isn't watched are read twice a minute.
    assert not [at_s for at_s in out_s if began_s + FRESH_S < at_s < ended_s]
    assert any(at_s > ended_s for at_s in out_s)
    assert any(why in event.why for event in _events(stage) if isinstance(event, WaitBegan) and event.cause == "guard")
    assert_safe(stage, plan, state)


@pytest.mark.parametrize("guard", ["in_flight", "latency_p95_s", "error_ratio"])
def test_a_rollout_whose_users_are_served_well_is_not_held(guard: str) -> None:
    stage = seven_workers()
    plan = stage.plan(_guarded(guard, 0.2))
    state = rehearse(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    # At most until there is a page of ten seconds of whoever has come back.
    waits = [event for event in _events(stage) if isinstance(event, WaitBegan) and event.cause == "guard"]
    assert [event.why for event in waits if "could not be measured" not in event.why] == []
