"""Looking straight at the world shows what the Surveyor shows, and looking less often decides nothing else."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from rollout.deciding.state import DeployState
from rollout.engine.survey import Surveyor
from rollout.model.codec import dump_json
from rollout.model.event import (
    Command,
    DeployFinished,
    EffectIntended,
    Event,
    GateRuled,
    Observed,
    Outcome,
    RollbackBegan,
    SamplesTaken,
    StepBegan,
    StepFailed,
    StepFinished,
)
from rollout.model.ids import EffectNumber, ReleaseId, WorkerId
from rollout.model.inventory import DriverSettings
from rollout.model.plan import Plan, Verb
from rollout.model.playbook import GuardEntry, Strategy, Watch
from rollout.simulation.database import SimulatedDatabase
from rollout.simulation.faults import Fault
from rollout.simulation.faulty_drivers import with_faults
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.looking import SPARING_LOOK_S, QuickEyes, Sight
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

STRATEGY = Strategy.model_validate(PLAYBOOK.strategy.model_dump() | {"hold": {"hold_s": 20}, "canary": "client1"})
CANARY = PLAYBOOK.model_copy(update={"strategy": STRATEGY})
CLIENT1, CLIENT2 = WorkerId("client1"), WorkerId("client2")
Trouble = Callable[[Stage, ReleaseId], None]


def _nothing(stage: Stage, new: ReleaseId) -> None:
    """It works."""
    del stage, new


def _hangs(stage: Stage, new: ReleaseId) -> None:
    stage.world.hangs.add(new)


def _exits(stage: Stage, new: ReleaseId) -> None:
    stage.world.never_boots.add(new)


def _is_slow(stage: Stage, new: ReleaseId) -> None:
    stage.world.slow.add(new)


def _errs(stage: Stage, new: ReleaseId) -> None:
    stage.world.erring[new] = 0.3


def _is_dark(stage: Stage, new: ReleaseId) -> None:
    del new
    stage.world.dark.add(CLIENT2)


TROUBLES: tuple[Trouble, ...] = (_nothing, _hangs, _exits, _is_slow, _errs, _is_dark)


def _roll(sight: Sight, trouble: Trouble, held: str | None = None, **script: object) -> tuple[Stage, Plan, DeployState]:
    stage = seven_workers(held=held)
    stage.sight = sight
    plan = stage.plan(CANARY)
    trouble(stage, plan.to_release.id)
    return stage, plan, rehearse(stage, plan, **script)  # type: ignore[arg-type]


def _lines(stage: Stage) -> list[str]:
    return [dump_json(event) for _, event in stage.journal.events(DEPLOY)]


@pytest.mark.parametrize("held", [None, "main"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_quick_sight_gives_the_same_journal(trouble: Trouble, held: str | None) -> None:
    """Every look and every measurement, to the last digit, with a worker lost on the way and a process that dies."""
    script = {"faults": {EffectNumber(5): Fault.UNKNOWN_DONE}, "crash_after": (70,)}
    real, quick = (_roll(sight, trouble, held, **script)[0] for sight in (Sight.REAL, Sight.QUICK))
    assert _lines(quick) == _lines(real)


@pytest.mark.parametrize("port", ["database", "traffic", "workers"])
def test_a_quick_sight_gives_the_same_journal_where_something_is_away(port: str) -> None:
    """For a while nothing but the Surveyor knows how that looks; it learns nothing anew that was seen before."""
    journals = []
    for sight in (Sight.REAL, Sight.QUICK):
        stage = seven_workers()
        stage.sight = sight
        stage.drivers = with_faults(replace(stage.drivers, database=SimulatedDatabase(stage.clock)), stage.world, lambda: None)
        plan = stage.plan(CANARY)
        stage.clock.later(45.0, partial(stage.world.away.add, port))
        stage.clock.later(50.3, partial(stage.world.away.discard, port))
        rehearse(stage, plan)
        journals.append(_lines(stage))
    assert journals[0] == journals[1]


def test_a_quick_sight_sees_what_the_surveyor_sees_at_the_same_moment() -> None:
    """Both are asked at each event of a rollout, with a drain by somebody else, a worker that dies and metrics that vanish in it."""
    stage = seven_workers(held="main")
    plan = stage.plan(CANARY)
    surveyor, eyes = (
        Surveyor(stage.drivers, stage.inventory, stage.clock),
        QuickEyes(stage.world, stage.drivers, stage.inventory, stage.clock),
    )
    looks = 0

    def look(event: Event, _state: DeployState) -> None:
        nonlocal looks
        looks += 1
        if isinstance(event, StepBegan) and event.step_id == "client2/soak":
            stage.world.dark.add(CLIENT2)
            stage.world.drain(WorkerId("sync2"))
            stage.world.stop(WorkerId("fedsender1"))
        assert eyes.measure(stage.inventory.workers, with_canaries=True) == surveyor.measure(stage.inventory.workers, with_canaries=True)
        assert eyes.look(thorough=looks % 2 == 0) == surveyor.look(thorough=looks % 2 == 0)

    rehearse(stage, plan, listeners=(look,))
    assert looks > 100


def _deeds(stage: Stage) -> list[object]:
    """What was decided, without when and by which figures."""
    deeds: list[object] = []
    for _, event in stage.journal.events(DEPLOY):
        match event:
            case EffectIntended():
                deeds.append(replace(event.effect, deadline_at_s=0.0, why=""))
            case StepBegan() | StepFinished() | StepFailed():
                deeds.append((type(event), event.step_id))
            case GateRuled():
                deeds.append((event.worker, event.verdict.gate, event.verdict.ruling))
            case RollbackBegan():
                deeds.append((RollbackBegan, event.blamed))
            case DeployFinished():
                deeds.append((event.outcome, event.drained))
            case _:
                pass
    return deeds


def _count(stage: Stage, kind: type[Event]) -> int:
    return sum(isinstance(event, kind) for _, event in stage.journal.events(DEPLOY))


@pytest.mark.parametrize("held", [None, "main"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_looking_less_often_decides_the_same(trouble: Trouble, held: str | None) -> None:
    (real, _, end), (sparing, _, sparing_end) = (_roll(sight, trouble, held) for sight in (Sight.REAL, Sight.SPARING))
    assert _deeds(sparing) == _deeds(real)
    assert sparing_end.last_at_s - sparing_end.began_at_s == pytest.approx(end.last_at_s - end.began_at_s, rel=0.05)
    assert _count(sparing, Observed) < _count(real, Observed) * 0.6


@pytest.mark.parametrize("command", [Command.ABORT, Command.ROLLBACK, Command.INTERRUPT, Command.PAUSE])
def test_a_word_is_heeded_with_fewer_looks_too(command: Command) -> None:
    for after in range(20, 260, 24):
        stage, _, state = _roll(Sight.SPARING, _nothing, speak={after: command})
        assert state.outcome is not Outcome.DEPLOYED or command is Command.PAUSE, after
        assert all(worker.admitted and worker.started_at_s is not None for worker in stage.world.workers.values())
        assert not {CLIENT1, CLIENT2} & set(stage.world.cuts)


def test_looking_less_often_asks_the_database_too() -> None:
    """Its guards are read, and while it is away nobody is taken out."""
    stage = seven_workers()
    database = SimulatedDatabase(stage.clock)
    stage.sight, stage.drivers = Sight.SPARING, replace(stage.drivers, database=database)
    stage.inventory = stage.inventory.model_copy(update={"database_driver": DriverSettings(driver="simulated")})
    guarded = CANARY.model_copy(update={"guards": (GuardEntry(guard="lock_queue", max=5, deadline_s=60.0),)})
    stage.clock.later(40.0, lambda: setattr(database, "silent", True))
    stage.clock.later(75.0, lambda: setattr(database, "silent", False))
    began_at_s = stage.clock.now_s()
    state = rehearse(stage, stage.plan(guarded))
    assert state.outcome is Outcome.DEPLOYED
    effects = [event for _, event in stage.journal.events(DEPLOY) if isinstance(event, EffectIntended)]
    out_at_s = [event.at_s - began_at_s for event in effects if event.effect.verb in {Verb.DRAIN, Verb.HOLD, Verb.RESTART}]
    assert not any(40.0 + SPARING_LOOK_S < at_s < 75.0 for at_s in out_at_s)


def test_a_journal_without_the_codec_holds_the_same_events() -> None:
    written, _, _ = _roll(Sight.QUICK, _nothing)
    kept = seven_workers()
    kept.journal, kept.sight = MemoryJournal(codec=False), Sight.QUICK
    rehearse(kept, kept.plan(CANARY), crash_after=(50,))
    rehearsed = _roll(Sight.QUICK, _nothing, crash_after=(50,))[0]
    assert kept.journal.events(DEPLOY) == rehearsed.journal.events(DEPLOY)
    assert written.journal.events(DEPLOY)[:40] == kept.journal.events(DEPLOY)[:40]


def _scripted(bad_after_s: dict[WorkerId, float]) -> tuple[Stage, DeployState]:
    stage = seven_workers()
    stage.sight, stage.bad_after_s = Sight.SCRIPTED, bad_after_s
    changes = {"baseline": PLAYBOOK.baseline.model_copy(update={"sample_s": 10.0}), "watch": Watch(watch_s=60, window_s=8)}
    return stage, rehearse(stage, stage.plan(PLAYBOOK.model_copy(update=changes)))


def test_a_script_without_trouble_is_deployed_on_few_measurements() -> None:
    stage, state = _scripted({})
    assert state.outcome is Outcome.DEPLOYED
    assert _count(stage, SamplesTaken) < 40


@pytest.mark.parametrize(("after_s", "how"), [(0.0, "client2 failed errors"), (40.0, "client2 had passed, but then failed errors")])
def test_a_script_says_who_fails_and_when(after_s: float, how: str) -> None:
    """The real gates rule: at first sight, or in the watch."""
    _, state = _scripted({CLIENT2: after_s})
    assert state.outcome is Outcome.ROLLED_BACK
    assert how in state.rollback_why
