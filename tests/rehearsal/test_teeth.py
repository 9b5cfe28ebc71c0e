"""Each invariant turns red when the rule that it guards is broken on purpose, and is green on the same seed when it isn't."""

from dataclasses import replace

import pytest

from rollout.deciding import acting, blocking, coming_back, decide, fold, going_out, safety
from rollout.deciding.decision import Decision, Finish, Note, Wait, WaitUntil
from rollout.deciding.state import DeployState, StepState
from rollout.engine import perform
from rollout.engine.drivers import Drivers
from rollout.model.changed import changed
from rollout.model.effect import Effect
from rollout.model.event import EffectFailed, EffectInDoubt, EffectSucceeded, Outcome, RollbackBegan, StepBegan, StepFinished
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.inventory import Inventory
from rollout.model.plan import Plan, Step, Verb
from rollout.model.playbook import Playbook
from rollout.ports.clock import Clock
from rollout.rehearsal.campaign import journal_of
from rollout.rehearsal.invariants import INVARIANTS, judge
from rollout.rehearsal.perform import rehearse_one
from rollout.rehearsal.scenario import Scenario
from rollout.simulation import drivers, performer, striking
from rollout.simulation.faults import Fault, Moment, Strike
from rollout.simulation.rehearse import set_stage
from tests.simulation.stages import PLAYBOOK

CLIENTS = {f"client{number}": ("client", "client") for number in (1, 2, 3)}


def _scenario(*strikes: Strike, bad: Fault | None = None, playbook: Playbook = PLAYBOOK, main: bool = False) -> Scenario:
    """Three clients (and main, held), and what goes wrong."""
    roles: dict[str, tuple[str, str | None]] = {**CLIENTS, **({"main": ("main", "main")} if main else {})}
    inventory: Inventory = set_stage(roles, "main" if main else None).inventory
    return Scenario(seed=0, inventory=inventory, playbook=playbook, strikes=strikes, bad=bad)


def _broken(scenario: Scenario) -> set[str]:
    return {name for name, _ in judge(rehearse_one(scenario))}


def test_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who goes down although a sibling is out: the next worker is drained before the one before it is back."""
    two_at_once = PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"max_unavailable": {"client": 2}})})
    scenario = _scenario(Strike(Fault.ASKS_ROLLBACK, Verb.DRAIN, Moment.WAITING, nth=3), playbook=two_at_once)
    assert _broken(scenario) == set()
    monkeypatch.setattr(blocking, "why_not_down", lambda *_: None)
    assert "budget" in _broken(scenario)


def test_bad_admission_of_one_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that never comes up, and is admitted as if it had."""
    scenario = _scenario(Strike(Fault.BOOTS_TOO_SLOWLY, Verb.RESTART, Moment.BEFORE_ACT, for_s=80.0))
    assert _broken(scenario) == set()

    def at_once(_plan: Plan, _state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
        if now_s < (at.began_at_s or now_s) + 10.0 or at.began_at_s is None:
            return coming_back_await(_plan, _state, step, at, now_s)
        return Note(StepFinished(now_s, step.id, "surely"))

    coming_back_await = coming_back.await_healthy
    monkeypatch.setattr("rollout.deciding.steps.await_healthy", at_once)
    monkeypatch.setattr(coming_back, "_unseen", lambda *_: None)
    monkeypatch.setattr(coming_back, "gone_for", lambda *_: "")
    broken = _broken(scenario)
    assert {"bad_admission", "cuts"} <= broken


def test_bad_admission_of_one_that_is_condemned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop on the way back, on which whoever is out is admitted whatever it runs."""
    stops = Strike(Fault.ASKS_ABORT, Verb.DRAIN, Moment.WAITING, nth=2)
    scenario = _scenario(stops, bad=Fault.RELEASE_ERRS)
    assert _broken(scenario) == set()
    monkeypatch.setattr(safety, "_runs_as_before", lambda *_: True)
    monkeypatch.setattr(safety, "_left", lambda *_: True)
    assert "bad_admission" in _broken(scenario)


def test_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said without a look: a restart that the driver only says it did."""
    scenario = _scenario(Strike(Fault.SAYS_DONE, Verb.RESTART, Moment.DURING))
    assert _broken(scenario) == set()
    monkeypatch.setattr(decide, "_conclude", lambda *_: Finish(Outcome.DEPLOYED, "surely"))
    monkeypatch.setattr(coming_back, "runs", lambda *_: True)
    assert "truth" in _broken(scenario)


def test_truth_without_a_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that lands ten minutes late, when nobody would bring its worker back: only the fence at the target refuses it."""
    scenario = _scenario(Strike(Fault.LATE, Verb.DRAIN, Moment.DURING, nth=3, for_s=620.0))
    assert _broken(scenario) == set()

    monkeypatch.setattr(drivers, "compare", lambda content, claim: (content.token, claim.number))
    assert "truth" in _broken(scenario)


def test_nothing_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption after which nobody brings back who is out."""
    scenario = _scenario(Strike(Fault.ASKS_INTERRUPT, Verb.DRAIN, Moment.WAITING))
    assert _broken(scenario) == set()
    monkeypatch.setattr(safety, "wind_down", lambda _plan, state, _now_s: Finish(state.winding_down or Outcome.PAUSED, "left as it is"))
    assert "nothing_left" in _broken(scenario)


def test_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart that doesn't wait for the sessions to end."""
    scenario = _scenario()
    assert _broken(scenario) == set()

    def at_once(_plan: Plan, state: DeployState, step: Step, at: StepState, now_s: float) -> Decision | Wait:
        if at.applied_at_s is not None:
            return Note(StepFinished(now_s, step.id, "surely"))
        return drain(_plan, state, step, at, now_s)

    drain = going_out.drain
    monkeypatch.setattr("rollout.deciding.steps.drain", at_once)
    monkeypatch.setattr(going_out, "_before_restart", lambda *_: None)
    assert "cuts" in _broken(scenario)


def test_others_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's drain, taken for none."""
    scenario = _scenario(Strike(Fault.SOMEBODY_DRAINS, Verb.DRAIN, Moment.WAITING, aside=True, whom=0))
    assert _broken(scenario) == set()
    monkeypatch.setattr(blocking, "_taken_by_others", lambda *_: "")
    assert "others_drains" in _broken(scenario)


def test_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for ever."""
    scenario = _scenario()
    assert _broken(scenario) == set()
    monkeypatch.setattr("rollout.engine.run.decide", lambda _plan, _state, now_s: WaitUntil(now_s + 5.0))
    assert "ends" in _broken(scenario)


def test_intent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An act with another number than the one that was written down."""
    scenario = _scenario()
    assert _broken(scenario) == set()
    act = perform.act

    def under_another_number(
        effect: Effect, plan: Plan, ports: Drivers, inventory: Inventory, clock: Clock
    ) -> EffectSucceeded | EffectFailed | EffectInDoubt:
        return replace(act(replace(effect, number=EffectNumber(effect.number + 1000)), plan, ports, inventory, clock), number=effect.number)

    monkeypatch.setattr(performer, "act", under_another_number)
    assert "intent_first" in _broken(scenario)


def test_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong, and it stops all the same."""
    scenario = _scenario()
    monkeypatch.setattr(decide, "_stuck", lambda *_: True)
    assert _broken(scenario) == {"undisturbed"}


def test_bad_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every gate passes at once."""
    scenario = _scenario(bad=Fault.RELEASE_ERRS)
    assert _broken(scenario) == set()
    monkeypatch.setattr(
        "rollout.deciding.steps.soak",
        lambda _plan, _state, step, at, now_s: Note(
            StepBegan(now_s, step.id) if at.began_at_s is None else StepFinished(now_s, step.id, "surely")
        ),
    )
    monkeypatch.setattr("rollout.deciding.watching.alarm", lambda *_: None)
    monkeypatch.setattr(
        "rollout.deciding.steps.watching.watch",
        lambda _plan, _state, step, at, now_s: Note(
            StepBegan(now_s, step.id) if at.began_at_s is None else StepFinished(now_s, step.id, "surely")
        ),
    )
    assert "bad_release" in _broken(scenario)


def test_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens."""
    scenario = _scenario(Strike(Fault.ASKS_ABORT, Verb.DRAIN, Moment.WAITING))
    assert _broken(scenario) == set()
    monkeypatch.setattr(decide, "_heed", lambda *_: None)
    assert _broken(scenario) == {"heeded", "stopped"}


def test_same_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that counts on from one run to the next."""
    scenario = _scenario(bad=Fault.RELEASE_ERRS)
    assert journal_of(rehearse_one(scenario)) == journal_of(rehearse_one(scenario))
    errs = iter(range(1, 100))
    turn_bad = striking.turn_bad

    def worse_and_worse(world: object, release: object, how: Fault) -> None:
        turn_bad(world, release, how)  # type: ignore[arg-type]
        world.erring[release] += next(errs) / 100  # type: ignore[attr-defined]

    monkeypatch.setattr("rollout.rehearsal.perform.turn_bad", worse_and_worse)
    assert journal_of(rehearse_one(scenario)) != journal_of(rehearse_one(scenario))


def test_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An abort that nobody hears."""
    scenario = _scenario(Strike(Fault.ASKS_ABORT, Verb.DRAIN, Moment.WAITING))
    assert _broken(scenario) == set()
    monkeypatch.setattr(decide, "_heed", lambda *_: None)
    assert "heeded" in _broken(scenario)


def test_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drain that fails again and again, and failures that nobody counts."""
    scenario = _scenario(*(Strike(Fault.FAILS, Verb.DRAIN, Moment.DURING, nth=nth) for nth in range(1, 7)))
    assert _broken(scenario) == set()
    fail = fold._fail_effect  # noqa: SLF001  (to go on to the real one)

    def uncounted(state: DeployState, event: EffectFailed) -> DeployState:
        failed = fail(state, event)
        return changed(failed, steps={step: changed(at, attempts=0) for step, at in failed.steps.items()})

    monkeypatch.setattr(fold, "_fail_effect", uncounted)
    assert "attempts" in _broken(scenario)


def test_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts, whether the database is there or not."""
    scenario = _scenario(Strike(Fault.DATABASE_AWAY, Verb.SURVEY, Moment.WAITING))
    assert _broken(scenario) == set()
    monkeypatch.setattr(blocking, "guard_of", lambda *_: None)
    monkeypatch.setattr(going_out, "guard_of", lambda *_: None)
    assert "database" in _broken(scenario)


def test_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one is taken back, where the playbook says all."""
    scenario = _scenario(bad=Fault.RELEASE_ERRS)
    assert _broken(scenario) == set()

    def only_one(_plan: Plan, _state: DeployState, why: str, now_s: float, *, blamed: WorkerId) -> Decision:
        return Note(RollbackBegan(now_s, why, requested=False, blamed=(blamed,)))

    monkeypatch.setattr(acting, "go_back", only_one)
    assert "blame" in _broken(scenario)


def test_every_invariant_has_a_test_here() -> None:
    names = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {name for name in INVARIANTS if not any(it.startswith(name) for it in names)} == set()
