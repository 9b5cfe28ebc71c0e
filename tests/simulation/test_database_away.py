"""The homeserver's database is away for a while: nobody is restarted meanwhile, and what fails for want of it condemns no release."""

from dataclasses import replace

import pytest

from rollout.deciding.state import DeployState
from rollout.model.event import EffectIntended, Event, GateRuled, Observed, Outcome, RollbackBegan, StepBegan
from rollout.model.gate import Ruling
from rollout.model.ids import WorkerId
from rollout.model.plan import Verb
from rollout.simulation.database import SimulatedDatabase
from rollout.simulation.rehearse import DEPLOY, Stage, rehearse
from tests.simulation.stages import PLAYBOOK, seven_workers

OUT = {Verb.DRAIN, Verb.HOLD, Verb.RESTART}


class Outage:
    """
    The database goes away while a step is under way, for *seconds*, and takes most answers with it.

    It does so just after it was looked at, so that it takes longest until anybody knows.
    """

    def __init__(self, stage: Stage, step: str, seconds: float) -> None:
        self._stage = stage
        self._step = step
        self._seconds = seconds
        self.database = SimulatedDatabase(stage.clock)
        stage.drivers = replace(stage.drivers, database=self.database)
        self.from_s = float("inf")
        self._begun = False

    @property
    def to_s(self) -> float:
        return self.from_s + self._seconds

    def __call__(self, event: Event, state: DeployState) -> None:
        """Watch the rollout; every release errs while the database is away."""
        del state
        self._begun |= isinstance(event, StepBegan) and event.step_id == self._step
        if self._begun and isinstance(event, Observed) and event.observation.guards and self.from_s == float("inf"):
            self.from_s = event.at_s
        away = self.from_s <= self._stage.clock.now_s() < self.to_s
        if away != self.database.silent:
            world = self._stage.world
            for worker in world.workers:
                world.serve(worker)
            self.database.silent = away
            world.erring = dict.fromkeys(world.releases, 0.6) if away else {}


@pytest.mark.parametrize("step", ["client1/drain", "client1/soak", "client2/soak", "homeserver/watch"])
def test_an_outage_takes_nobody_out_and_condemns_no_release(step: str) -> None:
    """Whenever it comes: no drain and no restart while it is seen to be away, no roll-back for what all did then; it ends the same."""
    stage = seven_workers()
    outage = Outage(stage, step, 40.0)
    end = rehearse(stage, stage.plan(PLAYBOOK), listeners=(outage,))
    events = [event for _, event in stage.journal.events(DEPLOY)]

    assert outage.to_s < events[-1].at_s, "there was no outage"
    assert end.outcome is Outcome.DEPLOYED, end.outcome_why
    assert not any(isinstance(event, RollbackBegan) for event in events)
    # A thorough look comes every five seconds: until the first of them nobody can know.
    seen = [e for e in events if isinstance(e, EffectIntended) and outage.from_s + 6 < e.at_s < outage.to_s and e.effect.verb in OUT]
    assert seen == []
    assert stage.world.cuts.get(WorkerId("client1"), 0) == 0


def test_a_bad_release_is_found_out_all_the_same() -> None:
    """A FAIL is acted on once the database was seen to be there after it: some seconds later, not never."""
    stage = seven_workers()
    stage.drivers = replace(stage.drivers, database=SimulatedDatabase(stage.clock))
    plan = stage.plan(PLAYBOOK)
    stage.world.erring[plan.to_release.id] = 0.3
    end = rehearse(stage, plan)
    events = [event for _, event in stage.journal.events(DEPLOY)]

    assert end.outcome is Outcome.ROLLED_BACK
    failed = next(event.at_s for event in events if isinstance(event, GateRuled) and event.verdict.ruling is Ruling.FAIL)
    assert 0 <= next(event.at_s for event in events if isinstance(event, RollbackBegan)) - failed <= 7.0


def test_one_that_stays_away_pauses_with_everybody_in() -> None:
    """For ever is too long: by the progress deadline what is out comes back, and a person is told why."""
    stage = seven_workers()
    outage = Outage(stage, "client1/drain", 100_000.0)
    end = rehearse(stage, stage.plan(PLAYBOOK), listeners=(outage,))

    assert end.outcome is Outcome.PAUSED
    assert stage.drivers.ledger.marks() == {}
    assert all(it.admitted for it in stage.world.workers.values())
