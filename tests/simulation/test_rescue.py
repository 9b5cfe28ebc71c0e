"""Break-glass, without a journal: what is ours comes back, but never on a release that it was being taken back from."""

from collections.abc import Callable

from rollout.engine.rescue import admit_ours
from rollout.model.effect import Effect
from rollout.model.ids import EffectNumber, ReleaseId, StepId, WorkerId
from rollout.model.plan import HoldBound, Verb
from rollout.ports.traffic import Server
from rollout.simulation.rehearse import Stage
from tests.simulation.stages import seven_workers

CLIENT1, MAIN = WorkerId("client1"), WorkerId("main")


def _out(stage: Stage, verb: Verb, worker: WorkerId, condemned: ReleaseId | None = None) -> None:
    """Take one out, and leave its mark, as a rollout does that dies then."""
    drivers = stage.drivers
    number = EffectNumber(drivers.ledger.last_number() + 1)
    effect = Effect(number, StepId(f"{worker}/{verb}"), verb, worker, stage.old.id, 0.0, condemned=condemned)
    with drivers.ledger.fence(effect):
        if verb is Verb.HOLD:
            drivers.traffic.hold(Server("main", "main"), HoldBound(300.0, 100), 1.0)
        else:
            stage.world.drain(worker)


def _run(stage: Stage, worker: WorkerId) -> ReleaseId:
    """Let a worker run the release after the old one."""
    new = stage.drivers.releases.prepare(stage.drivers.releases.identify("2.0.0", None, stage.old.id, next_generation=False), 1.0).id
    stage.world.stop(worker)
    stage.drivers.releases.activate(worker, new)
    stage.world.start(worker)
    stage.clock.advance_to(stage.clock.now_s() + stage.world.boot_s)
    return new


def test_what_runs_the_condemned_release_stays_out_and_is_named() -> None:
    stage = seven_workers()
    stage.world.drain(CLIENT1)
    stage.clock.advance_to(stage.clock.now_s() + stage.world.session_life_s)
    new = _run(stage, CLIENT1)
    _out(stage, Verb.DRAIN, CLIENT1, condemned=new)
    rescued = admit_ours(stage.drivers, stage.inventory)
    assert rescued.admitted == ()
    assert f"it runs {new}, which was being taken back" in rescued.left_out[CLIENT1]
    assert not stage.world.workers[CLIENT1].admitted


def test_once_it_runs_the_old_release_again_it_comes_back() -> None:
    stage = seven_workers()
    _out(stage, Verb.DRAIN, CLIENT1, condemned=ReleaseId("2.0.0-0a1b2c3d"))
    assert admit_ours(stage.drivers, stage.inventory).admitted == (CLIENT1,)
    assert stage.world.workers[CLIENT1].admitted
    assert stage.drivers.ledger.marks() == {}


def test_a_caller_that_knows_more_than_the_mark_is_heeded() -> None:
    """A rollout whose journal fails in the middle of a roll-back knows what it was taking back."""
    stage = seven_workers()
    _out(stage, Verb.DRAIN, CLIENT1)
    assert admit_ours(stage.drivers, stage.inventory, {CLIENT1: stage.old.id}).admitted == ()


def test_what_is_held_is_let_go() -> None:
    stage = seven_workers(held="main")
    _out(stage, Verb.HOLD, MAIN)
    assert stage.world.is_held("main")
    assert admit_ours(stage.drivers, stage.inventory).admitted == (MAIN,)
    assert not stage.world.is_held("main")
    assert stage.drivers.ledger.marks() == {}


def test_what_is_held_is_let_go_once_the_proxy_sees_it_up() -> None:
    """It answers us at once, but the proxy's next check is a while away: until then all that waits would be answered 503."""
    stage = _restarted_while_held()
    assert admit_ours(stage.drivers, stage.inventory, pause=_passing(stage)).admitted == (MAIN,)
    assert not stage.world.is_held("main")
    assert stage.world.cuts == {}


def test_what_the_proxy_does_not_see_up_stays_held_and_is_named() -> None:
    """For the proxy lets go by itself, and whoever reads this may look why."""
    stage = _restarted_while_held()
    stage.world.check_s = 100.0
    rescued = admit_ours(stage.drivers, stage.inventory, pause=_passing(stage))
    assert rescued.admitted == ()
    assert "the proxy's own check has it down for 10 s" in rescued.left_out[MAIN]
    assert stage.world.is_held("main")
    assert list(stage.drivers.ledger.marks()) == [MAIN]
    assert stage.world.cuts == {}


def _restarted_while_held() -> Stage:
    """Main answers since now."""
    stage = seven_workers(held="main")
    _out(stage, Verb.HOLD, MAIN)
    stage.clock.advance_to(stage.clock.now_s() + stage.world.held_ends_s)
    stage.world.stop(MAIN)
    stage.world.start(MAIN)
    stage.clock.advance_to(stage.clock.now_s() + stage.world.boot_s)
    return stage


def _passing(stage: Stage) -> Callable[[float], None]:
    return lambda seconds: stage.clock.advance_to(stage.clock.now_s() + seconds)
