"""What every driver of the port `journal` promises: SQLite, PostgreSQL and the one in memory."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rollout.adapters.journal.sql import open_journal
from rollout.model.effect import Effect
from rollout.model.errors import JournalTakenError, PermanentDriverError
from rollout.model.event import (
    BaselineFound,
    Command,
    DeployBegan,
    DeployFinished,
    DeployResumed,
    EffectFailed,
    EffectInDoubt,
    EffectIntended,
    EffectObserved,
    EffectSucceeded,
    Event,
    GateRuled,
    LeaseLost,
    LeaseRegained,
    Observed,
    OperatorSpoke,
    Outcome,
    RollbackBegan,
    SamplesTaken,
    StepBegan,
    StepFailed,
    StepFinished,
    WaitBegan,
    WindDownBegan,
)
from rollout.model.gate import Evidence, GuardReading, Measured, Ruling, Tally, Verdict
from rollout.model.ids import DeployId, EffectNumber, GateId, StepId, WorkerId
from rollout.model.plan import Plan, Verb
from rollout.model.release import make_release
from rollout.model.sighting import DrainMark, Observation, ProcessSighting, ProxySighting, SchemaSighting, Sighting
from rollout.ports.journal import Baseline, DeployLine, Journal, Request
from rollout.simulation.journal import MemoryJournal
from tests.contracts.database import Server, postgresql
from tests.simulation.stages import PLAYBOOK, seven_workers

ONE, TWO, NONE = DeployId("d-1"), DeployId("d-2"), DeployId("d-none")
SYNC1, CLIENT1 = WorkerId("sync1"), WorkerId("client1")
STEP = StepId("drain:sync1")
NEW = make_release("2.0.0", "lock", "config", ("a.module",), 2, {"stream_writers.events": ("event_persister1",)})
EFFECT = Effect(EffectNumber(8), STEP, Verb.DRAIN, SYNC1, NEW.id, 1_000_300.5, 50, "sync first — »zuerst«\nthen client")
# No whole number of binary fractions, and a second that needs all its digits.
AT_S = 1_732_381_225.123456
TALLY = Tally(AT_S, AT_S + 0.1, 0.1 + 0.2, 1.0, polls=3.0, poll_cpu_s=1e-9, canaries=2, backlog=None)
SEEN = Observation(
    AT_S,
    {
        SYNC1: Sighting(
            ProcessSighting(running=True, started_at_s=AT_S - 0.01, activated=NEW.id, activated_at_s=AT_S),
            healthy=True,
            version="2.0.0",
            proxy=ProxySighting(admitted=False, weight=50, up=True, sessions=None, requests=3, cuts=0, counters={"wretr": 1}),
            drain=DrainMark(EffectNumber(8), NEW.id, "sync first", AT_S),
        ),
        CLIENT1: Sighting(None, unseen=("metrics: connection refused",)),
    },
    missing={WorkerId("main"): "no answer"},
    releases={NEW.id: NEW},
    guards=(GuardReading("idle_in_transaction", None, "no database"),),
    schema=SchemaSighting(94, 84, ("94/01_one.sql",)),
    last_number=EffectNumber(8),
)
EVENTS: tuple[Event, ...] = (
    DeployResumed(AT_S, 3, "alice", EffectNumber(7)),
    EffectIntended(AT_S, EFFECT),
    EffectSucceeded(AT_S, EffectNumber(8), NEW),
    EffectFailed(AT_S, EffectNumber(8), "refused", permanent=True, log=("one", "two \N{BELL}\x1b[0m")),
    EffectInDoubt(AT_S, EffectNumber(8), "no answer within 5 s"),
    EffectObserved(AT_S, EffectNumber(8), happened=False, why="it still runs"),
    Observed(AT_S, SEEN),
    SamplesTaken(AT_S, Measured({SYNC1: TALLY}, {CLIENT1: "connection refused"})),
    BaselineFound(AT_S, "deploy d-0", {SYNC1: TALLY}),
    StepBegan(AT_S, STEP),
    StepFinished(AT_S, STEP, "no session is left"),
    StepFailed(AT_S, STEP, "after 60 s 3 sessions are left"),
    WaitBegan(AT_S, "drain", "sync1 has 3 sessions"),
    GateRuled(AT_S, STEP, SYNC1, Verdict(GateId("errors"), Ruling.FAIL, "too many", Evidence(100.0, 0.2, None, 0.02, "the pool"))),
    RollbackBegan(AT_S, "errors", requested=False),
    WindDownBegan(AT_S, Outcome.PAUSED, "metrics are away"),
    LeaseLost(AT_S, "the database is away", taken_over=False),
    LeaseRegained(AT_S),
    OperatorSpoke(AT_S, Command.ABORT, "bob", "dinner"),
    DeployFinished(AT_S, Outcome.HALTED, "sync1 can't be brought back", (SYNC1,)),
)


NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One PostgreSQL for all."""
    with postgresql(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Every driver in turn, empty."""
    if request.param == "memory":
        yield MemoryJournal()
        return
    if request.param == "sqlite":
        opened = open_journal(str(tmp_path / "state/journal.db"))
    else:
        opened = open_journal(request.getfixturevalue("server").new_database(f"journal{next(NUMBERS)}"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Seven workers, 1.0.0 to 2.0.0."""
    return seven_workers().plan(PLAYBOOK)


def began(deploy_id: DeployId, at_s: float = AT_S) -> DeployBegan:
    """Open a rollout."""
    return DeployBegan(at_s, deploy_id, "plan", 3, "alice", EffectNumber(7))


def test_every_kind_of_event_comes_back_equal_and_in_order(journal: Journal, plan: Plan) -> None:
    """Numbered from 1 without a gap, however many are kept at a time; the plan too is what it was."""
    assert {type(event) for event in (began(ONE), *EVENTS)} == set(Event.__args__)
    journal.begin(ONE, plan, began(ONE))
    journal.append(ONE, EVENTS[:1])
    journal.append(ONE, ())
    journal.append(ONE, EVENTS[1:])
    assert journal.events(ONE) == list(enumerate((began(ONE), *EVENTS), start=1))
    assert journal.plan(ONE) == plan


def test_events_are_had_from_where_one_stopped_reading(journal: Journal, plan: Plan) -> None:
    """Those after a number; none when there are no more."""
    journal.begin(ONE, plan, began(ONE))
    journal.append(ONE, EVENTS)
    last = len(EVENTS) + 1
    assert journal.events(ONE, last - 2) == [(last - 1, EVENTS[-2]), (last, EVENTS[-1])]
    assert journal.events(ONE, last) == []


def test_rollouts_do_not_mix(journal: Journal, plan: Plan) -> None:
    """Each has its own numbers, from 1."""
    journal.begin(ONE, plan, began(ONE))
    journal.begin(TWO, plan, began(TWO))
    journal.append(ONE, EVENTS[:1])
    journal.append(TWO, EVENTS[1:2])
    journal.append(ONE, EVENTS[2:3])
    assert journal.events(ONE) == [(1, began(ONE)), (2, EVENTS[0]), (3, EVENTS[2])]
    assert journal.events(TWO) == [(1, began(TWO)), (2, EVENTS[1])]


def test_who_does_not_know_the_last_line_writes_none(journal: Journal, plan: Plan) -> None:
    """Somebody else goes on with the rollout: nothing is kept, and whoever wrote last may go on. In threads, one of many gets its turn."""
    journal.begin(ONE, plan, began(ONE))
    journal.append(ONE, EVENTS[:2], after=1)
    with pytest.raises(JournalTakenError):
        journal.append(ONE, EVENTS[2:3], after=1)
    assert [number for number, _ in journal.events(ONE)] == [1, 2, 3]
    journal.append(ONE, EVENTS[2:3], after=3)

    def attempt(_: int) -> bool:
        try:
            journal.append(ONE, EVENTS[3:4], after=4)
        except JournalTakenError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(attempt, range(6))) == [False] * 5 + [True]
    assert [number for number, _ in journal.events(ONE)] == [1, 2, 3, 4, 5]


def test_a_rollout_that_never_began_is_unknown(journal: Journal) -> None:
    """It has no plan and takes no events, and reading it finds nothing."""
    with pytest.raises(PermanentDriverError, match=NONE):
        journal.plan(NONE)
    with pytest.raises(PermanentDriverError, match=NONE):
        journal.append(NONE, EVENTS[:1])
    assert journal.events(NONE) == []
    assert journal.take_requests(NONE) == []
    assert journal.deploys("simulated.localhost", 10) == []


def test_a_rollout_begins_once(journal: Journal, plan: Plan) -> None:
    """What is kept already is never written over."""
    journal.begin(ONE, plan, began(ONE))
    journal.append(ONE, EVENTS)
    with pytest.raises(PermanentDriverError):
        journal.begin(ONE, plan, began(ONE, AT_S + 9))
    assert journal.events(ONE) == list(enumerate((began(ONE), *EVENTS), start=1))


def test_history_is_told_newest_first_with_what_became_of_each(journal: Journal, plan: Plan) -> None:
    """One that hasn't ended has no outcome: neither one under way nor one that was paused and taken up again."""
    begins_s = {DeployId(f"d-{number}"): AT_S + 100 * number for number in range(4)}
    for deploy_id, at_s in begins_s.items():
        journal.begin(deploy_id, plan, began(deploy_id, at_s))
    journal.append(DeployId("d-0"), [DeployFinished(AT_S + 50, Outcome.ROLLED_BACK, "errors")])
    journal.append(DeployId("d-1"), [DeployFinished(AT_S + 150, Outcome.PAUSED, "metrics are away")])
    paused = DeployFinished(AT_S + 250, Outcome.PAUSED, "metrics are away")
    journal.append(DeployId("d-2"), [paused, DeployResumed(AT_S + 260, 3, "alice", EffectNumber(9))])

    def line(deploy_id: str, finished_at_s: float | None, outcome: Outcome | None) -> DeployLine:
        key = DeployId(deploy_id)
        return DeployLine(key, "simulated.localhost", ("1.0.0",), "2.0.0", begins_s[key], finished_at_s, outcome)

    history = [
        line("d-3", None, None),
        line("d-2", None, None),
        line("d-1", AT_S + 150, Outcome.PAUSED),
        line("d-0", AT_S + 50, Outcome.ROLLED_BACK),
    ]
    assert journal.deploys("simulated.localhost", 10) == history
    assert journal.deploys("simulated.localhost", 2) == history[:2]
    assert journal.deploys("elsewhere.localhost", 10) == []


def test_requests_are_taken_once_and_in_order(journal: Journal, plan: Plan) -> None:
    """By the rollout that they are for; they are no events."""
    journal.begin(ONE, plan, began(ONE))
    journal.begin(TWO, plan, began(TWO))
    first, second = Request(Command.ROLLBACK, "alice", "users complain"), Request(Command.ABORT, "bob", "")
    journal.ask(ONE, first)
    journal.ask(ONE, second)
    assert journal.take_requests(TWO) == []
    assert journal.take_requests(ONE) == [first, second]
    assert journal.take_requests(ONE) == []
    journal.ask(ONE, second)
    assert journal.take_requests(ONE) == [second]
    assert journal.events(ONE) == [(1, began(ONE))]


def test_what_was_observed_is_kept_by_homeserver_and_told_oldest_first(journal: Journal) -> None:
    """With the release that each worker ran, to the last digit."""
    first, second = (Baseline("simulated.localhost", AT_S + at, {SYNC1: (NEW.id, TALLY)}) for at in (0, 60))
    journal.keep_baseline(second)
    journal.keep_baseline(first)
    journal.keep_baseline(Baseline("elsewhere.localhost", AT_S, {}))
    assert journal.baselines("simulated.localhost", AT_S) == [first, second]
    assert journal.baselines("simulated.localhost", AT_S + 1) == [second]
    assert journal.baselines("simulated.localhost", AT_S + 61) == []


def test_what_is_deleted_is_gone_and_nothing_else(journal: Journal, plan: Plan) -> None:
    """With all its events; what others keep there, and the newest baseline, stay."""
    for deploy_id in (ONE, TWO):
        journal.begin(deploy_id, plan, began(deploy_id))
        journal.append(deploy_id, EVENTS)
        journal.ask(deploy_id, Request(Command.ABORT, "bob", ""))
    for at_s in (AT_S, AT_S + 60):
        journal.keep_baseline(Baseline("simulated.localhost", at_s, {}))
    journal.keep_baseline(Baseline("elsewhere.localhost", AT_S, {}))
    assert journal.forget("elsewhere.localhost", [ONE], 0.0) == 0
    assert [line.deploy_id for line in journal.deploys("simulated.localhost", 9)] == [TWO, ONE]
    assert journal.forget("simulated.localhost", [ONE, NONE], AT_S + 1e6) == 1
    assert [line.deploy_id for line in journal.deploys("simulated.localhost", 9)] == [TWO]
    assert journal.events(ONE) == []
    assert journal.take_requests(ONE) == []
    assert len(journal.events(TWO)) == len(EVENTS) + 1
    assert len(journal.take_requests(TWO)) == 1
    assert [kept.at_s for kept in journal.baselines("simulated.localhost", 0.0)] == [AT_S + 60]
    assert len(journal.baselines("elsewhere.localhost", 0.0)) == 1
    # A rollout of that name may begin again.
    journal.begin(ONE, plan, began(ONE))
    assert journal.events(ONE) == [(1, began(ONE))]


def test_how_much_there_is_grows_with_what_is_kept(journal: Journal, plan: Plan) -> None:
    """In bytes, roughly."""
    journal.begin(ONE, plan, began(ONE))
    before = journal.keeping().size_bytes
    assert before > 0
    journal.append(ONE, EVENTS * 100)
    assert journal.keeping().size_bytes > before + 50_000
