"""
Rollouts with anything that may go wrong, drawn at random, on a simulated homeserver that counts what must never happen.

`derandomize` makes every run the same: a failure on a CI machine is a failure at one's desk.
"""

from dataclasses import dataclass
from itertools import count
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.deciding.decide import decide
from rollout.deciding.decision import Note, Perform
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState
from rollout.engine.deploy import replay
from rollout.model.event import RESUMABLE, Command, DeployFinished, Event, Outcome
from rollout.model.ids import EffectNumber, WorkerId
from rollout.model.playbook import Rollback, Strategy, Watch
from rollout.simulation.faults import Fault
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse, set_stage
from tests.simulation.stages import PLAIN_FAULTS, PLAYBOOK, seven_workers

REPLACEABLE = [WorkerId("client1"), WorkerId("client2")]
FEW = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True, slots=True)
class Trouble:
    """What goes wrong in one rollout."""

    faults: dict[EffectNumber, Fault]
    crashes: tuple[int, ...]
    words: dict[int, Command]
    release: str

    def stage(self) -> Stage:
        """Build a homeserver on which the new release does what it does."""
        stage = set_stage({"main": ("main", "main"), "client1": ("client", "client"), "client2": ("client", "client")})
        new = stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False).id
        if self.release == "exits":
            stage.world.never_boots.add(new)
        elif self.release == "hangs":
            stage.world.hangs.add(new)
        elif self.release == "is slow":
            stage.world.slow.add(new)
        elif self.release == "errs":
            stage.world.erring[new] = 0.2
        return stage


numbers = st.integers(1, 16).map(EffectNumber)
troubles = st.builds(
    Trouble,
    faults=st.dictionaries(numbers, st.sampled_from(PLAIN_FAULTS), max_size=3),
    crashes=st.lists(st.integers(2, 160), max_size=3, unique=True).map(lambda found: tuple(sorted(found))),
    words=st.dictionaries(st.integers(3, 160), st.sampled_from(Command), max_size=1),
    release=st.sampled_from(["works", "works", "exits", "hangs", "is slow", "errs"]),
)


@FEW
@given(troubles)
def test_nothing_is_cut_and_what_is_said_is_true(trouble: Trouble) -> None:
    stage = trouble.stage()
    plan = stage.plan(PLAYBOOK)
    end = rehearse(stage, plan, faults=trouble.faults, crash_after=trouble.crashes, speak=trouble.words)

    world = stage.world
    assert {worker: world.cuts.get(worker, 0) for worker in REPLACEABLE} == dict.fromkeys(REPLACEABLE, 0)
    ours_out = set(stage.drivers.ledger.marks())
    really_out = {worker for worker in REPLACEABLE if not (world.workers[worker].admitted and world.workers[worker].weight == 100)}
    assert really_out <= ours_out, "somebody is out, and no mark says that it was us"
    run = {worker: it.runs for worker, it in world.workers.items()}
    match end.outcome:
        case Outcome.DEPLOYED:
            assert set(run.values()) == {plan.to_release.id}
            assert all(world.answers(worker) for worker in run)
            assert ours_out == set()
        case Outcome.ROLLED_BACK | Outcome.ROLLED_BACK_ON_REQUEST | Outcome.ABORTED | Outcome.REFUSED:
            assert set(run.values()) == {stage.old.id}
            assert all(world.answers(worker) for worker in run)
            assert ours_out == set()
        case Outcome.HALTED:
            assert end.outcome_why
        case _:
            # It may be taken up again, so until then everybody who can serve does.
            assert end.outcome in RESUMABLE
            assert {worker for worker in ours_out if world.answers(worker)} == set()


@FEW
@given(troubles)
def test_the_journal_is_the_state(trouble: Trouble) -> None:
    stage = trouble.stage()
    plan = stage.plan(PLAYBOOK)
    end = rehearse(stage, plan, faults=trouble.faults, crash_after=trouble.crashes, speak=trouble.words)
    assert replay(stage.journal, plan, DEPLOY) == end


@FEW
@given(troubles)
def test_every_decision_is_repeatable_and_leads_on(trouble: Trouble) -> None:
    """On each state that ever was: the same answer to the same question, and no note that would be written again and again."""
    stage = trouble.stage()
    plan = stage.plan(PLAYBOOK)
    rehearse(stage, plan, faults=trouble.faults, crash_after=trouble.crashes, speak=trouble.words)
    state: DeployState = start(plan)
    last_at_s = 0.0
    for _, event in stage.journal.events(DEPLOY):
        assert at_s(event) >= last_at_s
        last_at_s = at_s(event)
        state = fold(plan, state, event)
        if state.outcome is not None and state.outcome not in RESUMABLE:
            continue
        decision = decide(plan, state, last_at_s)
        assert decide(plan, state, last_at_s) == decision
        if isinstance(decision, Note):
            assert decide(plan, fold(plan, state, decision.event), last_at_s) != decision
        if isinstance(decision, Perform):
            assert decision.effect.number > state.last_number


def at_s(event: Event) -> float:
    """Tell when it happened."""
    return event.at_s


@dataclass(frozen=True, slots=True)
class Turn:
    """A release that turns bad after some lines of the journal, while it is rolled with this scope and perhaps main held."""

    scope: Literal["all_touched", "blamed"]
    held: str | None
    after: int
    trouble: str
    faults: dict[EffectNumber, Fault]
    crashes: tuple[int, ...]
    words: dict[int, Command]


turns = st.builds(
    Turn,
    scope=st.sampled_from(["blamed", "blamed", "all_touched"]),
    held=st.sampled_from([None, "main"]),
    after=st.integers(20, 400),
    trouble=st.sampled_from(["errs", "errs", "hangs", "exits"]),
    faults=st.dictionaries(st.integers(1, 40).map(EffectNumber), st.sampled_from(PLAIN_FAULTS), max_size=2),
    crashes=st.lists(st.integers(2, 500), max_size=2, unique=True).map(lambda found: tuple(sorted(found))),
    words=st.dictionaries(st.integers(3, 500), st.sampled_from(Command), max_size=1),
)


@FEW
@given(turns)
def test_no_rollout_ends_well_with_somebody_out_by_our_hand(turn: Turn) -> None:
    """Whoever is blamed, and whoever else was out then: everybody is back, or it is halted and they are named."""
    stage = seven_workers(held=turn.held)
    strategy = Strategy.model_validate(PLAYBOOK.strategy.model_dump() | {"hold": {"hold_s": 20}})
    watched = {"strategy": strategy, "rollback": Rollback(scope=turn.scope), "watch": Watch(watch_s=60, window_s=6)}
    plan = stage.plan(PLAYBOOK.model_copy(update=watched))
    bad = plan.to_release.id

    lines = count(1)

    def turn_bad(_event: Event, state: DeployState) -> None:
        if next(lines) < turn.after or state.outcome is not None:
            return
        if turn.trouble == "errs":
            stage.world.erring[bad] = 0.3
        else:
            (stage.world.hangs if turn.trouble == "hangs" else stage.world.never_boots).add(bad)

    end = rehearse(stage, plan, faults=turn.faults, crash_after=turn.crashes, speak=turn.words, listeners=(turn_bad,))
    out = {worker for worker, known in end.workers.items() if known.drained_by_us}
    finish = [event for _, event in stage.journal.events(DEPLOY) if isinstance(event, DeployFinished)][-1]
    assert out <= set(finish.drained)
    assert not out or end.outcome is Outcome.HALTED
    if end.outcome is not Outcome.HALTED:
        assert (stage.drivers.ledger.marks(), stage.world.holds) == ({}, {})
