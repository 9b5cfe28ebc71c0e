"""Rollouts that lose the homeserver's lease: nobody is taken out meanwhile, what is ours comes back, and nobody acts beside a successor."""

from collections.abc import Callable, Iterator

import pytest

from rollout.deciding.decide import decide
from rollout.deciding.decision import Finish, Perform
from rollout.deciding.fold import fold, start
from rollout.deciding.state import DeployState, is_taken_back
from rollout.engine.leasing import acquire
from rollout.engine.run import Listener
from rollout.model.effect import Effect
from rollout.model.event import (
    Command,
    DeployBegan,
    DeployFinished,
    DeployResumed,
    EffectFailed,
    EffectIntended,
    Event,
    LeaseLost,
    LeaseRegained,
    OperatorSpoke,
    Outcome,
    RollbackBegan,
    StepBegan,
    WaitBegan,
)
from rollout.model.ids import DeployId, EffectNumber, StepId, WorkerId
from rollout.model.plan import Plan, Verb
from rollout.model.playbook import Playbook
from rollout.ports.lease import Claim
from rollout.simulation.lease import SimulatedLease
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse, take_up
from tests.simulation.safety import assert_safe
from tests.simulation.stages import PLAYBOOK, seven_workers

CLIENT1 = WorkerId("client1")
HOLD = PLAYBOOK.strategy.hold.model_copy(update={"hold_s": 20.0})
CANARY = PLAYBOOK.model_copy(update={"strategy": PLAYBOOK.strategy.model_copy(update={"canary": CLIENT1, "hold": HOLD})})
SHORT_S = 3.0
AWAY_S = 90.0
OUTWARD = {Verb.DRAIN, Verb.HOLD, Verb.RESTART, Verb.MIGRATE}

Moment = Callable[[Event], bool]


def begins(step: str) -> Moment:
    return lambda event: isinstance(event, StepBegan) and event.step_id == step


def intends(verb: Verb, worker: WorkerId | None) -> Moment:
    return lambda event: isinstance(event, EffectIntended) and (event.effect.verb, event.effect.worker) == (verb, worker)


def once(moment: Moment, do: Callable[[], object]) -> Listener:
    """Do something when a moment has come for the first time."""
    due = [do]

    def listen(event: Event, _state: DeployState) -> None:
        if due and moment(event):
            due.pop()()

    return listen


def unreachable(stage: Stage, seconds: float = AWAY_S) -> Callable[[], None]:
    """Let the place of the lease be out of reach from now on."""

    def leave() -> None:
        stage.world.lease.away_until_s = stage.clock.now_s() + seconds

    return leave


def events(stage: Stage) -> list[Event]:
    return [event for _, event in stage.journal.events(DEPLOY)]


def of_kind(stage: Stage, *kinds: type[Event]) -> list[Event]:
    return [event for event in events(stage) if isinstance(event, kinds)]


def without_lease(stage: Stage) -> Iterator[Effect]:
    """Name what was intended while the lease was known to be lost."""
    lost = False
    for event in events(stage):
        if isinstance(event, LeaseLost | LeaseRegained | DeployResumed):
            lost = isinstance(event, LeaseLost)
        if lost and isinstance(event, EffectIntended):
            yield event.effect


class Comeback:
    """A listener that looks at the world in the moment in which the lease is held again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.all_in: bool | None = None

    def __call__(self, event: Event, _state: DeployState) -> None:
        if isinstance(event, LeaseRegained):
            workers = self._stage.world.workers.items()
            self.all_in = all(it.admitted and it.weight == 100 and self._stage.world.answers(worker) for worker, it in workers)


# Main is the last, and nobody has to be taken out after it.
LAST = {"while main is held", "before main is restarted", "while what waited goes on"}
MOMENTS = {
    "before the migration": begins("release/prepare"),
    "before a drain": begins("homeserver/survey"),
    "during a drain": begins("client1/drain"),
    "between drain and restart": begins("client1/restart"),
    "during a restart": intends(Verb.RESTART, CLIENT1),
    "while it boots": begins("client1/await_healthy"),
    "while it is admitted": begins("client1/admit"),
    "while it is watched": begins("client1/soak"),
    "while main is held": begins("main/hold"),
    "before main is restarted": begins("main/restart"),
    "while what waited goes on": begins("main/let_go"),
    "before one without a proxy is restarted": begins("fedsender1/restart"),
}


@pytest.mark.parametrize("ttl_s", [0.3, SHORT_S])
@pytest.mark.parametrize("moment", MOMENTS)
def test_nobody_is_taken_out_without_the_lease_and_what_is_ours_comes_back(moment: str, ttl_s: float) -> None:
    """Out of reach for longer than it is valid, and back: nothing outward meanwhile, everybody is in, and then the rollout goes on."""
    stage = seven_workers(held="main")
    stage.world.lease.ttl_s = ttl_s
    plan = stage.plan(CANARY)
    back = Comeback(stage)
    state = rehearse(stage, plan, listeners=(once(MOMENTS[moment], unreachable(stage)), back))
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)
    assert [effect.verb for effect in without_lease(stage) if effect.verb in OUTWARD] == []
    if moment in LAST and of_kind(stage, LeaseRegained) == []:
        return
    assert [type(event) for event in of_kind(stage, LeaseLost, LeaseRegained)] == [LeaseLost, LeaseRegained]
    assert back.all_in is True
    assert any(isinstance(event, WaitBegan) and event.cause == "lease" for event in events(stage))


@pytest.mark.parametrize("verb", [Verb.DRAIN, Verb.RESTART, Verb.MIGRATE])
def test_what_was_refused_for_want_of_the_lease_blames_nobody(verb: Verb) -> None:
    """Woken again and again just before an act: it is not done, not counted as tried, and done when the lease is held."""
    stage = seven_workers()
    plan = stage.plan(CANARY)
    naps = list(range(2))

    def nap(event: Event, _state: DeployState) -> None:
        if naps and isinstance(event, EffectIntended) and event.effect.verb is verb:
            naps.pop()
            stage.world.lease.away_until_s = stage.clock.now_s() + 40
            stage.clock.advance_to(stage.clock.now_s() + 31)

    state = rehearse(stage, plan, listeners=(nap,))
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)
    failed = [event for event in events(stage) if isinstance(event, EffectFailed)]
    assert [(event.why, event.unheld) for event in failed] == [("the lease had run out", True)] * 2
    assert naps == []


def test_a_lease_that_is_lost_again_and_again_pauses() -> None:
    """Drained and let back in, three times over: it doesn't go on like this for ever, and nobody is blamed."""
    stage = seven_workers()
    stage.world.lease.ttl_s = SHORT_S
    plan = stage.plan(CANARY)

    def leave(event: Event, _state: DeployState) -> None:
        if isinstance(event, EffectIntended) and event.effect.verb is Verb.DRAIN:
            stage.world.lease.away_until_s = stage.clock.now_s() + 15

    state = rehearse(stage, plan, listeners=(leave,))
    assert (state.outcome, state.outcome_why) == (Outcome.PAUSED, "client1 could not be drained: it was let go before its restart")
    assert_safe(stage, plan, state)


def bad(stage: Stage, plan: Plan) -> None:
    stage.world.erring[plan.to_release.id] = 0.3


def test_on_the_way_back_too_nobody_is_taken_out_who_is_in() -> None:
    """The worker on the bad release has its traffic when the lease is lost: it keeps it until the lease is back, and then goes back."""
    stage = seven_workers()
    stage.world.lease.ttl_s = 0.3
    plan = stage.plan(CANARY)
    bad(stage, plan)
    state = rehearse(stage, plan, listeners=(once(begins("client1/soak"), unreachable(stage)),))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert_safe(stage, plan, state)
    kinds = [type(event) for event in of_kind(stage, LeaseLost, RollbackBegan, LeaseRegained)]
    assert kinds == [LeaseLost, RollbackBegan, LeaseRegained]
    assert [effect.verb for effect in without_lease(stage) if effect.verb in OUTWARD] == []
    assert any(isinstance(event, WaitBegan) and event.cause == "lease" for event in events(stage))


@pytest.mark.parametrize("step", ["drain", "restart", "await_healthy", "admit"])
def test_the_way_back_of_who_is_out_goes_on(step: str) -> None:
    """Nobody else would see to it: it is restarted on the old release and admitted while the lease is away."""
    stage = seven_workers()
    stage.world.lease.ttl_s = 0.3
    plan = stage.plan(CANARY)
    bad(stage, plan)
    back = Comeback(stage)
    state = rehearse(stage, plan, listeners=(once(begins(f"client1/rollback/{step}"), unreachable(stage, 150.0)), back))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert_safe(stage, plan, state)
    if step == "drain":
        # It was begun, but had not been done.
        return
    assert back.all_in is not False
    assert [effect.verb for effect in without_lease(stage) if effect.verb in OUTWARD - {Verb.RESTART}] == []


def test_a_release_that_does_not_boot_is_taken_back_without_the_lease() -> None:
    """Its worker is out, and dead: nothing more is lost by taking it back, and everything by waiting."""
    stage = seven_workers()
    stage.world.lease.ttl_s = 0.3
    plan = stage.plan(CANARY)
    stage.world.hangs.add(plan.to_release.id)
    state = rehearse(stage, plan, listeners=(once(begins("client1/await_healthy"), unreachable(stage, 300.0)),))
    assert state.outcome is Outcome.ROLLED_BACK, state.outcome_why
    assert_safe(stage, plan, state)
    assert not of_kind(stage, LeaseRegained)


@pytest.mark.parametrize("playbook", [CANARY])
@pytest.mark.parametrize("trouble", ["none", "errs", "hangs"])
def test_at_no_line_of_a_journal_would_anybody_be_taken_out_without_the_lease(playbook: Playbook, trouble: str) -> None:
    """On every state that ever was, had the lease been lost just then."""
    stage = seven_workers(held="main")
    plan = stage.plan(playbook)
    if trouble == "errs":
        bad(stage, plan)
    if trouble == "hangs":
        stage.world.hangs.add(plan.to_release.id)
    rehearse(stage, plan)
    state, forbidden = start(plan), 0
    for event in events(stage):
        state = fold(plan, state, event)
        lost = fold(plan, state, LeaseLost(state.last_at_s, "the database is away", taken_over=False))
        usual, unleased = decide(plan, state, state.last_at_s), decide(plan, lost, state.last_at_s)
        forbidden += isinstance(usual, Perform) and usual.effect.takes_out
        if not isinstance(unleased, Perform):
            continue
        effect = unleased.effect
        assert not effect.takes_out
        assert effect.verb is not Verb.MIGRATE
        if effect.verb in OUTWARD and effect.step_id in state.steps:
            assert effect.worker is not None
            assert is_taken_back(lost, effect.worker)
    assert forbidden > 0


@pytest.mark.parametrize("moment", [name for name in MOMENTS if "watched" not in name])
def test_who_is_taken_over_does_nothing_more_and_anybody_goes_on(moment: str) -> None:
    """Not even bringing back what is out: that is the other's. Whoever resumes it then ends it well."""
    stage = seven_workers(held="main")
    stage.world.lease.ttl_s = 0.3
    plan = stage.plan(CANARY)
    taking = once(MOMENTS[moment], lambda: stage.world.lease.take_over(stage.clock.now_s(), "bob@laptop", "resume"))
    state = rehearse(stage, plan, listeners=(taking,))
    assert state.outcome is Outcome.INTERRUPTED
    assert state.outcome_why.startswith("somebody else has taken over: bob@laptop on nowhere (process 2) took it over at ")
    after = events(stage)[next(index for index, event in enumerate(events(stage)) if isinstance(event, LeaseLost)) :]
    assert [type(event) for event in after] == [LeaseLost, DeployFinished]
    end = after[-1]
    assert isinstance(end, DeployFinished)
    assert set(end.drained) == set(stage.drivers.ledger.marks())
    stage.world.lease.ttl_s = 30.0
    state = take_up(stage, plan)
    assert state.outcome is Outcome.DEPLOYED, state.outcome_why
    assert_safe(stage, plan, state)
    resumed = next(event for event in events(stage) if isinstance(event, DeployResumed))
    assert (resumed.token, state.token) == (3, 3)
    assert resumed.taken_from.startswith("bob@laptop on nowhere")


def test_an_effect_that_is_fenced_says_that_somebody_took_over() -> None:
    """The ledger at the target knows it before the lease does."""
    stage = seven_workers()
    plan = stage.plan(CANARY)
    state = rehearse(stage, plan, listeners=(once(begins("client1/drain"), lambda: stage.drivers.ledger.take(7, "bob@laptop")),))
    assert state.outcome is Outcome.INTERRUPTED
    assert "bob@laptop" in state.outcome_why
    assert stage.world.workers[CLIENT1].admitted
    assert isinstance(events(stage)[-2], EffectFailed | LeaseLost)


def test_nobody_writes_into_a_journal_that_somebody_else_goes_on_with() -> None:
    """Both keep the same one: the first ends by what it finds there, before it has done anything, and leaves it as it is."""
    stage = seven_workers()
    plan = stage.plan(CANARY)
    word = OperatorSpoke(stage.clock.now_s(), Command.CONTINUE, "bob@laptop", "")
    told: list[Event] = []
    state = rehearse(
        stage,
        plan,
        listeners=(once(begins("client1/drain"), lambda: stage.journal.append(DEPLOY, (word,))), lambda event, _: told.append(event)),
    )
    assert (state.outcome, state.taken_over) == (Outcome.INTERRUPTED, True)
    assert events(stage)[-1] == word
    assert [type(event) for event in told[-2:]] == [LeaseLost, DeployFinished]
    assert stage.world.workers[CLIENT1].admitted


def test_who_was_asleep_takes_nobody_out_on_waking() -> None:
    """By its own count of seconds, before anybody has told it; what brings somebody back is done all the same."""
    stage = seven_workers()
    claim = Claim("alice", "deploy", DeployId("d-1"))
    tenure = acquire(stage.drivers.lease, stage.drivers.ledger, stage.clock, claim, take_over=False)

    def effect(*, takes_out: bool) -> Effect:
        return Effect(EffectNumber(1), StepId("client1/drain"), Verb.DRAIN, CLIENT1, stage.old.id, 0.0, takes_out=takes_out)

    assert tenure.refuse(effect(takes_out=True)) is None
    stage.clock.advance_to(stage.clock.now_s() + 30.0)
    failed = tenure.refuse(effect(takes_out=True))
    assert failed is not None
    assert (failed.why, failed.permanent, failed.unheld) == ("the lease had run out", False, True)
    assert tenure.refuse(effect(takes_out=False)) is None
    assert isinstance(tenure.beat(), LeaseRegained)
    assert tenure.refuse(effect(takes_out=True)) is None


def test_every_effect_carries_the_token_and_the_next_process_has_a_higher_one() -> None:
    stage = seven_workers()
    plan = stage.plan(CANARY)
    state = rehearse(stage, plan, crash_after=(60,))
    assert state.outcome is Outcome.DEPLOYED
    began, resumed = of_kind(stage, DeployBegan, DeployResumed)
    assert isinstance(began, DeployBegan)
    assert isinstance(resumed, DeployResumed)
    assert (began.token, began.taken_from, resumed.token) == (1, "", 2)
    assert resumed.taken_from.startswith("rehearsal on nowhere")
    place = events(stage).index(resumed)
    intents = [(index, event.effect) for index, event in enumerate(events(stage)) if isinstance(event, EffectIntended)]
    assert {effect.token for index, effect in intents if index < place} == {1}
    assert {effect.token for index, effect in intents if index > place} == {2}
    assert stage.drivers.ledger.token() == 2


def test_a_wait_without_the_lease_ends_in_a_pause_after_the_usual_time() -> None:
    """Nothing goes on for ever: when no step has finished for as long as the playbook says, it stops, and everybody is in."""
    stage = seven_workers()
    plan = stage.plan(CANARY)
    state = rehearse(stage, plan, listeners=(once(begins("client1/drain"), unreachable(stage, 10_000.0)),))
    assert state.outcome is Outcome.PAUSED
    assert_safe(stage, plan, state)


def test_a_state_that_was_taken_over_is_left_at_once() -> None:
    """Whatever else there would be to do: a doubt, an abort that was asked for, a way back."""
    stage = seven_workers()
    plan = stage.plan(CANARY)
    rehearse(stage, plan)
    state = start(plan)
    for event in events(stage)[:-1]:
        state = fold(plan, state, event)
        taken = fold(plan, state, LeaseLost(state.last_at_s, "bob has it", taken_over=True))
        for asked in (taken, fold(plan, taken, OperatorSpoke(state.last_at_s, Command.ABORT, "ada", ""))):
            decision = decide(plan, asked, state.last_at_s)
            assert isinstance(decision, Finish)
            assert decision.outcome is Outcome.INTERRUPTED
            assert "bob has it" in decision.why


def test_a_renewal_is_worth_what_it_was_when_it_was_asked_for() -> None:
    """It took twenty seconds, and nobody knows at which of them it was done: the lease runs out thirty after the first."""
    stage = seven_workers()

    class Slow(SimulatedLease):
        def renew(self, token: int, timeout_s: float) -> None:
            super().renew(token, timeout_s)
            stage.clock.advance_to(stage.clock.now_s() + 20.0)

    keeper = Slow(stage.world.lease, stage.clock.now_s)
    tenure = acquire(keeper, stage.drivers.ledger, stage.clock, Claim("alice", "deploy", DeployId("d-1")), take_over=False)
    tenure.beat()
    stage.clock.advance_to(stage.clock.now_s() + 9.9)
    assert tenure.holds()
    stage.clock.advance_to(stage.clock.now_s() + 0.2)
    assert not tenure.holds()
