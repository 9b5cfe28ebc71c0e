"""The sentence of every kind of event."""

import pytest

from rollout.interfaces.narrate import narrate
from rollout.model.effect import Effect
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
from rollout.model.gate import Evidence, Measured, Metric, Ruling, Tally, Verdict
from rollout.model.ids import DeployId, EffectNumber, GateId, PoolId, Role, StepId, WorkerId
from rollout.model.inventory import DriverSettings, Inventory, PoolEntry, WorkerEntry
from rollout.model.plan import Verb
from rollout.model.playbook import GateEntry, Playbook
from rollout.model.sighting import Observation
from rollout.planning.planner import make_plan
from tests.planning.homeserver import NEW, OLD, SCHEMA, sighting

SYNC1, SYNC2 = WorkerId("sync1"), WorkerId("sync2")
DRIVER = DriverSettings(driver="any")
PLAN = make_plan(
    Playbook(name="short", gates=(GateEntry(id=GateId("cpu"), metric=Metric.POLL_CPU, ratio_max=1.5),)),
    Inventory(
        homeserver="example.org",
        workers={
            worker: WorkerEntry(role=Role("sync"), pool=PoolId("sync"), url="http://h", metrics="http://m") for worker in (SYNC1, SYNC2)
        },
        pools={PoolId("sync"): PoolEntry(backend="sync")},
        workers_driver=DRIVER,
        releases_driver=DRIVER,
        traffic_driver=DRIVER,
        ledger_driver=DRIVER,
    ),
    Observation(0.0, {worker: sighting(OLD) for worker in (SYNC1, SYNC2)}, releases={OLD.id: OLD}, schema=SCHEMA),
    NEW,
)
NOW_S = 1000.0
SEVEN = EffectNumber(7)
DRAIN1 = StepId("sync1/drain")


def _intended(verb: Verb, worker: WorkerId | None, weight: int = 100) -> EffectIntended:
    return EffectIntended(NOW_S, Effect(SEVEN, DRAIN1, verb, worker, NEW.id, NOW_S + 9, weight))


def _ruled(ruling: Ruling, because: str) -> GateRuled:
    evidence = Evidence(samples=0, observed=None, baseline=None, threshold=None)
    return GateRuled(NOW_S, StepId("sync1/soak"), SYNC1, Verdict(GateId("cpu"), ruling, because, evidence))


WHOSE = "bob on one (process 7) since noon: resume"
SENTENCES: list[tuple[Event, str | None]] = [
    (
        DeployBegan(NOW_S, DeployId("d-1"), "0123456789abcdef", 1, "ada@host", EffectNumber(0)),
        "rollout d-1 of example.org to 1.163.2 begins, by ada@host (plan 0123456789ab)",
    ),
    (
        DeployResumed(NOW_S, 1, "ada@host", SEVEN, windows_ignored="--ignore-windows"),
        "taken up again by ada@host: everything is looked at before anything is done; the playbook's windows are ignored: --ignore-windows",
    ),
    (DeployResumed(NOW_S, 1, "ada@host", SEVEN), "taken up again by ada@host: everything is looked at before anything is done"),
    (
        DeployResumed(NOW_S, 4, "ada@host", SEVEN, 3),
        (
            "taken up again by ada@host: everything is looked at before anything is done; what version 3 of the decision code began, "
            "version 4 goes on with, as asked"
        ),
    ),
    (
        DeployBegan(NOW_S, DeployId("d-1"), "0123456789abcdef", 1, "ada@host", EffectNumber(0), 3, WHOSE),
        f"rollout d-1 of example.org to 1.163.2 begins, by ada@host (plan 0123456789ab)\n    the lease was taken from {WHOSE}",
    ),
    (
        DeployResumed(NOW_S, 1, "ada@host", SEVEN, None, 3, WHOSE),
        f"taken up again by ada@host: everything is looked at before anything is done\n    the lease was taken from {WHOSE}",
    ),
    (
        LeaseLost(NOW_S, "it could not be renewed for 30 s: no answer in time", taken_over=False),
        "the homeserver's lease is lost, so nobody is taken out any more: it could not be renewed for 30 s: no answer in time",
    ),
    (
        LeaseLost(NOW_S, "bob@two on two (process 7) took it over at 03:10:22: resume", taken_over=True),
        "somebody else has taken over: bob@two on two (process 7) took it over at 03:10:22: resume",
    ),
    (LeaseRegained(NOW_S), "the homeserver's lease is held again"),
    (_intended(Verb.PREPARE, None), f"preparing {NEW.id} (effect 7)"),
    (_intended(Verb.MIGRATE, None), f"migrating the database to {NEW.id}: not to be interrupted (effect 7)"),
    (_intended(Verb.DRAIN, SYNC1), "draining sync1 (effect 7)"),
    (_intended(Verb.RESTART, SYNC1), f"restarting sync1 on {NEW.id} (effect 7)"),
    (_intended(Verb.ADMIT, SYNC1, weight=50), "admitting sync1 at 50 % (effect 7)"),
    (EffectSucceeded(NOW_S, SEVEN), None),
    (EffectSucceeded(NOW_S, SEVEN, OLD), f"{OLD.id} is prepared: schema 94, compatible back to 84"),
    (EffectFailed(NOW_S, SEVEN, "connection refused", permanent=False), "effect 7 failed (it did not happen): connection refused"),
    (
        EffectFailed(NOW_S, SEVEN, "exit 1", permanent=True, log=("Traceback", "KeyError")),
        "effect 7 failed (trying again would not help): exit 1\n    Traceback\n    KeyError",
    ),
    (EffectInDoubt(NOW_S, SEVEN, "timed out"), "effect 7 may or may not have happened: timed out"),
    (EffectObserved(NOW_S, SEVEN, happened=True, why="the proxy shows it drained"), "effect 7 did happen: the proxy shows it drained"),
    (
        EffectObserved(NOW_S, SEVEN, happened=False, why="the proxy shows it admitted"),
        "effect 7 did not happen: the proxy shows it admitted",
    ),
    (Observed(NOW_S, Observation(NOW_S, {})), None),
    (SamplesTaken(NOW_S, Measured()), None),
    (
        BaselineFound(NOW_S, "the journal's last day", {SYNC2: Tally(0, 1), SYNC1: Tally(0, 1)}),
        "a baseline for sync1, sync2 is there already: the journal's last day",
    ),
    (StepBegan(NOW_S, StepId("sync2/drain")), "sync2/drain begins: sync2 after sync1: at most 1 of 2 in pool sync may be out"),
    (StepBegan(NOW_S, StepId("sync2/rollback/drain")), "sync2/rollback/drain begins: sync2 back: the newest first"),
    (StepFinished(NOW_S, DRAIN1, "sync1 has no sessions left"), "sync1/drain done: sync1 has no sessions left"),
    (StepFailed(NOW_S, DRAIN1, "it still has 3 sessions after 90 s"), "sync1/drain failed: it still has 3 sessions after 90 s"),
    (WaitBegan(NOW_S, "drain", "sync1 still has sessions"), "waiting: sync1 still has sessions"),
    (_ruled(Ruling.UNMEASURABLE, "its metrics page timed out"), "sync1 can't be measured on cpu: its metrics page timed out"),
    (_ruled(Ruling.FAIL, "poll_cpu_s is 6.1 ms against at most 4.5 ms"), "sync1 fails cpu: poll_cpu_s is 6.1 ms against at most 4.5 ms"),
    (RollbackBegan(NOW_S, "sync1 failed cpu", requested=False), "rolling back: sync1 failed cpu"),
    (WindDownBegan(NOW_S, Outcome.INTERRUPTED, "SIGTERM"), "making safe, then interrupted: SIGTERM"),
    (OperatorSpoke(NOW_S, Command.ROLLBACK, "ada@host", "users complain"), "ada@host asks to roll back: users complain"),
    (OperatorSpoke(NOW_S, Command.ABORT, "ada@host", ""), "ada@host asks to make safe and stop"),
    (DeployFinished(NOW_S, Outcome.DEPLOYED, "2 workers run 1.163.2"), "deployed: 2 workers run 1.163.2"),
    (
        DeployFinished(NOW_S, Outcome.HALTED, "sync1 doesn't start", drained=(SYNC1,)),
        "halted: an operator is needed: sync1 doesn't start; still out: sync1",
    ),
]


@pytest.mark.parametrize(("event", "sentence"), SENTENCES)
def test_sentence(event: Event, sentence: str | None) -> None:
    assert narrate(event, PLAN) == sentence


def test_every_kind_of_event_has_its_sentence_here() -> None:
    assert {type(event) for event, _ in SENTENCES} == set(Event.__args__)


@pytest.mark.parametrize("ruling", list(Ruling))
def test_every_ruling_can_be_said(ruling: Ruling) -> None:
    assert narrate(_ruled(ruling, "so it is"), PLAN)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_can_be_said(outcome: Outcome) -> None:
    assert narrate(DeployFinished(NOW_S, outcome, "so it is"), PLAN)
