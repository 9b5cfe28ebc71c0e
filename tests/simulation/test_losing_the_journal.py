"""
The journal is lost in mid-rollout: a new plan starts from what is seen and from our marks, and converges.

The process dies right before an effect is intended, right after (and the effect never happens, or happens although nobody is left to hear
of it), or right after it is done: for the first and the last effect of every verb, on the way there and on the way back, with main held
and with clients ramped. Its journal is deleted, and somebody plans anew with an empty one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest

from rollout.deciding.state import DeployState
from rollout.engine.perform import act
from rollout.engine.rescue import admit_ours
from rollout.model.effect import Effect
from rollout.model.errors import RefusedError
from rollout.model.event import Command, EffectIntended, EffectSucceeded, Event, Outcome, StepBegan
from rollout.model.ids import ReleaseId, WorkerId
from rollout.model.plan import Plan, Verb
from rollout.simulation.journal import MemoryJournal
from rollout.simulation.rehearse import Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

OLD, NEW = "1.0.0", "2.0.0"
CLIENT2 = WorkerId("client2")
# Twenty requests a second wait at main.
HELD = PLAYBOOK.model_copy(
    update={"strategy": PLAYBOOK.strategy.model_copy(update={"hold": PLAYBOOK.strategy.hold.model_copy(update={"hold_s": 20.0})})}
)
# Somebody who finds a worker still booting, or requests still held, looks again a little later; a hold ends by itself.
PATIENCE_S = 400.0
MOMENTS = ("before", "intended", "happened", "succeeded")
# The release is found to be bad when this one gets it: four workers are taken back then.
TURNS_BAD_AT = "client2/restart"


class Lost(Exception):  # noqa: N818  (not an error: the end of a process and of its disk, on purpose)
    """The tool's process and its journal are gone."""


@dataclass(frozen=True, slots=True)
class Loss:
    """At which effect of a rollout, by its place among those that it intends, and at which moment of it."""

    bad: bool
    verb: Verb
    way: str
    place: int
    moment: str

    def __str__(self) -> str:
        return f"{self.way}-{self.verb.value}-{self.place}-{self.moment}"


def _turning_bad(stage: Stage, release: ReleaseId) -> Callable[[Event, DeployState], None]:
    def listen(event: Event, _state: DeployState) -> None:
        if isinstance(event, StepBegan) and event.step_id == TURNS_BAD_AT:
            stage.world.erring[release] = 0.3

    return listen


@cache
def _effects(*, bad: bool) -> tuple[Effect, ...]:
    """All effects of one undisturbed rollout."""
    stage = seven_workers(held="main")
    plan = stage.plan(HELD)
    effects: list[Effect] = []

    def listen(event: Event, _state: DeployState) -> None:
        if isinstance(event, EffectIntended):
            effects.append(event.effect)

    listeners = (_turning_bad(stage, plan.to_release.id), listen) if bad else (listen,)
    outcome = rehearse(stage, plan, listeners=listeners).outcome
    assert outcome is (Outcome.ROLLED_BACK if bad else Outcome.DEPLOYED)
    return tuple(effects)


def _losses() -> list[Loss]:
    found: list[Loss] = []
    for bad in (False, True):
        kinds: dict[tuple[Verb, str], list[int]] = {}
        for place, effect in enumerate(_effects(bad=bad)):
            back = "/rollback/" in effect.step_id or "/safety" in effect.step_id
            if not bad or back:
                kinds.setdefault((effect.verb, "back" if back else "there"), []).append(place)
        for (verb, way), places in kinds.items():
            found += [Loss(bad, verb, way, place, moment) for place in sorted({places[0], places[-1]}) for moment in MOMENTS]
    return found


def _lose(loss: Loss) -> Stage:
    """Roll out until the journal is lost."""
    stage = seven_workers(held="main")
    plan = stage.plan(HELD)
    wanted = _effects(bad=loss.bad)[loss.place]
    count = 0

    def listen(event: Event, _state: DeployState) -> None:
        nonlocal count
        if isinstance(event, EffectSucceeded) and event.number == wanted.number and loss.moment == "succeeded":
            raise Lost
        if isinstance(event, EffectIntended):
            count += 1
            if loss.moment == "before" and count == loss.place:
                raise Lost
            if count == loss.place + 1 and loss.moment != "succeeded":
                if loss.moment == "happened":
                    act(event.effect, plan, stage.drivers, stage.inventory, stage.clock)
                raise Lost

    listeners = (_turning_bad(stage, plan.to_release.id), listen) if loss.bad else (listen,)
    with pytest.raises(Lost):
        rehearse(stage, plan, listeners=listeners)
    stage.journal = MemoryJournal()
    return stage


def _plan(stage: Stage, version: str) -> Plan:
    """Plan anew; what is refused because something has yet to end is asked for again a little later."""
    end_s = stage.clock.now_s() + PATIENCE_S
    while True:
        try:
            return stage.plan(HELD, version)
        except RefusedError:
            if stage.clock.now_s() > end_s:
                raise
            stage.clock.advance_to(stage.clock.now_s() + 5)


def _roll(stage: Stage, version: str) -> None:
    """Go to a release from whatever there is, and check that everything is as after a rollout that nobody has disturbed."""
    stage.journal = MemoryJournal()
    before = dict(stage.world.cuts)
    plan = _plan(stage, version)
    if plan.phases:
        state = rehearse(stage, plan)
        assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    workers = stage.world.workers
    assert {name: it.runs for name, it in workers.items()} == dict.fromkeys(workers, plan.to_release.id)
    assert {name: it.activated for name, it in workers.items()} == dict.fromkeys(workers, plan.to_release.id)
    assert all(stage.world.answers(worker) for worker in workers)
    assert [name for name, it in workers.items() if not it.admitted or it.weight != 100] == []
    assert not any(stage.world.is_held(it.backend) for it in workers.values() if it.backend is not None)
    assert stage.drivers.ledger.marks() == {}
    cut = {name: count for name, count in stage.world.cuts.items() if count != before.get(name, 0) and workers[name].proxied}
    assert cut == {}
    assert stage.world.out_at_once_max <= 2


@pytest.mark.parametrize("version", [NEW, OLD])
@pytest.mark.parametrize("loss", [loss for loss in _losses() if not loss.bad], ids=str)
def test_a_new_plan_converges_after_a_loss_on_the_way_there(loss: Loss, version: str) -> None:
    """On to the new release, or back to the old one: everybody runs it, nothing of ours is left, and nobody was cut."""
    _roll(_lose(loss), version)


@pytest.mark.parametrize("loss", [loss for loss in _losses() if loss.bad], ids=str)
def test_a_new_plan_takes_everybody_back_after_a_loss_on_the_way_back(loss: Loss) -> None:
    """The bad release is still bad; the old one is what is gone back to. Then it is mended, and may be rolled out again."""
    stage = _lose(loss)
    _roll(stage, OLD)
    stage.world.erring.clear()
    _roll(stage, NEW)


def _taken_back() -> tuple[Stage, ReleaseId]:
    """Lose the journal while client2 is out on its way back, still on the bad release."""
    wanted = next(
        place for place, effect in enumerate(_effects(bad=True)) if effect.verb is Verb.RESTART and "client2/rollback" in effect.step_id
    )
    stage = _lose(Loss(bad=True, verb=Verb.RESTART, way="back", place=wanted, moment="intended"))
    mark = stage.drivers.ledger.marks()[CLIENT2]
    assert mark.condemned == stage.world.workers[CLIENT2].runs != stage.old.id
    return stage, mark.condemned


def _never_admitted_on(stage: Stage, release: ReleaseId) -> Callable[[Event, DeployState], None]:
    def listen(_event: Event, _state: DeployState) -> None:
        it = stage.world.workers[CLIENT2]
        assert not (it.admitted and it.runs == release)

    return listen


def test_a_release_that_somebody_was_being_taken_back_from_is_refused_until_he_is_back() -> None:
    """Our mark at the target names it; the refusal names the worker."""
    stage, bad = _taken_back()
    with pytest.raises(RefusedError, match=f"client2 was being taken back from {bad}, and is not admitted on it"):
        stage.plan(HELD, NEW)
    _roll(stage, OLD)
    assert stage.plan(HELD, NEW).phases


@pytest.mark.parametrize("verb", [Verb.PREPARE, Verb.DRAIN, Verb.RESTART])
@pytest.mark.parametrize("command", [Command.ABORT, Command.ROLLBACK, Command.INTERRUPT])
def test_nobody_is_admitted_on_a_release_that_an_earlier_rollout_condemned(verb: Verb, command: Command) -> None:
    """Whatever is said to the new rollout, and when: what it knows of the release is in the mark alone."""
    reference, bad = _taken_back()
    lines: list[Verb | None] = []

    def note(event: Event, _state: DeployState) -> None:
        lines.append(event.effect.verb if isinstance(event, EffectIntended) else None)

    reference.journal = MemoryJournal()
    rehearse(reference, _plan(reference, OLD), listeners=(note,))
    stage, _ = _taken_back()
    stage.journal = MemoryJournal()
    state = rehearse(stage, _plan(stage, OLD), speak={lines.index(verb) + 1: command}, listeners=(_never_admitted_on(stage, bad),))
    it = stage.world.workers[CLIENT2]
    assert state.outcome is not Outcome.DEPLOYED
    if verb is Verb.PREPARE:
        # Its turn had not come: it is as it was found, and its mark still says why.
        assert (it.admitted, stage.drivers.ledger.marks()[CLIENT2].condemned) == (False, bad)
    else:
        assert (it.admitted, it.weight, it.runs) == (True, 100, stage.old.id), state.outcome_why


@pytest.mark.parametrize("verb", [Verb.DRAIN, Verb.RESTART])
def test_what_is_condemned_stays_so_when_the_second_journal_is_lost_as_well(verb: Verb) -> None:
    """The new rollout's own mark keeps it; break-glass leaves the worker out, and names it."""
    stage, bad = _taken_back()
    stage.journal = MemoryJournal()

    def lose(event: Event, _state: DeployState) -> None:
        if isinstance(event, EffectIntended) and event.effect.worker == CLIENT2 and event.effect.verb is verb:
            if verb is Verb.DRAIN:
                act(event.effect, plan, stage.drivers, stage.inventory, stage.clock)
            raise Lost

    plan = _plan(stage, OLD)
    with pytest.raises(Lost):
        rehearse(stage, plan, listeners=(lose,))
    rescued = admit_ours(stage.drivers, stage.inventory)
    assert CLIENT2 not in rescued.admitted
    assert f"it runs {bad}, which was being taken back" in rescued.left_out[CLIENT2]
    _roll(stage, OLD)
